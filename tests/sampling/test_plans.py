"""Plans obey the sampler's laws: each step runs as planned, for any batch, resume and recomputation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deediff
from deediff.calibration.gaussian import fit_gaussian, gaussian_file
from deediff.cli import main
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.plans.file import write_plan
from deediff.recording.recompute import recompute
from deediff.sampling import Step, sample
from tests.conftest import TAU, TINY, comparable, make_model, make_run, record
from tests.sampling.common import CONFIGS, SHALLOW, Case, make_case

STEPS = (
    PlanStep(999, 0, "gaussian"),
    PlanStep(850, 0, "teleport"),
    PlanStep(700, 3),
    PlanStep(580, "policy"),
    PlanStep(460),
    PlanStep(340, network="../shallow"),
    PlanStep(100, 0, "output:1"),
)
MIXED = Plan(STEPS, num_blocks=13, clip_x0=True)


def plan_of(model: EarlyExitModel) -> Plan:
    return replace(MIXED, num_blocks=model.num_blocks)


def blocks_of(n: int) -> list[int | None]:
    """Blocks that run per sample and step of the plan; None: the policy decides."""
    return [0, 0, 3, None, n, 3, 0]


def make_runs(name: str, folder: Path) -> Path:
    """A run of this backbone, beside networks that its plans may name."""
    make_run(folder / "shallow", make_model(1, SHALLOW[name]))
    make_run(folder / "smaller", make_model(2, replace(CONFIGS[name], img_size=8)))
    run = make_run(folder / "run", make_case(name).model)
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fit_gaussian([images], rank=20).save(gaussian_file(run / "checkpoints" / "7.safetensors"))
    write_plan(run / "plans" / "mixed.json", plan_of(make_case(name).model))
    return run


@pytest.fixture(scope="module", params=CONFIGS)
def run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return make_runs(request.param, tmp_path_factory.mktemp("plans"))


@pytest.fixture(scope="module")
def uvit_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs("uvit", tmp_path_factory.mktemp("plans"))


@pytest.fixture(scope="module")
def loaded(run: Path) -> EarlyExitModel:
    return deediff.load(run)


def steps_of(model: EarlyExitModel, **fields: Any) -> list[Step]:
    return list(sample(model, **{"num_samples": 6, "seed": 3, **fields}))


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpm-solver++"])
def test_a_plan_without_exits_is_the_plain_sampling_to_the_bit(case: Case, solver: str) -> None:
    model = case.model
    plain = steps_of(model, solver=solver, steps=5)
    plan = Plan(tuple(PlanStep(step.timestep) for step in plain), case.n, solver=solver)
    for a, b in zip(plain, steps_of(model, plan=plan), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.exit_layer, b.exit_layer)


def test_a_plan_that_leaves_exits_to_the_policy_is_that_policy_to_the_bit(case: Case) -> None:
    model, policy = case.model, f"threshold:{case.tau}"
    plain = steps_of(model, steps=5, policy=policy)
    plan = Plan(tuple(PlanStep(step.timestep, "policy") for step in plain), case.n, solver="ddim")
    for a, b in zip(plain, steps_of(model, plan=plan, policy=policy), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.exit_layer, b.exit_layer)
        assert torch.equal(a.uncertainty.nan_to_num(), b.uncertainty.nan_to_num())
    assert len({int(layer) for step in plain for layer in step.exit_layer}) > 2


def test_only_the_blocks_of_the_plan_run(loaded: EarlyExitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    n = loaded.num_blocks
    counts, block = [0] * n, loaded.backbone.block

    def counted(i: int, state: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        counts[i] += len(state)
        return block(i, state, skip)

    monkeypatch.setattr(loaded.backbone, "block", counted)
    per_step = []
    for step in sample(loaded, num_samples=6, plan="mixed", policy=f"threshold:{TAU}"):
        per_step.append((counts.copy(), step.exit_layer))
        counts[:] = [0] * n
    for planned, blocks, (found, exits) in zip(STEPS, blocks_of(n), per_step, strict=True):
        if blocks is None:
            expected = [int((exits > i).sum()) for i in range(n)]
        else:
            assert exits.tolist() == [blocks] * 6
            expected = [6 if i < blocks and planned.network is None else 0 for i in range(n)]
        assert found == expected, planned


def test_a_batch_equals_its_samples_alone(loaded: EarlyExitModel) -> None:
    fields = {"plan": plan_of(loaded), "policy": f"threshold:{TAU}"}
    together, alone = steps_of(loaded, batch_size=6, **fields), steps_of(loaded, batch_size=1, **fields)
    count = len(together)
    for s, step in enumerate(together):
        singles = [alone[k * count + s] for k in range(6)]
        torch.testing.assert_close(step.x, torch.cat([one.x for one in singles]), atol=1e-4, rtol=1e-4)
        assert torch.equal(step.exit_layer, torch.cat([one.exit_layer for one in singles]))


def test_the_trace_costs_what_was_run(run: Path, loaded: EarlyExitModel) -> None:
    trace = record(run, "cost", plan=plan_of(loaded), policy=f"threshold:{TAU}")
    cost, shallow = model_cost(loaded), model_cost(deediff.load(run.parent / "shallow"))
    gaussian = 2 * 2 * 20 * 3 * 16 * 16 / 1e9
    layers = trace.exit_layers()
    decided = cost.at_exit(with_uem=True)[layers[:, 3]].mean()
    by_hand = gaussian + 2 * gaussian + cost.at_exit(with_uem=False)[3] + decided + cost.full + shallow.full
    assert trace.meta.mean_gflops == pytest.approx(by_hand / 7)
    assert trace.meta.title == f"plan {trace.meta.plan}, threshold:{TAU}"
    assert not trace.meta.is_full


def test_a_plan_of_the_full_network_is_the_full_network(run: Path, loaded: EarlyExitModel) -> None:
    plan = Plan((PlanStep(900), PlanStep(100)), loaded.num_blocks)
    assert record(run, "full", plan=plan, policy="never").meta.is_full


def test_resumed_and_recomputed_samples_are_the_same(run: Path, loaded: EarlyExitModel) -> None:
    fields: dict[str, Any] = {"plan": plan_of(loaded), "policy": f"threshold:{TAU}", "record": "full"}
    trace = record(run, "again", **fields)
    before = comparable(trace)
    (trace.path / "part-00001.parquet").unlink()
    assert comparable(record(run, "again", **fields)) == before
    steps = list(recompute(trace, 5, loaded, Schedule()))
    assert [int(step.exit_layer) for step in steps] == trace.exit_layers()[5].tolist()
    full = list(recompute(trace, 5, loaded, Schedule(), policy="never"))
    assert [int(step.exit_layer) for step in full] == [loaded.num_blocks] * 7
    assert [step.timestep for step in full] == list(MIXED.timesteps)
    with pytest.raises(UserError, match=r"holds another trace \(different: plan\)"):
        record(run, "again", **{**fields, "plan": replace(plan_of(loaded), steps=(*STEPS[:-1], PlanStep(100)))})


def test_two_processes_write_the_same_trace(run: Path, loaded: EarlyExitModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"plan": plan_of(loaded), "policy": f"threshold:{TAU}"}
    alone = record(run, "alone", **fields)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        both = record(run, "both", **fields)
    assert both.meta.complete
    assert comparable(both) == comparable(alone)


def test_a_changed_file_of_the_plan_is_noticed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    file = gaussian_file(run / "checkpoints" / "7.safetensors")
    fit_gaussian([torch.rand(30, 3, 16, 16)], rank=5).save(file)
    plan = Plan((PlanStep(900, 0, "gaussian"), PlanStep(100)), num_blocks=13)
    trace = record(run, "t", plan=plan, policy="never")
    fit_gaussian([torch.rand(30, 3, 16, 16)], rank=6).save(file)
    with pytest.raises(UserError, match=r"a file that the plan of .* names has changed"):
        recompute(trace, 0, deediff.load(run), Schedule())
    with pytest.raises(UserError, match=r"holds another trace \(different: plan_content\)"):
        record(run, "t", plan=plan, policy="never")


def test_a_what_if_keeps_the_exits_that_the_plan_fixes(run: Path, loaded: EarlyExitModel) -> None:
    n = loaded.num_blocks
    trace = record(run, "whatif", plan=plan_of(loaded), policy="never", record="full")
    none_exits, all_exit = trace.what_if(0.0), trace.what_if(1.0)
    assert none_exits.exits.argmax(axis=1).tolist() == [0, 0, 3, n, n, 3, 0]
    assert all_exit.exits.argmax(axis=1).tolist() == [0, 0, 3, 0, n, 3, 0]
    middle = trace.what_if(0.4)
    rows = np.concatenate([trace.uncertainty(part) for part in trace.parts])[:, 3]
    exits = np.where((rows <= np.float32(0.4)).any(1), (rows <= np.float32(0.4)).argmax(1), n)
    assert middle.exits[3].tolist() == np.bincount(exits, minlength=n + 1).tolist()
    fixed = record(run, "fixed", plan=Plan((PlanStep(900, 3), PlanStep(100)), n), policy="never", record="full")
    with pytest.raises(UserError, match="its plan fixes the exit of every step"):
        fixed.what_if(0.5)


def test_guidance_evaluates_the_network_twice_and_readouts_once(tmp_path: Path) -> None:
    model = make_model(config=replace(TINY, num_classes=4))
    model.null_label = True
    run = make_run(tmp_path / "run", model)
    plan = Plan((PlanStep(999, 0, "input"), PlanStep(500), PlanStep(100, 0, "output:0")), num_blocks=13)
    trace = record(run, "guided", plan=plan, policy="never", guidance=2.0)
    assert trace.meta.mean_gflops == pytest.approx(2 * model_cost(model).full / 3)
    unguided = record(run, "plain", plan=plan, policy="never")
    assert trace.images(range(1)) != unguided.images(range(1))


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (replace(MIXED, num_blocks=12), "for a model of 12 blocks, this one has 13"),
        (replace(MIXED, num_timesteps=1001), "for 1001 timesteps, this model was trained with 1000"),
        (
            (PlanStep(9, 0, "output:0"),),
            "p: readout output:0 at timestep 9 needs 1 or more predictions before it",
        ),
        ((PlanStep(9), PlanStep(5, 0, "output:1")), "needs 2 or more predictions before it, and there are 1"),
        ((PlanStep(9), PlanStep(5, 0, "output:7")), "has order 7, expected 0, 1 or 2"),
        ((PlanStep(9, 0, "magic"),), "unknown readout 'magic', expected one of: head, gaussian"),
        ((PlanStep(9, 2, "gaussian"),), "readout gaussian at timestep 9 runs no block: give it exit_layer 0"),
        ((PlanStep(9, 0, "input", "../shallow"),), "runs no network: leave network out"),
        ((PlanStep(9, network="../nowhere"),), "nowhere does not exist"),
        ((PlanStep(9, network="../smaller"),), "network ../smaller was trained on images of shape (3, 8, 8)"),
        ((PlanStep(9), PlanStep(5, 2, "memory:1")), "needs 2 or more full evaluations before it, and there are 1"),
        ((PlanStep(9), PlanStep(5, 2, "deep:3")), "readout deep:3 at timestep 5 has exit_layer 2, expected 3"),
        ((PlanStep(9), PlanStep(5, readout="memory:0")), "memory:0 at timestep 5 has exit_layer 13, expected 0 … 12"),
        ((PlanStep(9), PlanStep(5, 0, "memory:0", "../shallow")), "reads this model's own memory: leave network out"),
        (
            (PlanStep(9, 4, network="../shallow"),),
            "at layer 4 at timestep 9, where network ../shallow has no trained exit",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_one_sentence(
    plan: Any, sentence: str, uvit_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(tmp_path / "p.json", plan if isinstance(plan, Plan) else Plan(plan, num_blocks=13))
    arguments = [
        "sample",
        uvit_run,
        "--plan",
        tmp_path / "p.json",
        "--policy",
        "threshold:0.4",
        "--out",
        tmp_path / "t",
    ]
    assert main([*map(str, arguments if isinstance(plan, Plan) else [*arguments[:4], *arguments[6:]])]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_a_plan_needs_what_its_readouts_read(tmp_path: Path) -> None:
    plan = Plan((PlanStep(9, 0, "gaussian"), PlanStep(5)), num_blocks=13)
    with pytest.raises(UserError, match=r"needs the mean and covariance of the images in .*7\.gaussian\.npz"):
        sample(deediff.load(make_run(tmp_path / "run")), plan=plan)
    with pytest.raises(UserError, match=r"fixes the exits of every step, so leave policy threshold:0\.4 out"):
        sample(make_model(), plan=Plan((PlanStep(9),), num_blocks=13), policy="threshold:0.4")
    reused = Plan((PlanStep(9), PlanStep(5, 0, "output:0")), num_blocks=13)
    with pytest.raises(UserError, match="deviations compare all exits of this network at every step, but the plan has"):
        sample(make_model(), plan=reused, record="full", deviations=True)
