"""Exits read out from memory, against a plain reference that computes every block of one sample at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import deediff
from deediff.cost.components import model_cost
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.recording.recompute import recompute
from deediff.sampling import sample
from tests.conftest import TINY, comparable, make_model, make_run, record

STEPS, N = 6, 13
CASES = [
    ("every:2", "memory:0"),
    ("every:3", "memory:1"),
    ("every:2,warmup:2,last", "memory:2"),
    ("every:2,min:3", "memory:1"),
    ("every:3", "output:1"),
    ("every:3", "deep:3"),
    ("threshold:0.45", "memory:0"),
    ("threshold:0.45,min:2", "memory:1"),
    ("threshold:0.45", "output:0"),
    ("fixed:4", "memory:1"),
]


def lagrange(points: list[tuple[float, Tensor]], at: float, order: int) -> Tensor:
    """The polynomial through the last order + 1 points, or as many as there are, at `at`."""
    points, total = points[-(order + 1) :], torch.tensor(0.0)
    for k, (a, value) in enumerate(points):
        weight = np.prod([(at - b) / (a - b) for j, (b, _) in enumerate(points) if j != k])
        total = total + float(weight) * value
    return total


def from_memory(model: EarlyExitModel, readout: str, states: list[Tensor], layer: int, past: Any, at: float) -> Tensor:
    """The prediction of an exit: decode(h_i + R̃_i), or DeepCache's, or earlier predictions."""
    (kind, number), net = readout.split(":"), model.backbone
    if kind == "output":
        return lagrange([(a, net.decode(old[N])) for a, old in past], at, int(number))
    if kind == "memory":
        return net.decode(states[layer] + lagrange([(a, old[N] - old[layer]) for a, old in past], at, int(number)))
    state = past[-1][1][N - int(number)]
    for i in range(N - int(number), N):
        state = net.block(i, state, states[net.skip_source(i) + 1])
    return net.decode(state)


def decided(policy: str, step: int, age: int, u: list[float]) -> int:
    """The exit layer by the policy's definition, whatever is stored; `age`: steps since the last full one, 0: none."""
    text, *options = policy.split(",")
    name, argument = text.split(":")
    if name == "fixed":
        return int(argument)
    lowest = next((int(o[4:]) for o in options if o.startswith("min:")), 0)
    if name == "threshold":
        return next((i for i in range(lowest, N) if u[i] <= float(argument)), N)
    warmup = next((int(o[7:]) for o in options if o.startswith("warmup:")), 0)
    full = step < warmup or ("last" in options and step == STEPS - 1) or not 0 < age < int(argument)
    return N if full else lowest


def reference(model: EarlyExitModel, policy: str, readout: str, number: int) -> tuple[list[Tensor], list[int]]:
    """x after every step of sample `number`, and its exit layers: all blocks are computed, then one exit is chosen."""
    solver = make_solver("ddim", Schedule(), STEPS)
    x, past, xs, exits = sample_noise(0, [number], 0, model.image_shape), [], [], []
    for s, timestep in enumerate(solver.timesteps):
        t, at = torch.tensor([timestep]), solver.log_snr(s)
        states = list(model.backbone.states(x, t))
        age = s - max((step for step, layer in enumerate(exits) if layer == N), default=s)
        layer = decided(policy, s, age, [float(model.uncertainty(i, states[i], t)) for i in range(N)])
        if readout.startswith("deep") and layer < N:
            layer = int(readout[5:])
        if layer == N or not past:  # without memory the full network runs
            layer, eps = N, model.backbone.decode(states[N])
            past.append((at, states))
        else:
            eps = from_memory(model, readout, states, layer, past, at)
        x = solver.step(s, x, eps)
        xs.append(x)
        exits.append(layer)
    return xs, exits


@pytest.mark.parametrize(("policy", "readout"), CASES)
def test_a_real_exit_from_memory_equals_a_simulated_one(policy: str, readout: str) -> None:
    model = make_model()
    steps = list(sample(model, num_samples=5, batch_size=5, policy=policy, readout=readout, steps=STEPS))
    layers = set()
    for number in range(5):
        xs, exits = reference(model, policy, readout, number)
        assert [int(step.exit_layer[number]) for step in steps] == exits
        for step, x in zip(steps, xs, strict=True):
            torch.testing.assert_close(step.x[number], x[0], atol=2e-4, rtol=2e-4)
        layers |= set(exits)
    assert len(layers) > 1


