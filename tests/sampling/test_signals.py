"""Policies that compare a signal with δ, against their definitions, one sample at a time with all blocks computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import deediff
from deediff.analysis.drift import measure_drift
from deediff.calibration.drift import DriftTable, drift_file, fit_drift
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.policies import make_policy
from deediff.sampling import sample
from deediff.settings import SamplingSettings
from tests.conftest import TINY, comparable, make_model, make_run, record

STEPS, N, SAMPLES = 8, 13, 6
POLYNOMIAL = [0.0, 0.0, 0.05, 0.1, 0.001]
TABLE = DriftTable(np.array([999, 500, 0]), np.array([0.5, 1.0, 2.0]), np.array(POLYNOMIAL))
CASES = {
    "drift:0.0155": ("memory:0", 0),
    "drift:0.0155,cap:2": ("output:1", 0),
    "first-block:0.09": ("memory:0", 1),
    "first-block:0.09,cap:1": ("memory:1", 1),
    "teacache:0.235": ("output:0", 0),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("signals") / "run")
    TABLE.save(drift_file(run / "checkpoints" / "7.safetensors"))
    return run


def mean_abs(values: Tensor) -> float:
    return float(values.abs().mean())


def signals(model: EarlyExitModel, policy: str, number: int, exits: list[int], xs: list[Tensor]) -> list[float]:
    """The signal at every step by its definition, given the exits that were taken and x before each step."""
    name, cap = policy.split(":")[0], int(policy.split("cap:")[1]) if "cap" in policy else STEPS
    solver, found, carried, full = make_solver("ddim", Schedule(), STEPS), [], 0.0, []
    at = [solver.log_snr(s) for s in range(STEPS)]
    states = [list(model.backbone.states(x, torch.tensor([t]))) for x, t in zip(xs, solver.timesteps, strict=True)]
    eps = [model.backbone.decode(h[N]) for h in states]
    for s, layer in enumerate(exits):
        signal = float("nan")
        if full and s - full[-1] <= cap:
            if name == "drift" and len(full) > 1:
                a, b = full[-2:]
                d = float((eps[b] - eps[a]).square().mean().sqrt())
                gain = np.interp(solver.timesteps[s], [0, 500, 999], [2, 1, 0.5])
                signal = carried + gain * d * (at[s] - at[s - 1]) / (at[b] - at[a])
            elif name == "first-block":
                r, c = (states[k][1] - states[k][0] for k in (s, full[-1]))
                signal = mean_abs(r - c) / mean_abs(c)
            elif name == "teacache":
                change = mean_abs(states[s][0] - states[s - 1][0]) / mean_abs(states[s - 1][0])
                signal = carried + float(np.polyval(POLYNOMIAL, change))
        found.append(signal)
        if layer == N:
            full, carried = [*full, s], 0.0
        elif signal == signal:
            carried = signal
    return found


@pytest.mark.parametrize("policy", CASES)
def test_signal_and_exits_follow_the_definition(policy: str, run: Path) -> None:
    model, (readout, layer) = deediff.load(run), CASES[policy]
    steps = list(sample(model, num_samples=SAMPLES, policy=policy, readout=readout, steps=STEPS))
    noise = sample_noise(0, range(SAMPLES), 0, model.image_shape)
    before, delta, patterns = (
        [noise, *(step.x for step in steps[:-1])],
        float(policy.split(":")[1].split(",")[0]),
        set(),
    )
    for number in range(SAMPLES):
        exits = [int(step.exit_layer[number]) for step in steps]
        expected = signals(model, policy, number, exits, [x[number : number + 1] for x in before])
        found = [float("nan") if step.signal is None else float(step.signal[number]) for step in steps]
        np.testing.assert_allclose(found[1:], expected[1:], rtol=2e-3, atol=1e-5)
        assert exits == [layer if signal <= delta else N for signal in expected]
        patterns.add(tuple(exits))
    assert any(layer in pattern for pattern in patterns)
    assert any(pattern.count(N) > 1 for pattern in patterns)
    assert len(patterns) > 1, "the samples decide alike, so that a decision for the batch would pass"


@pytest.mark.parametrize("policy", CASES)
def test_a_batch_equals_its_samples_alone(policy: str, run: Path) -> None:
    model, fields = deediff.load(run), {"policy": policy, "readout": CASES[policy][0], "steps": STEPS}
    together = list(sample(model, num_samples=SAMPLES, **fields))
    for k in range(SAMPLES):
        for a, b in zip(together, sample(model, num_samples=SAMPLES, parts=[range(k, k + 1)], **fields), strict=True):
            assert int(a.exit_layer[k]) == int(b.exit_layer[0])
            torch.testing.assert_close(a.x[k], b.x[0], atol=2e-4, rtol=2e-4)


def test_the_public_rule_decides_for_the_batch(run: Path) -> None:
    model = deediff.load(run)
    steps = list(sample(model, num_samples=SAMPLES, policy="first-block:0.09,batch", readout="memory:0", steps=STEPS))
    assert all(len(set(step.exit_layer.tolist())) == 1 for step in steps)
    assert {int(step.exit_layer[0]) for step in steps} == {1, N}
    signal = steps[1].signal
    noise = sample_noise(0, range(SAMPLES), 0, model.image_shape)
    solver, r = make_solver("ddim", Schedule(), STEPS), []
    for x, t in ((noise, solver.timesteps[0]), (steps[0].x, solver.timesteps[1])):
        h0, h1 = list(model.backbone.states(x, torch.full((SAMPLES,), t)))[:2]
        r.append(h1 - h0)
    assert signal is not None
    assert float(signal[0]) == pytest.approx(mean_abs(r[1] - r[0]) / mean_abs(r[0]), rel=1e-3)


@pytest.mark.parametrize("policy", ["drift:0.015", "first-block:0.09,cap:1", "teacache:0.235,cap:3"])
def test_what_if_equals_a_count_over_rows(policy: str, run: Path) -> None:
    trace = record(run, f"what-{policy}", policy=policy, readout="memory:0", steps=STEPS)
    signal = np.concatenate([trace.memory(part)[0] for part in trace.parts])
    layer = 1 if policy.startswith("first") else 0
    for delta in (0.0, 0.01, 0.02, 0.1, 0.2, 0.9):
        found = trace.what_if(delta)
        expected = (signal <= np.float32(delta)).sum(axis=0)
        assert found.exits[:, layer].tolist() == expected.tolist()
        assert (found.exits.sum(axis=1) == len(signal)).all()
    with pytest.raises(UserError, match=r"records the signal of .*, not u: name a trace that recorded u"):
        make_policy(f"budget:1@{trace.path}")
    here = trace.what_if(float(policy.split(":")[1].split(",")[0]))
    assert here.exits.tolist() == trace.summary.exits.tolist()
    assert here.gflops == pytest.approx(trace.meta.mean_gflops)


def test_rows_resume_and_survive_a_lost_summary(run: Path) -> None:
    fields = {"policy": "drift:0.015", "readout": "memory:1", "steps": STEPS}
    trace = record(run, "resumed", **fields)
    before = comparable(trace)
    (trace.path / "part-00001.parquet").unlink()
    (trace.path / "summary.npz").unlink()
    again = record(run, "resumed", **fields)
    assert comparable(again) == before
    assert int(again.summary.signals.sum()) > 0


def test_guided_pairs_share_their_decision(tmp_path: Path) -> None:
    model = make_model(config=replace(TINY, num_classes=4))
    model.null_label = True
    run = make_run(tmp_path / "run", model)
    TABLE.save(drift_file(run / "checkpoints" / "7.safetensors"))
    for policy in ("drift:0.015", "first-block:0.1", "teacache:0.24"):
        fields = {"policy": policy, "readout": "memory:0", "steps": STEPS, "guidance": 2.0}
        together = list(sample(deediff.load(run), num_samples=3, **fields))
        alone = list(sample(deediff.load(run), num_samples=3, parts=[range(2, 3)], **fields))
        assert {int(step.exit_layer[2]) for step in together} > {N}
        for a, b in zip(together, alone, strict=True):
            assert int(a.exit_layer[2]) == int(b.exit_layer[0])
            torch.testing.assert_close(a.x[2], b.x[0], atol=2e-4, rtol=2e-4)


def test_another_network_ends_what_drift_has_seen(run: Path) -> None:
    make_run(run.parent / "other", make_model(seed=1))
    steps = [PlanStep(t, "policy", "memory:0") for t in (900, 800, 700)]
    later = [PlanStep(t, "policy", "memory:0") for t in (500, 400, 300)]
    plan = Plan((*steps, PlanStep(600, network="../other"), *later), N)
    found = list(sample(deediff.load(run), num_samples=2, plan=plan, policy="drift:9"))
    assert [int(step.exit_layer[0]) for step in found] == [N, N, 0, N, N, N, 0]


def test_the_gain_predicts_what_was_measured() -> None:
    model = make_model()
    table = measure_drift(model, Schedule(), SamplingSettings(steps=6, num_samples=4))
    assert table.timesteps.shape == table.gain.shape == (6,)
    at, change = np.array([0.0, 1.0, 3.0, 4.0]), np.array([[1.0, 2.0], [4.0, 8.0], [1.0, 2.0]])
    line = np.linspace(0, 1, 30).reshape(3, 10)
    exact = fit_drift([9, 6, 3, 0], at, change, line**2, line)
    np.testing.assert_allclose(exact.gain, [2.0, 2.0, 2.0, 0.5])  # 4 / (1 · 2 / 1), then 1 / (4 · 1 / 2)
    assert np.polyval(exact.polynomial, 0.7) == pytest.approx(0.49)
    with pytest.raises(UserError, match="drift is measured on three steps or more, there are 2"):
        fit_drift([9, 0], at[:2], change[:1], change[:1], change[:1])


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            "drift:0.1",
            "policy drift:0.1 needs what a reused prediction loses in .*drift.npz, which is missing: 'deediff c",
        ),
        ("teacache:0.1", "policy teacache:0.1 needs what a reused prediction loses"),
        ("drift:-1", "policy drift:-1 has δ = -1, expected a number ≥ 0"),
        ("drift:0.1,cap:0", "policy drift:0.1 has cap 0, expected 1 or more steps in a row"),
        ("first-block:0.1,all", "has the option 'all', expected cap:K or batch"),
        ("drift:much", "'much' is not a number, expected drift:δ"),
    ],
)
def test_a_policy_that_lacks_what_it_reads_is_a_sentence(policy: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(deediff.load(make_run(tmp_path / "run")), policy=policy, readout="memory:0")
