"""Steps of one's own length: a sample equals one that is sampled alone at the timesteps that it did not skip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff.analysis.lens import diffusion_lens
from deediff.analysis.trajectory import ExitChoice, follow, force_exit
from deediff.calibration.drift import drift_file
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.sampling import sample
from tests.conftest import comparable, make_run, record
from tests.sampling.test_signals import TABLE

STEPS, SAMPLES, N = 8, 6, 13


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("apart") / "run")
    TABLE.save(drift_file(run / "checkpoints" / "7.safetensors"))
    return run


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("policy", ["drift:0.0155,cap:2", "every:3"])
def test_a_sample_equals_one_at_its_own_timesteps(policy: str, solver: str, clip: bool, run: Path) -> None:
    model, fields = deediff.load(run), {"solver": solver, "clip_x0": clip}
    steps = list(sample(model, num_samples=SAMPLES, policy=policy, readout="skip", steps=STEPS, **fields))
    exits = np.stack([step.exit_layer.numpy() for step in steps])  # (S, B)
    for k in range(SAMPLES):
        own = tuple(step.timestep for step, layer in zip(steps, exits[:, k], strict=True) if layer == N)
        *_, alone = sample(model, num_samples=SAMPLES, parts=[range(k, k + 1)], timesteps=own, **fields)
        torch.testing.assert_close(steps[-1].x[k], alone.x[0], atol=2e-4, rtol=2e-4)
    assert {0, N} == set(exits.ravel().tolist())
    if policy.startswith("drift") and not clip:  # with clipping these samples decide alike
        assert len(set(map(tuple, exits.T.tolist()))) > 1, "all samples have equal steps"


def test_under_ddim_skipping_is_reusing_the_last_prediction(run: Path) -> None:
    model, fields = deediff.load(run), {"num_samples": SAMPLES, "policy": "drift:0.0155,cap:2", "steps": STEPS}
    (*_, skipped), (*_, reused) = (list(sample(model, readout=name, **fields)) for name in ("skip", "output:0"))
    torch.testing.assert_close(skipped.x, reused.x, atol=2e-4, rtol=2e-4)


def test_only_those_that_stay_are_computed(run: Path) -> None:
    model, sizes = deediff.load(run), list[int]()
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    steps = list(sample(model, num_samples=SAMPLES, policy="drift:0.0155", readout="skip", steps=STEPS))
    assert sum(sizes) == sum(int((step.exit_layer == N).sum()) for step in steps)


def test_a_skipped_step_costs_nothing_and_a_resume_changes_nothing(run: Path) -> None:
    fields = {"policy": "drift:0.0155", "readout": "skip", "steps": STEPS, "solver": "dpm-solver++"}
    trace = record(run, "t", **fields)
    share = (trace.exit_layers() == N).mean()
    assert trace.meta.mean_gflops == pytest.approx(share * model_cost(deediff.load(run)).full)
    before = comparable(trace)
    (trace.path / "part-00001.parquet").unlink()
    assert comparable(record(run, "t", **fields)) == before


def test_a_sample_that_skips_can_be_followed_and_has_no_lens(run: Path) -> None:
    trace = record(run, "lens", policy="every:2", readout="skip", steps=4)
    trajectory = follow(trace, 3, deediff.load(run), Schedule())
    assert trajectory is not None
    assert trajectory.exit_layers.tolist() == [N, 0, N, 0]
    with pytest.raises(UserError, match="skip timesteps, where they have no x"):
        diffusion_lens(trajectory)
    with pytest.raises(UserError, match="no decision of theirs can be changed"):
        force_exit(trajectory, 1, ExitChoice(N))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"policy": "threshold:0.4"}, "readout skip needs a policy that decides before x reaches the timestep"),
        ({"policy": "first-block:0.4"}, "readout skip needs a policy that decides before x reaches the timestep"),
        ({"policy": "every:2", "solver": "ddpm"}, "readout skip needs a solver that draws no noise"),
        ({"policy": "every:2,min:3"}, "readout skip needs a policy that decides before x reaches the timestep"),
    ],
)
def test_what_cannot_be_skipped_is_a_sentence(fields: dict[str, str], sentence: str, run: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(deediff.load(run), readout="skip", steps=4, **fields)
    plan = Plan((PlanStep(9), PlanStep(5, 0, "skip")), N)
    with pytest.raises(UserError, match="leaves the timestep out for all samples: leave it out of the plan"):
        sample(deediff.load(run), plan=plan)