@pytest.mark.parametrize(("policy", "readout"), [("threshold:0.45", "memory:1"), ("every:2,min:2", "deep:3")])
def test_a_batch_of_64_equals_64_of_one(policy: str, readout: str) -> None:
    model, fields = make_model(), {"policy": policy, "readout": readout, "steps": 4}
    *_, together = sample(model, num_samples=70, batch_size=70, **fields)
    alone = [list(sample(model, num_samples=70, parts=[range(k, k + 1)], **fields))[-1] for k in (0, 9, 63, 64, 69)]
    for k, one in zip((0, 9, 63, 64, 69), alone, strict=True):
        torch.testing.assert_close(together.x[k], one.x[0], atol=1e-4, rtol=1e-4)
        assert int(together.exit_layer[k]) == int(one.exit_layer[0])


@pytest.mark.parametrize("readout", ["memory:0", "memory:1"])
def test_recorded_in_full_is_the_same(readout: str) -> None:
    model, fields = make_model(), {"policy": "threshold:0.45", "readout": readout, "steps": STEPS}
    real = list(sample(model, num_samples=8, **fields))
    for a, b in zip(real, sample(model, num_samples=8, record="full", **fields), strict=True):
        torch.testing.assert_close(a.x, b.x, atol=1e-4, rtol=1e-4)
        assert torch.equal(a.exit_layer, b.exit_layer)


@pytest.mark.parametrize("readout", ["memory:1", "deep:3", "output:0"])
def test_the_halves_of_a_guided_pair_have_their_own_memory(readout: str) -> None:
    model = make_model(config=replace(TINY, num_classes=4))
    model.null_label = True
    fields = {"policy": "every:2", "readout": readout, "steps": 5, "num_samples": 3}
    ((*_, guided), (*_, plain)) = (list(sample(model, guidance=g, **fields)) for g in (1.0, None))
    torch.testing.assert_close(guided.x, plain.x, atol=2e-4, rtol=2e-4)  # scale 1: the half without label cancels
    *_, other = sample(model, guidance=3.0, **fields)
    assert float((other.x - plain.x).abs().mean()) > 0.01


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("k", [2, 3])
def test_reusing_epsilon_over_k_steps_of_ddim_is_one_longer_step(k: int, clip: bool) -> None:
    model = make_model()
    every = {"policy": f"every:{k}", "readout": "output:0"}
    timesteps = tuple(range(900, 0, -150))
    *_, reused = sample(model, num_samples=3, timesteps=timesteps, **every)
    *_, longer = sample(model, num_samples=3, timesteps=timesteps[::k])
    torch.testing.assert_close(reused.x, longer.x, atol=2e-4, rtol=2e-4)


def test_only_the_blocks_of_an_exit_run() -> None:
    model, counts = make_model(), [0] * N
    for i, block in enumerate(model.backbone.blocks):
        block.register_forward_pre_hook(lambda _, args, i=i: counts.__setitem__(i, counts[i] + len(args[0])))
    list(sample(model, num_samples=4, policy="every:2", readout="deep:3", steps=2))
    assert counts == [8] * 3 + [4] * 7 + [8] * 3


