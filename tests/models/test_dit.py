"""DiT as published, against an independent forward pass and diffusers' network, and its official checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import deediff
from deediff import _torchvision  # noqa: F401  (before diffusers imports torchvision)
from deediff.cost.components import model_cost
from deediff.errors import UserError
from deediff.importing.checkpoint import import_checkpoint
from deediff.models import PRESETS, DiT, DiTConfig, EarlyExitModel, make_backbone
from deediff.models.diffusers_names import dit_from_diffusers, dit_to_diffusers
from deediff.models.official_dit import dit_config
from deediff.models.presets import DITS
from tests.conftest import TINY_DIT, make_model

CONFIG = DiTConfig(img_size=8, in_chans=3, embed_dim=32, depth=3, num_heads=2, num_classes=5)


def randomized(config: DiTConfig = CONFIG) -> DiT:
    torch.manual_seed(0)
    net = DiT(config)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return net.eval()


def official_state(c: DiTConfig) -> dict[str, Tensor]:
    """Random weights of a network that learns σ, under the names and shapes of the official code."""
    torch.manual_seed(1)
    d, p, hidden = c.embed_dim, c.patch_size, int(c.embed_dim * c.mlp_ratio)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, (c.img_size // p) ** 2, d),
        "x_embedder.proj.weight": (d, c.in_chans, p, p),
        "x_embedder.proj.bias": (d,),
        "y_embedder.embedding_table.weight": (c.num_classes, d),
    }
    linear = {"t_embedder.mlp.0": (d, 256), "t_embedder.mlp.2": (d, d)}
    for i in range(c.depth):
        linear |= {f"blocks.{i}.attn.qkv": (3 * d, d), f"blocks.{i}.attn.proj": (d, d)}
        linear |= {f"blocks.{i}.mlp.fc1": (hidden, d), f"blocks.{i}.mlp.fc2": (d, hidden)}
        linear |= {f"blocks.{i}.adaLN_modulation.1": (6 * d, d)}
    linear |= {"final_layer.linear": (p * p * 2 * c.in_chans, d), "final_layer.adaLN_modulation.1": (2 * d, d)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def official_forward(w: dict[str, Tensor], c: DiTConfig, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """An independent DiT from the paper: ε and σ, (B,2·C,H,W), with attention as plain matrix products."""

    def linear(name: str, h: Tensor) -> Tensor:
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    d, p, heads = c.embed_dim, c.patch_size, c.num_heads
    h = F.conv2d(x, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=p).flatten(2).transpose(1, 2)
    h = h + w["pos_embed"]
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    time = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))))
    condition = F.silu(time + w["y_embedder.embedding_table.weight"][y])
    for i in range(c.depth):
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"blocks.{i}.adaLN_modulation.1", condition).split(d, 1)
        qkv = linear(f"blocks.{i}.attn.qkv", modulated(h, shift1, scale1))
        q, k, v = qkv.view(len(h), -1, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-1, -2) / math.sqrt(d // heads)).softmax(-1) @ v
        h = h + gate1[:, None] * linear(f"blocks.{i}.attn.proj", a.transpose(1, 2).flatten(2))
        hidden = F.gelu(linear(f"blocks.{i}.mlp.fc1", modulated(h, shift2, scale2)), approximate="tanh")
        h = h + gate2[:, None] * linear(f"blocks.{i}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", condition).split(d, 1)
    h = linear("final_layer.linear", modulated(h, shift, scale))
    side = c.img_size // p
    h = h.view(len(h), side, side, p, p, 2 * c.in_chans).permute(0, 5, 1, 3, 2, 4)
    return h.reshape(len(h), 2 * c.in_chans, c.img_size, c.img_size)


def test_an_official_checkpoint_predicts_the_published_epsilon(tmp_path: Path) -> None:
    state = official_state(CONFIG)
    torch.save(state, tmp_path / "official.pt")
    model = deediff.load(import_checkpoint(tmp_path / "official.pt", tmp_path / "run", layout="dit", num_heads=2))
    assert model.null_label
    x, t, y = torch.randn(3, 3, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([1, 0, 4])
    with torch.no_grad():
        epsilon, _ = official_forward(state, CONFIG, x, t, y).chunk(2, dim=1)
        torch.testing.assert_close(model(x, t, y), epsilon, atol=2e-5, rtol=1e-4)


def test_it_equals_the_network_of_diffusers() -> None:
    import diffusers

    net = randomized(replace(CONFIG, freq_shift=1))
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=3,
        num_layers=3,
        sample_size=8,
        num_embeds_ada_norm=4,
        norm_eps=1e-6,
    )
    missing, unexpected = theirs.load_state_dict(dit_to_diffusers(net.state_dict(), 3), strict=False)
    assert (missing, unexpected) == ([], [])
    x, t, y = torch.randn(3, 3, 8, 8), torch.tensor([0, 500, 999]), torch.tensor([1, 0, 4])
    with torch.no_grad():
        torch.testing.assert_close(net(x, t, y), theirs.eval()(x, t, y).sample, atol=1e-5, rtol=1e-5)
    again = dit_from_diffusers(theirs.state_dict(), 3)
    assert again.keys() == net.state_dict().keys() - {"pos_embed"}
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.items())


@pytest.mark.parametrize(
    ("preset", "millions"), [("dit_s_2", 33), ("dit_b_4", 130), ("dit_l_2", 458), ("dit_xl_2", 675)]
)
def test_each_size_has_the_published_parameters(preset: str, millions: int) -> None:
    """Table 1 of the DiT paper."""
    with torch.device("meta"):
        net = make_backbone(PRESETS[preset])
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions


@pytest.mark.parametrize(
    ("preset", "gmacs"),
    [
        ("dit_s_2", 6.06),
        ("dit_b_2", 23.01),
        pytest.param("dit_l_2", 80.71, marks=pytest.mark.slow),
        pytest.param("dit_xl_2", 118.64, marks=pytest.mark.slow),
    ],
)
def test_each_size_costs_what_is_published(preset: str, gmacs: float) -> None:
    """Table 4 of the DiT paper, whose Gflops are multiply-accumulates; there the last layer predicts σ as well."""
    cost = model_cost(EarlyExitModel(make_backbone(PRESETS[preset])))
    assert cost.full / 2 == pytest.approx(gmacs, rel=2e-3)


@pytest.mark.parametrize("preset", list(DITS))
def test_presets_are_recognised_with_their_number_of_heads(preset: str) -> None:
    with torch.device("meta"):
        state = DiT(DITS[preset]).state_dict()
    assert dit_config(state) == DITS[preset] if preset != "dit_tiny" else dit_config(state, 4) == DITS[preset]


def test_an_unconditional_network_takes_no_labels() -> None:
    net = randomized(TINY_DIT)
    x, t = torch.randn(2, 3, 16, 16), torch.zeros(2)
    assert net(x, t).shape == x.shape
    with pytest.raises(ValueError, match="an unconditional one takes none"):
        net(x, t, torch.zeros(2, dtype=torch.int64))


def test_a_fresh_network_predicts_zero_and_its_blocks_change_nothing() -> None:
    net = DiT(TINY_DIT)
    state = net.embed(torch.randn(2, 3, 16, 16), torch.tensor([3, 900]))
    assert torch.equal(net.block(4, state), state)
    assert not net.decode(state).any()


def test_an_identity_start_already_answers_with_its_input() -> None:
    torch.manual_seed(0)
    net, x = make_backbone(PRESETS["dit_tiny"], "identity"), torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        error = (net(x, torch.full((4,), 999), torch.arange(4)) - x).square().mean()
    assert error < 0.1  # an ordinary start gives 1
    with pytest.raises(ValueError, match=r"an identity start needs width ≥ \d+ .*, this model has 24"):
        make_backbone(replace(PRESETS["dit_tiny"], embed_dim=24), "identity")


@pytest.mark.parametrize(
    ("preset", "start", "known"), [("dit_tiny", "local", "U-ViTs"), ("unet_tiny", "identity", "U-ViTs and DiTs")]
)
def test_a_start_of_other_networks_is_refused(preset: str, start: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"start '{start}' is for {known} only, this is a .*: use 'official'"):
        make_backbone(PRESETS[preset], start)


def test_no_block_changes_what_represents_timestep_and_class() -> None:
    model = make_model(config=TINY_DIT)
    first, *others = model.backbone.states(torch.randn(2, 3, 16, 16), torch.tensor([3, 900]))
    for state in others:
        assert torch.equal(state[:, 0], first[:, 0])
        assert not torch.equal(state[:, 1:], first[:, 1:])


def test_a_branch_starts_as_the_identity_and_a_timestep_head_is_needless() -> None:
    net = randomized(TINY_DIT)
    state = net.embed(torch.randn(2, 3, 16, 16), torch.tensor([3, 900]))
    assert torch.equal(net.make_branch()(state), state)
    with pytest.raises(ValueError, match="depends on the timestep already"):
        net.make_timestep_head(1000)


@pytest.mark.parametrize(
    "fields", [{"patch_size": 3}, {"num_heads": 5}, {"embed_dim": 30, "num_heads": 2}, {"depth": 0}]
)
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"patch size 3|width|depth"):
        replace(CONFIG, **fields)


def test_another_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"pos_embed": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"not an official DiT state dict: it has no 'x_embedder.proj.weight'"):
        import_checkpoint(tmp_path / "other.pt", tmp_path / "run", layout="dit")
