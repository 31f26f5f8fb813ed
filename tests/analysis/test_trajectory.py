"""A trajectory with one decision changed: nothing changes before it, nor with the decision that was taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff.analysis.trajectory import DECODER, ExitChoice, Trajectory, follow, force_exit
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from tests.analysis.test_lens import BLOCKS, KINDS, made
from tests.conftest import make_run, record


@pytest.fixture(scope="module", params=list(KINDS))
def trajectory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return made(request.param, tmp_path_factory.mktemp(request.param))[1]


def forced(trajectory: Trajectory, step: int, choice: ExitChoice) -> Trajectory:
    found = force_exit(trajectory, step, choice)
    assert found is not None
    return found


def test_the_decision_that_was_taken_changes_nothing(trajectory: Trajectory) -> None:
    for step in range(len(trajectory.timesteps)):
        again = forced(trajectory, step, trajectory.choice(step))
        assert torch.equal(again.final, trajectory.final)
        assert torch.equal(again.x0, trajectory.x0)
        assert (again.exit_layers == trajectory.exit_layers).all()
        assert again.gflops.tolist() == trajectory.gflops.tolist()


@pytest.mark.parametrize("readout", ["head", DECODER])
def test_a_decision_changes_its_step_and_the_later_ones_only(trajectory: Trajectory, readout: str) -> None:
    step = 2
    layer = 3 if trajectory.exit_layers[step] != 3 else 8
    other = forced(trajectory, step, ExitChoice(layer, readout))
    assert other.exit_layers[step] == layer
    assert torch.equal(other.x0[:step], trajectory.x0[:step])
    assert torch.equal(other.entering[: step + 1], trajectory.entering[: step + 1])
    assert not torch.equal(other.x0[step], trajectory.x0[step])
    assert not torch.equal(other.entering[step + 1], trajectory.entering[step + 1])
    assert not torch.equal(other.final, trajectory.final)


def test_at_the_last_step_only_the_image_changes(trajectory: Trajectory) -> None:
    last = len(trajectory.timesteps) - 1
    layer = 3 if trajectory.exit_layers[last] != 3 else 8
    other = forced(trajectory, last, ExitChoice(layer))
    assert torch.equal(other.entering, trajectory.entering)
    assert torch.equal(other.x0[:last], trajectory.x0[:last])
    assert (other.exit_layers[:last] == trajectory.exit_layers[:last]).all()
    assert not torch.equal(other.final, trajectory.final)


def test_later_steps_decide_anew_from_the_changed_image(run: Path) -> None:
    """Closed loop: the exits after the change are those of the policy at the changed x_t."""
    trace, model = record(run, "exits", num_samples=10, steps=12), deediff.load(run)
    moved = 0
    for number in range(10):
        trajectory = follow(trace, number, model, Schedule())
        assert trajectory is not None
        other = forced(trajectory, 0, ExitChoice(0))
        for s, t in enumerate(other.timesteps[1:], 1):
            u = model.all_exits(other.entering[s : s + 1], torch.tensor([t]))[1][:, 0].numpy()
            assert trace.threshold is not None
            below = np.flatnonzero(u <= np.float32(trace.threshold))
            assert other.exit_layers[s] == (below[0] if len(below) else BLOCKS)
        moved += int((other.exit_layers[1:] != trajectory.exit_layers[1:]).any())
    assert moved > 0


def test_the_cost_is_that_of_the_blocks_uems_and_heads_that_were_run(tmp_path: Path) -> None:
    _, trajectory = made("threshold", tmp_path)
    cost, layers = model_cost(trajectory.job.model), trajectory.exit_layers
    with_uem, step = cost.at_exit(with_uem=True), 1
    assert trajectory.gflops.tolist() == pytest.approx(with_uem[layers].tolist())
    other = forced(trajectory, step, ExitChoice(5))
    assert other.gflops[step] == pytest.approx(with_uem[5])
    other = forced(trajectory, step, ExitChoice(5, DECODER))
    assert other.gflops[step] == pytest.approx(cost.embed + sum(cost.blocks[:5]) + cost.decode)
    other = forced(trajectory, step, ExitChoice(0, "input"))
    assert other.gflops[step] == 0
    guided = made("guided", tmp_path / "guided")[1]
    twice = 2 * model_cost(guided.job.model).at_exit(with_uem=True)
    assert guided.gflops.tolist() == pytest.approx(twice[guided.exit_layers].tolist())


def test_a_readout_without_blocks_can_be_forced(tmp_path: Path) -> None:
    _, trajectory = made("threshold", tmp_path)
    other = forced(trajectory, 2, ExitChoice(0, "input"))
    assert other.choice(2) == ExitChoice(0, "input")
    solver = trajectory.job.solver
    torch.testing.assert_close(other.x0[2:3], solver.predict_x0(2, other.entering[2:3], other.entering[2:3]))


def test_a_trajectory_is_as_long_as_it_was_wanted(run: Path) -> None:
    trace, model, done = record(run, "exits"), deediff.load(run), list[int]()
    assert follow(trace, 0, model, Schedule(), lambda step, of: done.append(step), lambda: len(done) == 3) is None
    assert done == [1, 2, 3]


@pytest.mark.parametrize(
    ("step", "choice", "message"),
    [
        (9, ExitChoice(3), "no step 9, expected 0 … 4"),
        (1, ExitChoice(14), "no exit at layer 14, expected 0 … 13"),
        (1, ExitChoice(2, "input"), "runs no block"),
        (1, ExitChoice(0, "output:2"), "too few earlier predictions at timestep"),
        (1, ExitChoice(0, "network"), "no other network is named at timestep"),
        (1, ExitChoice(0, "gaussian"), "needs the mean and covariance"),
        (1, ExitChoice(0, "crystal"), "unknown readout"),
    ],
)
def test_what_cannot_be_forced_is_a_sentence(step: int, choice: ExitChoice, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        force_exit(made("threshold", tmp_path)[1], step, choice)


def test_a_trace_of_other_weights_has_no_trajectory(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    trace, model = record(run, "exits"), deediff.load(run)
    write_json(trace.path / "trace.json", {**read_json(trace.path / "trace.json"), "checkpoint_sha256": "0" * 64})
    with pytest.raises(UserError, match="other weights"):
        follow(deediff.read_trace(trace.path), 0, model, Schedule())
    with pytest.raises(UserError, match="no sample 99"):
        follow(trace, 99, model, Schedule())
