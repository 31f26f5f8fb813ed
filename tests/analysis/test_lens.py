"""The diffusion lens: each cell is what the network predicts there, and looking changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff.analysis.lens import Lens, available_readouts, diffusion_lens
from deediff.analysis.trajectory import DECODER, ExitChoice, Trajectory, follow
from deediff.datasets import to_uint8
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from tests.conftest import TAU, TINY, make_model, make_run, record

BLOCKS, NUMBER, GREY = 13, 4, 2  # sample 4 is the first of the second batch
PLAN = Plan(
    (
        PlanStep(999, 0, "input"),
        PlanStep(800, 0, "output:0"),
        PlanStep(600, 5),
        PlanStep(400, "policy"),
        PlanStep(200),
        PlanStep(50, 0, "output:1"),
    ),
    num_blocks=BLOCKS,
    clip_x0=True,
)
KINDS: dict[str, dict[str, object]] = {
    "threshold": {},
    "stochastic": {"solver": "ddpm"},
    "multistep": {"solver": "dpm-solver++", "clip_x0": True},
    "batch": {"policy": "batch-mean:0.45"},
    "plan": {"plan": PLAN},
    "guided": {"guidance": 2.0, "classes": (2, 0, 1), "policy": "threshold:0.35"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[deediff.Trace, Trajectory]:
    """A trace, and the trajectory of one of its samples."""
    return made(request.param, tmp_path_factory.mktemp(request.param))


def made(kind: str, folder: Path) -> tuple[deediff.Trace, Trajectory]:
    model = make_model(config=replace(TINY, num_classes=4)) if kind == "guided" else make_model()
    model.null_label = kind == "guided"
    run = make_run(folder / "run", model)
    trace = record(run, kind, **KINDS[kind])
    found = follow(trace, NUMBER, deediff.load(run), Schedule())
    assert found is not None
    return trace, found


def seen(trajectory: Trajectory, *args: object, **options: object) -> Lens:
    lens = diffusion_lens(trajectory, *args, **options)  # type: ignore[arg-type]
    assert lens is not None
    return lens


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def sampled(trace: deediff.Trace) -> list[deediff.sampling.Step]:
    """The steps of the whole batch that the sample was in."""
    settings = trace.meta.settings
    assert settings is not None
    model = deediff.load(trace.path.parents[1])
    return list(deediff.sample(model, settings, parts=[range(4, 8)]))


def test_the_cell_of_the_exit_taken_is_what_sampling_used(kind: tuple[deediff.Trace, Trajectory]) -> None:
    """In a batch of four, the sample's x̂_0 at each step is the cell that the lens marks for the sample alone."""
    trace, trajectory = kind
    lens = seen(trajectory, readouts=["input", "output:0", "output:1"])
    steps = sampled(trace)
    assert [choice.layer for choice in lens.taken] == [int(step.exit_layer[0]) for step in steps]
    assert lens.steps == tuple(range(len(steps)))
    for k, (choice, step) in enumerate(zip(lens.taken, steps, strict=True)):
        row = lens.row_of(choice)
        assert row is not None
        assert lens.known[row, k]
        used = to_uint8(step.x0[:1])[0].numpy()
        assert apart(lens.images[row, k], used) <= GREY
        assert apart(lens.images[row - 1, k], used) > GREY
    assert apart(trajectory.image, to_uint8(steps[-1].x[:1])[0].numpy()) <= GREY


def full_prediction(trajectory: Trajectory, s: int) -> torch.Tensor:
    """(1,C,H,W) ε of the full network at x_t of step s, by the model's own forward pass."""
    model, settings = trajectory.job.model, trajectory.job.settings
    x, t = trajectory.entering[s : s + 1], torch.tensor([trajectory.timesteps[s]])
    if settings.classes is None or settings.guidance is None:
        return model(x, t)
    label = torch.tensor([settings.classes[NUMBER % len(settings.classes)]])
    without = model(x, t, torch.tensor([3]))
    return without + settings.guidance * (model(x, t, label) - without)


def test_the_top_row_is_the_full_network(kind: tuple[deediff.Trace, Trajectory]) -> None:
    _, trajectory = kind
    lens = seen(trajectory)
    assert lens.rows[-1] == ExitChoice(BLOCKS)
    for s, a in enumerate(Schedule().alphas_bar[trajectory.timesteps].tolist()):
        x0 = (trajectory.entering[s] - (1 - a) ** 0.5 * full_prediction(trajectory, s)[0]) / a**0.5
        assert apart(lens.images[-1, s], to_uint8(x0).numpy()) <= GREY
    assert np.array_equal(lens.images[-1], lens.full)
    assert (lens.error[-1] == 0).all()
    assert (lens.error[-BLOCKS - 1 : -1] > 0).all()


