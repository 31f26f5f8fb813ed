"""U-ViT as published, and exits that read the input of each block."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from deediff.models import PRESETS, EarlyExitModel, UViT, UViTConfig
from deediff.models.starts import STARTS, local_start_
from deediff.models.uvit import timestep_embedding
from tests.conftest import TINY, make_model


def randomized(config: UViTConfig, seed: int = 0) -> UViT:
    torch.manual_seed(seed)
    net = UViT(config)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    return net.eval()


def official_forward(net: UViT, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """An independent U-ViT from the paper, parameter by parameter, with attention as plain matrix products."""
    w, c = dict(net.state_dict()), net.cfg
    h = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=c.patch_size)
    h = h.flatten(2).transpose(1, 2)
    tokens = [timestep_embedding(t, c.embed_dim)[:, None], h]
    if y is not None:
        tokens.insert(0, w["label_emb.weight"][y][:, None])
    h = torch.cat(tokens, 1) + w["pos_embed"]

    def block(h: torch.Tensor, name: str, skip: torch.Tensor | None = None) -> torch.Tensor:
        if skip is not None:
            h = F.linear(torch.cat([h, skip], -1), w[f"{name}.skip_linear.weight"], w[f"{name}.skip_linear.bias"])
        n = F.layer_norm(h, h.shape[-1:], w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"])
        qkv = F.linear(n, w[f"{name}.attn.qkv.weight"])
        b, length, d = h.shape
        q, k, v = qkv.view(b, length, 3, c.num_heads, d // c.num_heads).permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-1, -2) / math.sqrt(d // c.num_heads)).softmax(-1) @ v
        a = a.transpose(1, 2).reshape(b, length, d)
        h = h + F.linear(a, w[f"{name}.attn.proj.weight"], w[f"{name}.attn.proj.bias"])
        n = F.layer_norm(h, h.shape[-1:], w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"])
        n = F.gelu(F.linear(n, w[f"{name}.mlp.fc1.weight"], w[f"{name}.mlp.fc1.bias"]))
        return h + F.linear(n, w[f"{name}.mlp.fc2.weight"], w[f"{name}.mlp.fc2.bias"])

    skips = []
    for i in range(c.depth // 2):
        h = block(h, f"in_blocks.{i}")
        skips.append(h)
    h = block(h, "mid_block")
    for i in range(c.depth // 2):
        h = block(h, f"out_blocks.{i}", skips.pop())
    h = F.layer_norm(h, h.shape[-1:], w["norm.weight"], w["norm.bias"])
    h = F.linear(h, w["decoder_pred.weight"], w["decoder_pred.bias"])[:, net.extras :]
    s, p = c.img_size // c.patch_size, c.patch_size
    h = h.view(len(h), s, s, p, p, c.in_chans).permute(0, 5, 1, 3, 2, 4).reshape(len(h), c.in_chans, s * p, s * p)
    return F.conv2d(h, w["final_layer.weight"], w["final_layer.bias"], padding=1)


@pytest.mark.parametrize(
    ("preset", "millions", "tokens"),
    [
        ("uvit_small", 44, 1 + 16**2),
        ("uvit_small_64", 44, 1 + 16**2),
        ("uvit_mid_64", 131, 2 + 16**2),
        ("uvit_large_64", 287, 2 + 16**2),
        ("uvit_large", 287, 2 + 16**2),
        ("uvit_huge", 501, 2 + 16**2),
    ],
)
def test_each_size_has_the_published_parameters_and_tokens(preset: str, millions: int, tokens: int) -> None:
    """Table 1 of the U-ViT paper. Models of ImageNet have a class token beside the time token."""
    with torch.device("meta"):
        net = UViT(PRESETS[preset])
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions
    assert net.state_size == tokens * net.dim


def test_uvit_small_has_the_published_number_of_parameters() -> None:
    net = UViT(PRESETS["uvit_small"])
    assert sum(p.numel() for p in net.parameters()) == 44_255_328
    assert net.num_blocks == 13


@pytest.mark.parametrize("classes", [0, 5])
def test_uvit_computes_what_the_paper_writes(classes: int) -> None:
    net = randomized(replace(TINY, num_classes=classes))
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([0, 500, 999])
    y = torch.tensor([1, 0, 4]) if classes else None
    with torch.no_grad():
        torch.testing.assert_close(net(x, t, y), official_forward(net, x, t, y), atol=2e-5, rtol=1e-4)


def test_each_sample_of_a_batch_has_its_own_timestep() -> None:
    model = make_model()
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([0, 250, 600, 999])
    eps, u = model.all_exits(x, t)
    for b in range(4):
        eps_b, u_b = model.all_exits(x[b : b + 1], t[b : b + 1])
        torch.testing.assert_close(eps[:, b], eps_b[:, 0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(u[:, b], u_b[:, 0], atol=1e-5, rtol=1e-4)


def test_normalized_timesteps_are_divided_by_1000() -> None:
    net = randomized(TINY)
    normalized = UViT(replace(TINY, normalize_timesteps=True)).eval()
    normalized.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        at_500 = normalized(x, torch.tensor([500, 500]))
        torch.testing.assert_close(at_500, net(x, torch.tensor([0.5, 0.5])))


def test_all_exits_ends_with_the_backbones_own_prediction(model: EarlyExitModel) -> None:
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
    eps, u = model.all_exits(x, t)
    assert eps.shape == (14, 2, 3, 16, 16)
    assert u.shape == (13, 2)
    torch.testing.assert_close(eps[-1], model(x, t))
    assert ((u >= 0) & (u <= 1)).all()


def test_exit_i_reads_the_input_of_block_i_before_its_skip(model: EarlyExitModel) -> None:
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
    eps, u = model.all_exits(x, t)
    seen: dict[int, torch.Tensor] = {}
    net = model.backbone
    blocks = [*net.in_blocks, net.mid_block, *net.out_blocks]
    hooks = [
        block.register_forward_pre_hook(lambda _, args, i=i: seen.__setitem__(i, args[0]))
        for i, block in enumerate(blocks)
    ]
    net(x, t)
    for hook in hooks:
        hook.remove()
    for i in range(13):
        torch.testing.assert_close(eps[i], model.heads[i](seen[i]))
        logits = seen[i] @ model.uem.weight[i] + model.uem.bias[i]
        torch.testing.assert_close(u[i], torch.sigmoid(logits).mean(1))


def test_attention_probe_reads_all_tokens_but_the_first() -> None:
    torch.manual_seed(0)
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "attention", "scope": "layer", "num_heads": 4})
    state = torch.randn(2, 17, 32)
    changed = state.clone()
    changed[:, 0] += 1
    u, t = model.uem(3, state, torch.zeros(2)), torch.zeros(2)
    torch.testing.assert_close(model.uem(3, changed, t), u)
    changed[:, 5] += 1
    assert not torch.equal(model.uem(3, changed, t), u)
    assert u.shape == (2,)


@pytest.mark.parametrize("start", STARTS)
def test_a_start_already_answers_with_its_input(start: str) -> None:
    torch.manual_seed(0)
    net = STARTS[start](UViT(PRESETS["uvit_tiny"]))
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        error = (net(x, torch.full((4,), 999)) - x).square().mean()
    assert error < 0.1  # an ordinary start gives 1


def test_a_local_start_looks_at_neighbours() -> None:
    torch.manual_seed(0)
    net = local_start_(UViT(PRESETS["uvit_tiny"]))
    state = net.embed(torch.randn(8, 3, 32, 32), torch.full((8,), 999))
    block, side = net.mid_block, 8
    queries, keys, _ = block.attn.qkv(block.norm1(state)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    weights = (queries @ keys.transpose(-1, -2) / 32**0.5).softmax(-1)[..., 1:, 1:].mean(dim=(0, 1))  # patches
    row, column = torch.arange(side**2) // side, torch.arange(side**2) % side
    distance = ((row[:, None] - row) ** 2 + (column[:, None] - column) ** 2).sqrt()
    assert weights[distance == 1].mean() > 2 * weights[distance >= 3].mean()  # an ordinary start gives 1


def test_a_start_that_a_network_is_too_narrow_for_is_refused() -> None:
    with pytest.raises(ValueError, match="a local start needs width ≥ 52"):
        local_start_(UViT(replace(PRESETS["uvit_tiny"], embed_dim=48)))


def test_a_patch_size_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="patch size 5 does not divide image size 32"):
        UViTConfig(patch_size=5)


def test_images_of_another_size_are_refused(model: EarlyExitModel) -> None:
    with pytest.raises(ValueError, match=r"this model takes \(3, 16, 16\)"):
        model(torch.zeros(1, 3, 32, 32), torch.zeros(1))


def test_uncertainties_keep_float32_under_autocast(model: EarlyExitModel) -> None:
    state, t = torch.randn(2, 17, 32), torch.zeros(2)
    with torch.autocast("cpu", torch.bfloat16):
        u = model.uncertainty(3, state, t)
    assert u.dtype == torch.float32
    assert torch.equal(u, model.uncertainty(3, state, t))


def test_patchify_is_the_inverse_of_what_decode_does() -> None:
    net = UViT(TINY)
    image = torch.randn(2, 3, 16, 16)
    net.final_layer = torch.nn.Identity()
    net.norm = torch.nn.Identity()
    net.decoder_pred = torch.nn.Identity()
    tokens = torch.cat([torch.zeros(2, 1, 48), net.patchify(image)], dim=1)
    torch.testing.assert_close(net.decode(tokens), image)