@pytest.mark.parametrize(("policy", "readout"), CASES)
def test_the_trace_costs_what_was_run(policy: str, readout: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    model = deediff.load(run)
    trace, cost = record(run, "t", policy=policy, readout=readout, steps=STEPS), model_cost(model)
    with_uem = policy.startswith("threshold")
    total = 0.0
    for layers in trace.exit_layers():
        for s, layer in enumerate(layers):
            uems = sum(cost.uems[: layer + 1]) if with_uem and s else 0.0  # the first step has nothing to ask for
            kind, number = readout.split(":")
            after = {"memory": cost.decode, "output": 0.0}.get(kind, sum(cost.blocks[N - int(number) :]) + cost.decode)
            total += cost.embed + sum(cost.blocks[:layer]) + uems + (cost.decode if layer == N else after)
    assert trace.meta.mean_gflops == pytest.approx(total / 10 / STEPS)
    assert trace.meta.title == f"{policy}, readout {readout}"


def test_rows_hold_the_age_of_the_memory_and_a_resume_changes_nothing(tmp_path: Path) -> None:
    run, fields = make_run(tmp_path / "run"), {"policy": "threshold:0.45", "readout": "memory:1", "steps": STEPS}
    trace = record(run, "t", **fields)
    ages = np.concatenate([trace.memory(part)[1] for part in trace.parts])
    for exits, found in zip(trace.exit_layers(), ages, strict=True):
        expected = [s - max(np.flatnonzero(exits[: s + 1] == N)) for s in range(STEPS)]
        assert found.tolist() == expected
    before = comparable(trace)
    (trace.path / "part-00001.parquet").unlink()
    assert comparable(record(run, "t", **fields)) == before
    steps = list(recompute(trace, 5, deediff.load(run), Schedule()))
    assert [int(step.exit_layer[0]) for step in steps] == trace.exit_layers()[5].tolist()


def test_two_processes_write_the_same_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, fields = make_run(tmp_path / "run"), {"policy": "every:2", "readout": "memory:1"}
    alone = record(run, "alone", **fields)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        both = record(run, "both", **fields)
    assert comparable(both) == comparable(alone)


def test_deep_needs_long_skips_and_memory_no_heads() -> None:
    model = make_model()
    plain = EarlyExitModel(model.backbone)
    assert len(list(sample(plain, num_samples=1, policy="every:2", readout="memory:0", steps=2))) == 2
    with pytest.raises(UserError, match="policy every:2 needs output heads, but this model has none"):
        sample(plain, policy="every:2", steps=2)
    model.backbone.skip_source = lambda i: None
    with pytest.raises(UserError, match="readout deep:3 needs long skips between blocks, and this backbone has none"):
        sample(model, policy="every:2", readout="deep:3")


def test_a_plan_reads_out_all_exits_of_the_policy_alike() -> None:
    plan = Plan((PlanStep(9), PlanStep(5, "policy", "memory:0"), PlanStep(3, "policy")), N)
    with pytest.raises(UserError, match="the policy's exits are read out in different ways: give its steps one"):
        sample(make_model(), plan=plan, policy="threshold:0.45")
    same = Plan((PlanStep(9), PlanStep(5, "policy", "memory:0"), PlanStep(3, "policy", "memory:0")), N, solver="ddim")
    free = Plan((PlanStep(9), PlanStep(5, "policy"), PlanStep(3, "policy")), N, solver="ddim")
    fields = {"num_samples": 6, "policy": "threshold:0.45"}
    (*_, a), (*_, b) = (
        sample(make_model(), plan=same, **fields),
        sample(make_model(), plan=free, readout="memory:0", **fields),
    )
    assert torch.equal(a.x, b.x)
    assert int(a.exit_layer.min()) < N


def test_memory_is_dropped_when_another_network_takes_a_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    make_run(tmp_path / "other", make_model(seed=1))
    steps = (
        PlanStep(900),
        PlanStep(700, 0, "memory:0"),
        PlanStep(500, network="../other"),
        PlanStep(300, 0, "memory:0"),
        PlanStep(100, 2, "memory:0"),
    )
    found = list(sample(deediff.load(run), num_samples=2, plan=Plan(steps, N)))
    assert [step.exit_layer.tolist() for step in found] == [[13, 13], [0, 0], [13, 13], [13, 13], [2, 2]]
    assert [step.since_full.tolist() for step in found] == [[0, 0], [1, 1], [-1, -1], [0, 0], [1, 1]]
    trace = record(run, "t", plan=Plan(steps, N), policy="never")
    cost = model_cost(deediff.load(run))
    by_hand = 3 * cost.full + 2 * (cost.embed + cost.decode) + sum(cost.blocks[:2])
    assert trace.meta.mean_gflops == pytest.approx(by_hand / 5)