def test_error_and_u_are_those_of_every_exit_at_the_same_image(tmp_path: Path) -> None:
    _, trajectory = made("threshold", tmp_path)
    lens, model = seen(trajectory), trajectory.job.model
    for s, t in enumerate(trajectory.timesteps):
        eps, u = model.all_exits(trajectory.entering[s : s + 1], torch.tensor([t]))
        rms = (eps - eps[-1]).square().mean(dim=(1, 2, 3, 4)).sqrt()
        np.testing.assert_allclose(lens.error[:, s], rms, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(lens.uncertainty[:-1, s], u[:, 0], rtol=1e-4, atol=1e-5)
        below = np.flatnonzero(lens.uncertainty[:-1, s] <= TAU)
        assert lens.taken[s].layer == (below[0] if len(below) else BLOCKS)


def test_fewer_steps_and_layers_change_no_cell(kind: tuple[deediff.Trace, Trajectory]) -> None:
    _, trajectory = kind
    whole = seen(trajectory, readouts=["output:0"])
    thin = seen(trajectory, [1, 4], [2, 7, BLOCKS], ["output:0"])
    rows = [whole.row_of(row) for row in thin.rows]
    assert [row.layer for row in thin.rows] == [0, 2, 7, BLOCKS]
    for k, s in enumerate(thin.steps):
        assert (thin.known[:, k] == whole.known[rows, s]).all()
        assert apart(thin.images[:, k], whole.images[rows, s]) <= GREY
        np.testing.assert_allclose(thin.error[:, k], whole.error[rows, s], rtol=1e-3, atol=1e-5)
        assert thin.taken[k] == whole.taken[s]


def test_the_decoder_reads_every_layer_with_the_last_layers_of_the_network(tmp_path: Path) -> None:
    _, trajectory = made("threshold", tmp_path)
    lens, net = seen(trajectory, exits=DECODER), trajectory.job.model.backbone
    head = seen(trajectory)
    a = Schedule().alphas_bar[trajectory.timesteps].tolist()
    for s, t in enumerate(trajectory.timesteps):
        x = trajectory.entering[s : s + 1]
        for layer, state in enumerate(net.states(x, torch.tensor([t]))):
            x0 = (x - (1 - a[s]) ** 0.5 * net.decode(state)) / a[s] ** 0.5
            assert apart(lens.images[layer, s], to_uint8(x0)[0].numpy()) <= GREY
    assert apart(lens.images[-1], head.images[-1]) <= GREY
    assert apart(lens.images[3], head.images[3]) > GREY
    assert lens.row_of(ExitChoice(3)) == 3


def test_a_readout_row_has_no_cell_before_the_predictions_that_it_reuses(tmp_path: Path) -> None:
    _, trajectory = made("threshold", tmp_path)
    lens = seen(trajectory, readouts=["input", "output:0", "output:2"])
    steps = len(lens.steps)
    assert lens.known[:3].sum(axis=1).tolist() == [steps, steps - 1, steps - 3]
    assert apart(lens.images[0], to_uint8(clean(trajectory, trajectory.entering)).numpy()) <= GREY
    reused = torch.stack([full_or_exit(trajectory, s) for s in range(steps - 1)])
    repeated = clean(trajectory, reused, first=1)
    assert apart(lens.images[1, 1:], to_uint8(repeated).numpy()) <= GREY


def clean(trajectory: Trajectory, eps: torch.Tensor, first: int = 0) -> torch.Tensor:
    """(K,C,H,W) x̂_0 of the steps from `first` on, for these ε."""
    a = torch.tensor(Schedule().alphas_bar[trajectory.timesteps[first:]].tolist())[:, None, None, None]
    return (trajectory.entering[first:] - (1 - a) ** 0.5 * eps) / a**0.5


def full_or_exit(trajectory: Trajectory, s: int) -> torch.Tensor:
    """(C,H,W) ε of the exit that was taken at step s."""
    x, t = trajectory.entering[s : s + 1], torch.tensor([trajectory.timesteps[s]])
    return trajectory.job.model.all_exits(x, t)[0][int(trajectory.exit_layers[s]), 0]


def test_steps_of_another_network_have_a_row_of_their_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    other = make_run(tmp_path / "other", make_model(seed=1))
    plan = replace(PLAN, steps=(PlanStep(999, network=str(other)), PlanStep(500), PlanStep(100)))
    trajectory = follow(record(run, "two", plan=plan, policy="never"), NUMBER, deediff.load(run), Schedule())
    assert trajectory is not None
    lens = seen(trajectory)
    assert [row.readout for row in lens.rows[:2]] == ["network", "head"]
    assert lens.known[0].tolist() == [True, False, False]
    assert lens.row_of(lens.taken[0]) == 0
    assert (lens.images[0, 0] == trajectory.film[0]).all()
    assert apart(lens.images[-1, 0], lens.images[0, 0]) > GREY


def test_a_model_without_exits_has_its_own_output_only(tmp_path: Path) -> None:
    model = make_model()
    model.uem = model.heads = None
    run = make_run(tmp_path / "run", model)
    trajectory = follow(record(run, "full", policy="never"), NUMBER, deediff.load(run), Schedule())
    assert trajectory is not None
    assert seen(trajectory).known.all(axis=1).tolist() == [False] * BLOCKS + [True]
    assert seen(trajectory, exits=DECODER).known.all()


def test_what_cannot_be_shown_is_a_sentence(tmp_path: Path) -> None:
    _, trajectory = made("threshold", tmp_path)
    assert available_readouts(trajectory.job.model) == ["input", "output:0", "output:1", "output:2"]
    for options, message in (
        ({"steps": [99]}, r"steps \[99\], expected some of 0 … 4"),
        ({"layers": [14]}, "expected some of 0 … 13"),
        ({"readouts": ["gaussian"]}, "needs the mean and covariance"),
        ({"readouts": ["head"]}, "no readout without blocks"),
        ({"exits": "memory"}, "expected 'head' or 'decoder'"),
    ):
        with pytest.raises(UserError, match=message):
            diffusion_lens(trajectory, **options)  # type: ignore[arg-type]
    assert diffusion_lens(trajectory, cancelled=lambda: True) is None
