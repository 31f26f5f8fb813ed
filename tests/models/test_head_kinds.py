"""Kinds of a single output head: each does everything that today's linear head does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deediff
from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint
from deediff.checkpoints import load_checkpoint, save_checkpoint
from deediff.cost.components import model_components, model_cost, parameters_used
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel, UViT
from deediff.models.head import HEAD_KINDS
from deediff.models.heads import build_heads
from deediff.policies import Fixed, Threshold
from deediff.sampling import sample
from deediff.sampling.condition import Condition
from deediff.sampling.forward import predict
from deediff.sampling.request import Request
from tests.conftest import TINY, make_model, make_run, sample_trace
from tests.sampling.common import TAU, X, exits_by_definition

KINDS = list(HEAD_KINDS)


def model_with(kind: str, num_classes: int = 0, heads: str = "each") -> EarlyExitModel:
    """Random weights; every head and every part of it answers differently."""
    model = make_model(config=replace(TINY, num_classes=num_classes))
    model.null_label = num_classes > 0
    model.heads = build_heads(heads, model.backbone, kind)
    torch.manual_seed(1)
    for p in model.heads.requires_grad_(False).parameters():
        p.add_(torch.randn_like(p) * 0.1)
    return model.eval().requires_grad_(False)


def mixed_timesteps(count: int) -> Tensor:
    return torch.linspace(0, 999, count).long()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", ["each", "shared"])
def test_every_kind_starts_as_the_linear_head(kind: str, heads: str) -> None:
    model = make_model()
    model.heads = build_heads(heads, model.backbone)
    expected, _ = model.all_exits(X, mixed_timesteps(16))
    model.heads = build_heads(heads, model.backbone, kind)
    torch.testing.assert_close(model.all_exits(X, mixed_timesteps(16))[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_timestep_head_knows_the_timestep(kind: str) -> None:
    model = model_with(kind)
    state = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(0))
    early, late = (model.read_out(3, state, torch.full((2,), t)) for t in (950, 50))
    assert torch.equal(early, late) == (kind != "timestep")
    near = model.read_out(3, state, torch.full((2,), 951))
    torch.testing.assert_close(near, early, atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_timesteps_equals_its_samples_alone(kind: str) -> None:
    model, t = model_with(kind), mixed_timesteps(16)
    together, _ = model.all_exits(X, t)
    alone = torch.cat([model.all_exits(X[i : i + 1], t[i : i + 1])[0] for i in range(16)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_64_at_once_equal_64_of_one(kind: str) -> None:
    model = model_with(kind)
    options = {"num_samples": 64, "steps": 3, "policy": f"threshold:{TAU}"}
    *_, batch = sample(model, batch_size=64, **options)
    alone = [step for step in sample(model, batch_size=1, **options) if step.step == 2]
    assert len(batch.exit_layer.unique()) > 3
    assert torch.equal(batch.exit_layer, torch.cat([step.exit_layer for step in alone]))
    torch.testing.assert_close(batch.x, torch.cat([step.x for step in alone]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timestep", [40, 700])
def test_a_real_exit_equals_the_simulated_one(kind: str, timestep: int) -> None:
    model = model_with(kind)
    predictions, u = model.all_exits(X, torch.full((16,), timestep))
    found = predict(model, X, Request(Threshold(TAU), 0, timestep, np.arange(16)))
    assert torch.equal(found.exit_layer, exits_by_definition(u, TAU))
    chosen = predictions[found.exit_layer, torch.arange(16)]
    torch.testing.assert_close(found.output, chosen, atol=1e-4, rtol=1e-4)
    recorded = predict(model, X, Request(Threshold(TAU), 0, timestep, np.arange(16), "full", deviations=True))
    rms = (predictions[:-1] - predictions[-1]).square().mean(dim=(2, 3, 4)).sqrt()
    torch.testing.assert_close(recorded.deviation, rms.T, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_combines_the_heads_of_both_rows(kind: str) -> None:
    model, labels, t = model_with(kind, num_classes=4), torch.arange(16) % 3, torch.full((16,), 300)
    request = Request(Fixed(5), 0, 300, np.arange(16), condition=Condition(labels, 2.5, null_label=3))
    with_label, without = (model.all_exits(X, t, y)[0][5] for y in (labels, torch.full_like(labels, 3)))
    expected = without + 2.5 * (with_label - without)
    torch.testing.assert_close(predict(model, X, request).output, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_near(kind: str) -> None:
    model, t = model_with(kind), mixed_timesteps(16)
    exact, _ = model.all_exits(X, t)
    with torch.autocast("cpu", torch.bfloat16):
        coarse, u = model.all_exits(X, t)
    assert u.dtype == torch.float32
    error = (coarse.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < float(error) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_keeps_the_kind_and_is_calibrated_sampled_and_mapped(
    kind: str, tmp_path: Path, image_folder: Path
) -> None:
    model = model_with(kind)
    run = make_run(tmp_path / "run", model)
    again = deediff.load(run)
    assert again.head == kind
    assert json.loads((run / "checkpoints" / "7.json").read_text())["head"] == kind
    torch.testing.assert_close(model.all_exits(X, mixed_timesteps(16)), again.all_exits(X, mixed_timesteps(16)))
    calibrate_checkpoint(run, CalibrationSettings(8, 3, str(image_folder)), device="cpu")
    trace = deediff.read_trace(
        sample_trace(run, run / "traces" / "one", 4, "excess:0.1", steps=3, record="full", maps=range(1))
    )
    assert trace.maps(0).shape == (3, 13, 4, 4)
    half, _ = load_checkpoint(save_checkpoint(tmp_path / "2.safetensors", model, Schedule(), 1, 1, torch.float16))
    for a, b in zip(model.state_dict().values(), half.state_dict().values(), strict=True):
        assert torch.equal(a.half().float(), b)


def test_checkpoints_of_earlier_versions_have_linear_heads(tmp_path: Path) -> None:
    model = make_model()
    path = save_checkpoint(tmp_path / "1.safetensors", model, Schedule(), 1, 1)
    info = json.loads(path.with_suffix(".json").read_text())
    assert {info.pop("head"), info.pop("exit_target")} == {"linear", "noise"}
    path.with_suffix(".json").write_text(json.dumps(info))
    again = deediff.load(path)
    assert (again.head, again.exit_target) == ("linear", "noise")
    torch.testing.assert_close(model.all_exits(X, mixed_timesteps(16)), again.all_exits(X, mixed_timesteps(16)))


def test_costs_are_counted_by_hand() -> None:
    d, patches, tokens, pixels = 32, 16, 17, 16 * 16
    linear = patches * d * 48 + pixels * 9 * 9  # the map, and the 3×3 convolution of 3 channels
    costs = {kind: model_components(EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp"}, head=kind)) for kind in KINDS}
    assert {kind: parts.heads[3].macs for kind, parts in costs.items()} == {
        "linear": linear,
        "timestep": linear,
        "branch": linear + tokens * d * (3 * d + d + d + d),
    }
    more = costs["timestep"].heads[3].elementwise_ops - costs["linear"].heads[3].elementwise_ops
    assert 48 * d < more < 48 * d + 200  # the map of this timestep, interpolated
    attention = {kind: parts.heads[3].attention_macs for kind, parts in costs.items()}
    assert attention == {"linear": 0, "timestep": 0, "branch": 2 * tokens * tokens * d}
    model = model_with("branch")
    used = parameters_used(model)
    assert sum(used.values()) == sum(p.numel() for p in model.parameters())
    cost = model_cost(model)
    assert cost.at_exit(with_uem=False)[0] == pytest.approx(
        cost.embed + 2 * (costs["branch"].heads[0].macs) / 1e9 + 2 * attention["branch"] / 1e9
    )


@pytest.mark.parametrize(
    ("heads", "head", "sentence"),
    [
        ("each", "square", "the head is 'square', expected one of: linear, timestep, branch"),
        ("decoder", "timestep", "are the network's own last layers, which cannot be 'timestep'"),
    ],
)
def test_kinds_that_cannot_be_built_are_refused(heads: str, head: str, sentence: str) -> None:
    model = EarlyExitModel(UViT(TINY))
    with pytest.raises(ValueError, match=sentence):
        model.add_exits({"name": "mlp"}, heads, head=head)
    assert (model.uem, model.heads, model.head) == (None, None, None)


def test_a_backbone_without_the_kind_says_so() -> None:
    class Plain(UViT):
        make_timestep_head = deediff.Backbone.make_timestep_head
        make_branch = deediff.Backbone.make_branch

    for kind in ("timestep", "branch"):
        with pytest.raises(ValueError, match=r"a Plain has no .* use"):
            EarlyExitModel(Plain(TINY)).add_exits({"name": "mlp"}, head=kind)


def test_training_reaches_every_part_of_every_head() -> None:
    x, t = torch.randn(5, 3, 16, 16), torch.tensor([100, 300, 500, 700, 900])
    for kind in KINDS:
        model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp"}, head=kind)
        optimizer = torch.optim.SGD(model.heads.parameters(), lr=0.1)
        for _ in range(2):  # a branch starts as the identity: its first layers follow in the second step
            optimizer.zero_grad()
            model.all_exits(x, t)[0][:-1].square().mean().backward()
            optimizer.step()
        assert isinstance(model.heads, nn.Module)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.heads.parameters()), kind
