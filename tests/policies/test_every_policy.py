"""Laws of every exit policy: alone, under bounds, and under guidance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import deediff
from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint
from deediff.calibration.drift import DriftTable, drift_file
from deediff.checkpoints import save_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.policies import POLICIES, ExitPolicy, make_policy
from deediff.policies.base import LayerState
from deediff.sampling import sample
from tests.conftest import TINY, make_model, make_run, sample_trace

STEPS, SAMPLES, SEED = 5, 8, 3
CLASSES = replace(TINY, num_classes=4)  # three, and "no class"
ASE = [28, 28, 24, 24, 20, 20, 16, 16, 12, 12]  # of 28 blocks, per hundred timesteps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with class labels, and the files that policies read."""
    folder = tmp_path_factory.mktemp("every")
    model = make_model(config=CLASSES)
    model.null_label = True
    run = make_run(folder / "run", model)
    torch.manual_seed(5)
    shallow = EarlyExitModel(UViT(replace(CLASSES, depth=2)))
    save_checkpoint(folder / "no-null-label.safetensors", shallow, Schedule(), 1, 1)
    shallow.null_label = True
    save_checkpoint(folder / "shallow.safetensors", shallow, Schedule(), 1, 1)
    for name in "abc":
        (folder / "images" / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.random.default_rng(ord(name) + i).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
    calibrate_checkpoint(run, CalibrationSettings(images=12, bins=3, dataset=str(folder / "images")), "cpu")
    DriftTable(np.array([999, 0]), np.ones(2), np.array([0, 0, 0, 1.0, 0.0])).save(
        drift_file(run / "checkpoints" / "7.safetensors")
    )
    for guidance in (None, 2.5):
        options = {"record": "full", "deviations": True, "guidance": guidance, "device": "cpu"}
        sample_trace(run, folder / f"full-{guidance}", SAMPLES, steps=STEPS, seed=SEED, **options)
    return folder


def spec(name: str, folder: Path, guidance: float | None) -> str:
    """A policy of this name under which some samples exit early."""
    trace = folder / f"full-{guidance}"
    budget = 0.6 * deediff.read_trace(trace).meta.mean_gflops
    arguments = {
        "never": "",
        "threshold": ":0.48",
        "patience": ":0.48",
        "batch-mean": ":0.49",
        "fixed": ":6",
        "schedule": ":ase",
        "budget": f":{budget}@{trace}",
        "excess": ":0.02",
        "stopping": f":{budget}",
        "oracle": f":{budget}@{trace}",
        "every": ":2",
        "drift": ":0.02",
        "first-block": ":0.1",
        "teacache": ":9",
        "dual": f":600:{folder / 'shallow.safetensors'}",
    }
    return name + arguments[name]


def first_exit(
    policy: ExitPolicy,
    u: torch.Tensor,
    step: int,
    timestep: int,
    since_full: NDArray[np.int64],
    signal: torch.Tensor | None,
) -> torch.Tensor:
    """The definition, from u of all layers (B, N): layer after layer, for the samples still running. → (B,)"""
    exits = torch.full((len(u),), u.shape[1])
    inside = torch.arange(len(u))
    for layer in range(u.shape[1]):
        lowest = u[inside, :layer].amin(dim=1) if layer else None
        since = since_full[inside.numpy()]
        state = LayerState(layer, u.shape[1], step, timestep, inside.numpy(), u[inside, layer], lowest, None, since)
        if signal is not None and layer >= policy.signaller.signal_layer:
            state = state._replace(signal=signal[inside])
        exiting = torch.as_tensor(policy.should_exit(state)).expand(len(inside))
        exits[inside[exiting]] = layer
        inside = inside[~exiting]
        if not len(inside):
            break
    return exits


@pytest.mark.parametrize("bounds", ["", ",min:3,max:9"])
@pytest.mark.parametrize("guidance", [None, 2.5])
@pytest.mark.parametrize("name", POLICIES)
def test_a_pair_exits_by_the_policy_on_its_larger_u(
    folder: Path, name: str, guidance: float | None, bounds: str
) -> None:
    """With record=exit and record=full: equal exits, equal images, equal u up to the exit."""
    model, solver = deediff.load(folder / "run"), make_solver("ddim", Schedule(), STEPS)
    policy = make_policy(spec(name, folder, guidance) + bounds).prepared(model, solver, guidance)
    options = {"policy": policy, "solver": solver, "seed": SEED, "guidance": guidance, "batch_size": SAMPLES}
    real = list(sample(model, num_samples=SAMPLES, **options))  # type: ignore[arg-type]
    full = list(sample(model, num_samples=SAMPLES, record="full", **options))  # type: ignore[arg-type]
    left, since_full = set(), np.zeros(SAMPLES, np.int64)
    for a, b in zip(real, full, strict=True):
        if policy.network(a.timestep) is not None:
            assert (a.exit_layer == 3).all()  # all blocks of the shallow network
            continue
        assert torch.equal(a.exit_layer, first_exit(policy, b.uncertainty, a.step, a.timestep, since_full, b.signal))
        torch.testing.assert_close(a.x, b.x, atol=1e-4, rtol=1e-4)
        since_full = b.since_full + 1
        left |= set(a.exit_layer.tolist())
        assert not bounds or set(a.exit_layer.tolist()) <= set(range(3, 10))
    assert left == {13} if name in ("never", "dual") and not bounds else min(left) < 13


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 13), st.integers(0, 13), st.integers(0, 13))
def test_fixed_exit_layers_are_moved_to_the_bounds(layer: int, a: int, b: int) -> None:
    low, high = sorted((a, b))
    model = make_model()
    for policy, fixed_layers in ((f"fixed:{layer}", [layer] * 10), ("schedule:ase", [round(i * 13 / 28) for i in ASE])):
        steps = list(sample(model, num_samples=1, policy=f"{policy},min:{low},max:{high}", steps=4))
        expected = [min(max(fixed_layers[s.timestep // 100], low), high) for s in steps]
        assert [int(s.exit_layer) for s in steps] == expected


def test_bounds_may_come_in_any_order_and_once() -> None:
    assert make_policy("threshold:0.1,max:9,min:2").spec == make_policy("threshold:0.1,min:2,max:9").spec
    with pytest.raises(UserError, match="gives min twice"):
        make_policy("threshold:0.1,min:2,min:3")


def test_a_bound_at_a_layer_without_an_exit_is_refused() -> None:
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp", "layers": [2, 9]}).eval()
    assert [int(s.exit_layer) for s in sample(model, num_samples=1, policy="fixed:2,min:9", steps=1)] == [9]
    with pytest.raises(UserError, match="exits at layer 5, where this model has no trained exit"):
        sample(model, policy="fixed:2,min:5")
    make_policy("fixed:9,min:5").check(model)


def test_bounds_apply_to_the_full_network_of_two(folder: Path) -> None:
    model, policy = deediff.load(folder / "run"), spec("dual", folder, None) + ",min:5,max:6"
    steps = sample(model, num_samples=2, policy=policy, steps=10)
    assert [s.exit_layer.tolist() for s in steps] == [[3, 3]] * 4 + [[6, 6]] * 6


def test_guidance_needs_the_label_for_no_class_in_both_networks(folder: Path) -> None:
    model, policy = deediff.load(folder / "run"), f"dual:600:{folder / 'no-null-label.safetensors'}"
    with pytest.raises(UserError, match=r"no-null-label\.safetensors has not learnt"):
        sample(model, num_samples=2, policy=policy, steps=2, guidance=2.0)
    assert len(list(sample(model, num_samples=2, policy=policy, steps=2))) == 2


def test_a_threshold_leaves_the_steps_of_another_network_as_they_are(folder: Path) -> None:
    trace = deediff.read_trace(
        sample_trace(folder / "run", folder / "dual", 2, spec("dual", folder, None), steps=5, record="full")
    )
    assert trace.meta.layer_ratio == pytest.approx((2 * 3 / 13 + 3) / 5)
    all_exit, none_exits = trace.what_if(1.0), trace.what_if(0.0)
    assert all_exit.exits.argmax(axis=1).tolist() == [3, 3, 0, 0, 0]
    assert none_exits.exits.argmax(axis=1).tolist() == [3, 3, 13, 13, 13]
    shallow = trace.cost.fixed[0]
    assert shallow is not None
    first, last = trace.cost.at_exit(with_uem=True)[[0, 13]]
    assert all_exit.gflops == pytest.approx((2 * shallow + 3 * first) / 5)
    assert none_exits.gflops == pytest.approx((2 * shallow + 3 * last) / 5)
    exits_only = deediff.read_trace(sample_trace(folder / "run", folder / "d2", 2, spec("dual", folder, None), steps=5))
    with pytest.raises(UserError, match="holds no uncertainties"):
        exits_only.what_if(0.5)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("dual:600", "names no shallow network, expected dual:t:CHECKPOINT"),
        ("budget:1", "names no trace, expected budget:GFLOPs@TRACE"),
        ("oracle:nan@x", "gives nan GFLOPs, expected a number above 0"),
        ("oracle:0@x", "gives 0 GFLOPs"),
        ("dual:x:runs/none", "switches at 'x', expected a timestep"),
        ("budget:x@y", "gives x GFLOPs, expected a number above 0"),
        ("schedule:", r"needs a JSON file, or a ready-made schedule \(ase\)"),
        ("schedule:asee", r"policy schedule:asee needs a JSON file, or a ready-made schedule \(ase\): asee is neither"),
        ("fixed:-1", "policy fixed:-1 exits at layer -1, expected 0"),
        ("threshold:0.1,mid:3", "'0.1,mid:3' is not a number, expected threshold:τ; a policy may end in ,min:i"),
    ],
)
def test_an_incomplete_policy_is_refused(policy: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_policy(policy)


def test_an_oracle_of_other_settings_is_refused(folder: Path, tmp_path: Path) -> None:
    model, oracle = deediff.load(folder / "run"), spec("oracle", folder, 2.5)
    with pytest.raises(UserError, match=r"that trace has guidance 2\.5, this sampling None"):
        sample(model, num_samples=SAMPLES, policy=oracle, steps=STEPS, seed=SEED)
    other = deediff.load(make_run(tmp_path / "other", make_model(seed=1, config=CLASSES)))
    with pytest.raises(UserError, match="was sampled from other weights"):
        sample(other, num_samples=SAMPLES, policy=spec("oracle", folder, None), steps=STEPS, seed=SEED)
