"""Every UEM of the literature: its inputs, its weights, and its options; and the kinds of output heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deediff.checkpoints import load_checkpoint, save_checkpoint
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.models.embedding import timestep_embedding
from deediff.models.uems import MLPUncertainty, NetworkShape, build_uem
from deediff.policies import make_policy
from deediff.sampling import sample
from deediff.sampling.forward import predict
from deediff.sampling.request import Request
from tests.conftest import TINY

SHAPE = NetworkShape(num_layers=13, dim=32, extras=1, patch_dim=48)
STATE, T = torch.randn(6, 17, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 7, 500, 7, 999, 3])


def make_uem(**options: Any) -> MLPUncertainty:
    torch.manual_seed(1)
    uem = build_uem({"name": "mlp", **options}, SHAPE)
    assert isinstance(uem, MLPUncertainty)
    torch.nn.init.normal_(uem.bias)
    torch.nn.init.normal_(uem.weight, std=0.3)
    return uem.requires_grad_(False)


@pytest.mark.parametrize("scope", ["layer", "timestep", "layer_timestep"])
def test_each_sample_uses_the_weights_of_its_own_timestep(scope: str) -> None:
    uem = make_uem(scope=scope)
    for layer in (0, 8):
        u = uem(layer, STATE, T)
        for b, t in enumerate(T.tolist()):
            row = {"layer": layer, "timestep": t, "layer_timestep": 1000 * layer + t}[scope]
            expected = (STATE[b] @ uem.weight[row] + uem.bias[row]).sigmoid().mean()
            torch.testing.assert_close(u[b], expected)


def test_13_000_uems_are_one_tensor() -> None:
    uem = build_uem({"name": "mlp", "scope": "layer_timestep"}, SHAPE)
    assert {name: tuple(p.shape) for name, p in uem.named_parameters()} == {"weight": (13000, 32), "bias": (13000,)}


def test_the_first_samples_timestep_for_all_is_an_option() -> None:
    right, wrong = make_uem(scope="timestep"), make_uem(scope="timestep", first_timestep=True)
    torch.testing.assert_close(wrong(3, STATE, T), right(3, STATE, torch.full((6,), int(T[0]))))
    assert not torch.allclose(wrong(3, STATE, T), right(3, STATE, T))


def test_image_tokens_leave_the_extra_ones_out() -> None:
    uem, changed = make_uem(tokens="image"), STATE.clone()
    changed[:, 0] += 1
    torch.testing.assert_close(uem(2, changed, T), uem(2, STATE, T))
    assert not torch.allclose(make_uem()(2, changed, T), make_uem()(2, STATE, T))


def test_the_timesteps_embedding_is_appended_to_every_token() -> None:
    uem = make_uem(timestep_embedding=True)
    tokens = torch.cat([STATE, timestep_embedding(T, 32)[:, None].expand(-1, 17, -1)], dim=-1)
    torch.testing.assert_close(uem(4, STATE, T), (tokens @ uem.weight[4] + uem.bias[4]).sigmoid().mean(1))


@pytest.mark.parametrize(("aggregation", "reduce"), [("mean", torch.mean), ("sum", torch.mean), ("max", torch.amax)])
def test_a_map_has_one_value_per_value_of_the_image(aggregation: str, reduce: Any) -> None:
    uem = make_uem(map=True, aggregation=aggregation)
    rows = slice(3 * 48, 4 * 48)
    expected = (STATE[:, 1:] @ uem.weight[rows].T + uem.bias[rows]).sigmoid()  # (6, 16, 48)
    torch.testing.assert_close(uem.map(3, STATE, T), expected)
    torch.testing.assert_close(uem(3, STATE, T), reduce(expected, dim=(1, 2)))


@pytest.mark.parametrize("name", ["mlp", "attention"])
@pytest.mark.parametrize("detach", [False, True])
def test_detached_means_no_gradient_into_the_network(name: str, detach: bool) -> None:
    uem = build_uem({"name": name, "detach": detach}, SHAPE)
    state = STATE.clone().requires_grad_(True)
    uem(3, state, T).sum().backward()
    assert (state.grad is None) == detach
    assert any(p.grad is not None and p.grad.any() for p in uem.parameters())


def make_exits(heads: str = "each", **uem: Any) -> EarlyExitModel:
    torch.manual_seed(3)
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp", **uem}, heads)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval().requires_grad_(False)


def test_uems_at_a_subset_of_layers() -> None:
    """No sample exits at a layer without a UEM, and u is NaN there in both kinds of record."""
    model = make_exits(layers=[2, 9])
    x = sample_noise(0, range(8), 0, model.image_shape)
    u = model.all_exits(x, torch.full((8,), 500))[1]
    assert u.isnan().any(1).tolist() == [i not in (2, 9) for i in range(13)]
    tau = float(u[[2, 9]].amin(0).median()) + 1e-4
    for record in ("exit", "full"):
        p = predict(model, x, Request(make_policy(f"threshold:{tau}"), 0, 500, np.arange(8), record))  # type: ignore[arg-type]
        assert set(p.exit_layer.tolist()) <= {2, 9, 13}
        assert len(p.exit_layer.unique()) > 1
    torch.testing.assert_close(p.uncertainty, u.T, equal_nan=True)
    with pytest.raises(UserError, match="exits at layer 3, where this model has no trained exit"):
        sample(model, policy="fixed:3")
    with pytest.raises(UserError, match="exits at layer 4"):
        sample(model, policy="never,max:4")
    with pytest.raises(ValueError, match="expected some of 0 … 12"):
        make_exits(layers=[13])


OPTIONS: list[dict[str, Any]] = [
    {"scope": "timestep", "timestep_embedding": True},
    {"scope": "layer_timestep", "aggregation": "max"},
    {"map": True, "layers": [1, 5], "detach": True},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("heads", ["each", "shared", "decoder"])
def test_a_checkpoint_brings_every_option_back(tmp_path: Path, options: dict[str, Any], heads: str) -> None:
    model = make_exits(heads, **options)
    path = save_checkpoint(tmp_path / "1.safetensors", model, Schedule(), 1, 1)
    again, _ = load_checkpoint(path)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
    for a, b in zip(model.all_exits(x, t), again.all_exits(x, t), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("scope", ["timestep", "layer_timestep"])
def test_the_sampler_evaluates_the_uems_of_its_timestep(scope: str) -> None:
    model = make_exits(scope=scope)
    x = sample_noise(0, range(4), 0, model.image_shape)
    p = predict(model, x, Request(make_policy("threshold:0"), 0, 321, np.arange(4)))
    torch.testing.assert_close(p.uncertainty.T, model.all_exits(x, torch.full((4,), 321))[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"name": "oracle"}, "unknown UEM 'oracle'"),
        ({"name": "mlp", "scope": "pixel"}, "scope is 'pixel', expected one of: layer, timestep, layer_timestep"),
        ({"name": "attention", "scope": "timestep"}, "scope is 'timestep', expected one of: layer"),
        ({"name": "mlp", "colour": 1}, "does not fit 'mlp'"),
    ],
)
def test_unknown_options_are_refused(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_uem(config, SHAPE)
