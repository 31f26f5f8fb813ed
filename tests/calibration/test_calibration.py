"""Calibration, recalibration, and the policies that live on them: each test is a law."""

from __future__ import annotations

import copy
import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import deediff
from deediff.calibration.file import Calibration, calibration_file, calibration_of, recalibrate
from deediff.calibration.isotonic import fit_map, isotonic
from deediff.calibration.measure import calibrate, expected_calibration_error, rank_correlation, reliability, summarise
from deediff.cli import main
from deediff.cost.components import model_cost
from deediff.datasets import to_model_range
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import to_epsilon
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver, make_solver
from deediff.errors import UserError
from deediff.models import UEM, EarlyExitModel, UViT
from deediff.policies import ExitPolicy, make_policy
from deediff.policies.optimal_stopping import Stopping, x0_weights
from deediff.policies.oracle_exits import affordable_tolerance, oracle_exits, weighted_deviation
from deediff.recording.writer import sample_to_trace
from deediff.sampling import sample
from deediff.sampling.forward import Request, predict
from tests.conftest import TINY, make_model, make_run

MODEL = make_model()
IMAGES = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
TIMESTEPS = [0, 250, 500, 750, 999]


@pytest.fixture(scope="module")
def measured() -> Calibration:
    return calibrate(MODEL, Schedule(), IMAGES, TIMESTEPS)


@pytest.fixture
def loaded(tmp_path: Path, measured: Calibration) -> EarlyExitModel:
    """A checkpoint with its calibration beside it, loaded."""
    model = deediff.load(make_run(tmp_path / "run", MODEL))
    assert model.origin is not None
    replace(measured, info={"checkpoint_sha256": model.origin[1]}).save(calibration_file(model.origin[0]))
    return model


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.float64)


class Clairvoyant(UEM):
    """Answers the true mean tanh|error| of its head, for images and noise that it was told."""

    def __init__(self, model: EarlyExitModel, noise: Tensor):
        super().__init__()
        self.answer, self.noise, self.layers = model.read_out, noise, tuple(range(model.num_blocks))

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        return (self.answer(layer, state) - self.noise).abs().tanh().mean(dim=(1, 2, 3))

    def config(self) -> dict[str, object]:
        return {}


def test_a_uem_that_knows_the_error_is_calibrated_and_ranks_perfectly() -> None:
    model = make_model()
    model.uem = Clairvoyant(model, sample_noise(0, range(12), 0, model.image_shape))
    found = calibrate(model, Schedule(), IMAGES, TIMESTEPS, seed=0)
    np.testing.assert_allclose(expected_calibration_error(found.u, found.error), 0, atol=1e-6)
    np.testing.assert_allclose(rank_correlation(found.u, found.error), 1)
    curve = reliability(found)
    np.testing.assert_allclose(curve["predicted"], curve["actual"], atol=1e-6)
    assert curve.groupby(["timestep", "layer"])["count"].sum().eq(12).all()


def test_the_ece_is_the_gap_of_a_constant_error_and_the_rank_only_sees_the_order() -> None:
    u = np.random.default_rng(0).random((2, 40, 3), dtype=np.float32)
    np.testing.assert_allclose(expected_calibration_error(u, u + 0.1), 0.1, rtol=1e-5)
    np.testing.assert_allclose(rank_correlation(u, u**3), 1)
    np.testing.assert_allclose(rank_correlation(u, -u), -1)
    assert np.isnan(rank_correlation(u, np.ones_like(u))).all()


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_the_error_is_that_of_what_the_network_predicts(prediction: str) -> None:
    model = EarlyExitModel(MODEL.backbone, MODEL.uem, MODEL.heads, prediction)
    found = calibrate(model, Schedule(), IMAGES, [100, 600], batch_size=5)
    x0, eps = to_model_range(IMAGES), sample_noise(0, range(12), 0, model.image_shape)
    a = float(Schedule().alphas_bar[600])
    target = {"epsilon": eps, "x0": x0, "v": a**0.5 * eps - (1 - a) ** 0.5 * x0}[prediction]
    predictions, u = model.all_exits(a**0.5 * x0 + (1 - a) ** 0.5 * eps, torch.full((12,), 600))
    squares = (predictions - target).square().mean(dim=(2, 3, 4)).T
    torch.testing.assert_close(torch.from_numpy(found.squared_error[1]), squares, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(found.u[1]), u.T, atol=1e-4, rtol=1e-4)
    error = (predictions[:-1] - target).abs().tanh().mean(dim=(2, 3, 4)).T
    torch.testing.assert_close(torch.from_numpy(found.error[1]), error, atol=1e-4, rtol=1e-4)


pairs = st.lists(st.tuples(st.floats(0, 1, width=16), st.floats(0, 1, width=16)), min_size=1, max_size=60)


@settings(deadline=None)
@given(pairs)
def test_isotonic_regression_rises_and_is_nearer_than_the_identity_and_any_constant(data: list) -> None:
    u, error = np.array(sorted(data)).T
    fitted = isotonic(error, np.ones(len(error)))
    assert (np.diff(fitted) >= 0).all()
    loss = np.square(fitted - error).sum()
    assert loss <= np.square(u - error).sum() + 1e-9
    assert loss <= np.square(error.mean() - error).sum() + 1e-9
    np.testing.assert_allclose(fitted.mean(), error.mean())


def test_a_map_rises_and_lowers_the_error_on_what_it_was_fitted_on(measured: Calibration) -> None:
    assert (np.diff(measured.maps, axis=2) >= 0).all()
    mine = measured.fitted
    before = np.square(measured.u - measured.error)[:, mine].mean(axis=1)
    after = np.square(measured.recalibrated().u - measured.error)[:, mine].mean(axis=1)
    assert (after <= before + 1e-4).all()
    assert after.mean() < 0.5 * before.mean()
    low, high, values = fit_map(np.array([0.3, 0.1, 0.3, 0.2]), np.array([0.5, 0.2, 0.7, 0.4]), knots=3)
    assert (low, high) == (0.1, 0.3)
    np.testing.assert_allclose(values, [0.2, 0.4, 0.6])  # equal predictions count as one


@pytest.mark.parametrize("timestep", [0, 250, 999, 613])
def test_a_recalibrated_model_gives_the_map_of_the_plain_u(loaded: EarlyExitModel, timestep: int) -> None:
    x, t = sample_noise(5, range(8), 0, loaded.image_shape), torch.full((8,), timestep)
    plain = loaded.all_exits(x, t)[1].numpy()
    calibration = recalibrate(loaded)
    mapped = loaded.all_exits(x, t)[1].numpy()
    at = calibration.position[timestep]
    left = min(int(at), len(TIMESTEPS) - 2)
    for layer in range(13):
        both = [
            np.interp(
                plain[layer],
                np.linspace(calibration.low[k, layer], calibration.high[k, layer], calibration.maps.shape[2]),
                calibration.maps[k, layer],
            )
            for k in (left, left + 1)
        ]
        expected = both[0] + (at - left) * (both[1] - both[0])
        np.testing.assert_allclose(mapped[layer], expected, atol=1e-5)
    assert model_cost(loaded) == model_cost(MODEL)


def test_the_calibration_of_a_recalibrated_model_is_that_of_its_own_u(loaded: EarlyExitModel) -> None:
    plain = calibration_of(loaded)
    recalibrate(loaded)
    mapped = calibration_of(loaded).u
    mine = plain.fitted
    np.testing.assert_allclose(mapped[:, mine].mean(axis=1), plain.error[:, mine].mean(axis=1), atol=0.02)
    x = Schedule().add_noise(
        to_model_range(IMAGES), torch.full((12,), 500), sample_noise(0, range(12), 0, loaded.image_shape)
    )
    u = loaded.all_exits(x, torch.full((12,), 500))[1]
    np.testing.assert_allclose(mapped[2], u.T, atol=1e-4)


def test_values_between_calibrated_timesteps_lie_between(measured: Calibration) -> None:
    np.testing.assert_allclose(measured.at(measured.u, TIMESTEPS), measured.u)
    between = measured.at(measured.u, [100])[0]
    low, high = np.minimum(measured.u[0], measured.u[1]), np.maximum(measured.u[0], measured.u[1])
    assert ((between >= low - 1e-6) & (between <= high + 1e-6)).all()


def exits_under(policy: ExitPolicy, model: EarlyExitModel) -> Tensor:
    x = sample_noise(3, range(16), 0, model.image_shape)
    solver = make_solver("ddim", Schedule(), 10)
    step = solver.timesteps.index(699)
    return predict(model, x, Request(policy.prepared(model, solver), step, 699, np.arange(16))).exit_layer


def test_excess_is_a_share_of_what_the_deepest_layer_says(loaded: EarlyExitModel, measured: Calibration) -> None:
    exits = [exits_under(make_policy(f"excess:{delta}"), loaded) for delta in (-0.99, -0.3, -0.1, 0, 0.1, 0.3, 1e9)]
    assert (exits[0] == 13).all()
    assert (exits[-1] == 0).all()
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(exits))
    assert len({float(layers.float().mean()) for layers in exits}) > 3
    deepest = measured.at(measured.u[..., 12:].mean(axis=1), [699])[0, 0]
    assert torch.equal(exits[4], exits_under(make_policy(f"threshold:{np.float32(1.1 * deepest)}"), loaded))
    bounded = exits_under(make_policy("excess:1e9,min:3"), loaded)
    assert (bounded == 3).all()


@pytest.mark.parametrize("spec", ["excess:-1", "excess:-2.5", "excess:nan", "stopping:0", "stopping:-3"])
def test_a_number_out_of_range_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match="expected a number above"):
        make_policy(spec)


def toy(
    falling: bool = True, steps: int = 5, images: int = 64, layers: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u (S,M,N), error (S,M,N+1), cost (N+1,): errors that fall with depth, or not at all; u tells them with noise."""
    rng = np.random.default_rng(3)
    depth = np.linspace(1, 0.2, layers + 1) if falling else np.ones(layers + 1)
    error = depth * (0.5 + rng.random((steps, images, 1))) * np.linspace(0.2, 2, steps)[:, None, None]
    u = error[..., :-1] + 0.1 * rng.random((steps, images, layers))
    return u, error, np.linspace(0.1, 1, layers + 1)


def test_a_smaller_budget_is_met_and_never_costs_more() -> None:
    stopping = Stopping(*toy())
    budgets = np.linspace(0.11, 0.99, 12)
    found = [stopping.within(budget) for budget in budgets]
    costs, errors = [cost for _, cost, _ in found], [error for _, _, error in found]
    assert all(0.95 * budget <= cost <= budget for budget, cost in zip(budgets, costs, strict=True))
    assert (np.diff(costs) >= 0).all()
    assert (np.diff(errors) <= 1e-12).all()


def test_a_tiny_budget_leaves_at_once_and_a_large_one_never() -> None:
    stopping = Stopping(*toy())
    assert (stopping.within(0.1)[0][:, 0] == np.inf).all()
    assert (stopping.within(10.0)[0] == -np.inf).all()  # errors fall with depth, so going on always pays
    assert (Stopping(*toy(falling=False)).at_price(1e-3)[0][:, 0] == np.inf).all()  # it never does
    with pytest.raises(UserError, match=r"the cheapest exits cost 0\.1"):
        stopping.within(0.09)


def test_stopping_spends_where_a_step_weighs_more() -> None:
    u, error, cost = toy(steps=2)
    error[0], u[0] = error[1], u[1]
    thresholds, _, _ = Stopping(u, error * np.array([1.0, 9.0])[:, None, None], cost).within(0.5)
    leave = (u <= thresholds[:, None]).any(axis=2).mean(axis=1)
    assert leave[0] > leave[1]


def test_stopping_beats_one_threshold_of_the_same_cost() -> None:
    u, error, cost = toy()

    def of(exit_at: np.ndarray) -> tuple[float, float]:
        return float(cost[exit_at].mean()), float(np.take_along_axis(error, exit_at[..., None], axis=2).mean())

    for tau in (0.3, 0.5, 0.7):
        certain = u <= tau
        gflops, plain = of(np.where(certain.any(axis=2), certain.argmax(axis=2), 6))
        _, spent, best = Stopping(u, error, cost).within(gflops)
        assert spent <= gflops
        assert best < plain


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0.0), ("ddim", 0.7), ("ddpm", 0.0), ("dpm-solver++", 0.0)])
def test_a_steps_weight_is_how_far_an_error_in_it_moves_the_image(name: str, eta: float) -> None:
    """Finite differences through the whole solver, on a toy network whose other predictions are held."""
    solver = make_solver(name, Schedule(), 12, eta=eta)
    rng = torch.Generator().manual_seed(0)
    start, *others = torch.randn(25, 1, 1, 2, 2, dtype=torch.float64, generator=rng)
    eps, noise = others[:12], others[12:]

    def image(wrong: int, by: float) -> Tensor:
        x, previous = start, None
        for s in range(12):
            answer = eps[s] + (by if s == wrong else 0.0)
            x0 = solver.predict_x0(s, x, answer)
            x, previous = solver.step(s, x, answer, noise[s], previous), x0
        return x

    moved = [float((image(s, 1e-3) - image(s, -1e-3)).abs().mean()) / 2e-3 for s in range(12)]
    np.testing.assert_allclose(x0_weights(solver), moved, rtol=1e-6)


def test_ddims_weights_are_the_noise_to_signal_that_each_step_removes() -> None:
    solver: Solver = make_solver("ddim", Schedule(), 7)
    a = np.array([solver.alpha_bar(s) for s in range(7)])
    sigma = np.append(np.sqrt((1 - a) / a), 0)
    np.testing.assert_allclose(x0_weights(solver), sigma[:-1] - sigma[1:])


def test_stopping_weighs_an_x0_error_as_the_epsilon_error_that_it_is(loaded: EarlyExitModel) -> None:
    solver = make_solver("ddim", Schedule(), 6)
    loaded.prediction = "x0"
    policy = make_policy("stopping:0.004").prepared(loaded, solver)
    a = np.array([solver.alpha_bar(s) for s in range(6)])
    weights = x0_weights(solver) ** 2 * a / (1 - a)
    found = calibration_of(loaded)
    error = found.at(found.squared_error, solver.timesteps) * weights[:, None, None]
    cost = model_cost(loaded).at_exit(with_uem=True)
    expected = Stopping(found.at(found.u, solver.timesteps), error, cost).within(0.004)[0]
    np.testing.assert_array_equal(policy.table, expected)  # type: ignore[attr-defined]


def test_layers_without_an_exit_stay_out_of_everything(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp", "layers": [2, 5, 9]}).eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.04)
    model = deediff.load(make_run(tmp_path / "run", model))
    found = calibrate(model, Schedule(), IMAGES, TIMESTEPS, checkpoint_sha256=model.origin[1])  # type: ignore[index]
    assert found.layers == [2, 5, 9]
    assert [row["layer"] for row in summarise(found)["layers"]] == [2, 5, 9, 13]
    found.save(calibration_file(model.origin[0]))  # type: ignore[index]
    recalibrate(model)
    for spec in ("excess:0.1", "stopping:0.002"):
        exits = torch.cat([step.exit_layer for step in sample(model, 4, spec, steps=5)])
        assert set(exits.tolist()) <= {2, 5, 9, 13}
        assert (exits < 13).any()


def test_a_calibration_survives_its_file_and_a_damaged_one_is_refused(loaded: EarlyExitModel) -> None:
    assert loaded.origin is not None
    file = calibration_file(loaded.origin[0])
    found = Calibration.load(file)
    np.testing.assert_array_equal(found.u, calibrate(MODEL, Schedule(), IMAGES, TIMESTEPS).u)
    assert len(found.sha256) == 64
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="is not a readable calibration"):
        calibration_of(loaded)


def test_a_calibration_of_other_weights_is_refused(loaded: EarlyExitModel, tmp_path: Path) -> None:
    assert loaded.origin is not None
    other = deediff.load(make_run(tmp_path / "other", make_model(seed=9)))
    for policy in ("excess:0.1", "stopping:0.1", "excess:0.1,max:4"):
        with pytest.raises(UserError, match="has no calibration yet: run 'deediff calibrate"):
            sample(other, policy=policy)
    theirs = calibration_file(loaded.origin[0])
    for policy in (f"excess:0.1@{theirs}", f"stopping:0.1@{theirs}"):
        with pytest.raises(UserError, match="is the calibration of other weights: run 'deediff calibrate"):
            sample(other, policy=policy)
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        sample(loaded, policy="excess:0.1@none.npz")
    with pytest.raises(UserError, match="was not read from a checkpoint"):
        sample(MODEL, policy="excess:0.1")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": EarlyExitModel(UViT(TINY))}, "has no exits to calibrate"),
        ({"images": IMAGES[:3]}, "3 images are too few"),
        ({"timesteps": [5]}, "1 timesteps are too few"),
        ({"model": make_model(config=replace(TINY, num_classes=3))}, "needs the images' labels"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        calibrate(**{"model": MODEL, "schedule": Schedule(), "images": IMAGES, "timesteps": TIMESTEPS, **change})  # type: ignore[arg-type]


def test_the_oracle_takes_the_first_layer_that_is_near() -> None:
    deviation = np.array([[0.5, 0.2, 0.3], [0.9, 0.8, 0.7], [np.nan, 0.1, 0.0]])
    assert oracle_exits(deviation, 0.25).tolist() == [1, 3, 1]


def test_the_oracle_is_as_exact_as_its_budget_allows(loaded: EarlyExitModel, tmp_path: Path) -> None:
    assert loaded.origin is not None
    folder = sample_to_trace(loaded.origin[0], tmp_path / "full", 4, steps=3, record="full", deviations=True)
    trace, weights = deediff.read_trace(folder), np.array([1.0, 2.0, 0.5])
    prices = trace.cost.at_exit(with_uem=False)

    def cost(tolerance: float) -> float:
        return float(prices[oracle_exits(weighted_deviation(trace, 0, weights), tolerance)].mean())

    least, most = cost(np.inf), cost(0)
    assert least < most == pytest.approx(trace.cost.full)
    for share in (0.2, 0.5, 0.8):
        budget = least + share * (most - least)
        tolerance = affordable_tolerance(trace, budget, weights)
        assert cost(tolerance) <= budget < cost(tolerance * (1 - 2e-6))
    assert affordable_tolerance(trace, most * (1 + 1e-9), weights) == 0
    with pytest.raises(UserError, match="the cheapest cost"):
        affordable_tolerance(trace, least * 0.99, weights)


def test_the_oracle_keeps_its_budget_and_moves_the_images_less_than_any_threshold(
    loaded: EarlyExitModel, tmp_path: Path
) -> None:
    assert loaded.origin is not None
    run, settings = loaded.origin[0], {"num_samples": 8, "solver": "ddim", "steps": 5, "seed": 3, "batch_size": 3}
    full = sample_to_trace(run, tmp_path / "full", policy="never", record="full", deviations=True, **settings)
    recorded = deediff.read_trace(full)
    images = np.stack([decode(png) for png in recorded.images(range(8))])

    def moved(policy: str, name: str) -> tuple[float, float]:
        trace = deediff.read_trace(sample_to_trace(run, tmp_path / name, policy=policy, **settings))
        change = np.stack([decode(png) for png in trace.images(range(8))]) - images
        return float(trace.meta["mean_gflops"]), float(np.abs(change).mean())

    for tau in (0.45, 0.5, 0.55):
        gflops, by_threshold = moved(f"threshold:{tau}", f"threshold{tau}")
        spent, by_oracle = moved(f"oracle:{gflops}@{full}", f"oracle{tau}")
        assert 0.6 * gflops < spent <= gflops
        assert by_oracle < by_threshold
    exits = deediff.read_trace(tmp_path / "oracle0.5").exit_layers()
    assert exits.std(axis=0).max() > 0  # per sample, not per timestep


def test_the_oracle_refuses_what_it_knows_nothing_about(
    loaded: EarlyExitModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loaded.origin is not None
    run = loaded.origin[0]
    full = sample_to_trace(run, tmp_path / "full", 4, steps=3, seed=1, record="full", deviations=True)
    plain = sample_to_trace(run, tmp_path / "plain", 4, steps=3, seed=1)
    for trace, options, sentence in (
        (plain, {"steps": 3, "seed": 1}, "does not hold the full network's deviations"),
        (full, {"steps": 4, "seed": 1}, "other timesteps"),
        (full, {"steps": 3, "seed": 2}, "the samples of seed 1 only"),
        (full, {"steps": 3, "seed": 1, "num_samples": 5}, "holds 4 samples"),
    ):
        arguments = {"num_samples": 4, **options}
        with pytest.raises(UserError, match=sentence):
            list(deediff.sample(loaded, policy=f"oracle:0.002@{trace}", **arguments))
    with pytest.raises(UserError, match="no exits cost"):
        list(deediff.sample(loaded, policy=f"oracle:1e-9@{full}", num_samples=4, steps=3, seed=1))


def result(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    assert main([*map(str, args), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
def test_the_mse_is_that_of_the_noise_whatever_is_predicted(kind: str) -> None:
    schedule, model = Schedule(), copy.deepcopy(MODEL)
    model.prediction = kind
    table = summarise(calibrate(model, schedule, IMAGES, TIMESTEPS))["tables"]["mse"]
    x0, noise = to_model_range(IMAGES), sample_noise(0, range(len(IMAGES)), 0, model.image_shape)
    for k, timestep in enumerate(TIMESTEPS):
        t = torch.full((len(x0),), timestep)
        x_t = schedule.add_noise(x0, t, noise)
        with torch.inference_mode():
            answer = to_epsilon(kind, model.backbone(x_t, t), x_t, float(schedule.alphas_bar[timestep]))
        assert table[k][-1] == pytest.approx(float((answer - noise).square().mean()), rel=2e-3)


def test_calibrate_then_sample_with_it(run: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run)]) == 2
    assert "does not say which images it was trained on" in capsys.readouterr().err
    found = result(capsys, "calibrate", run, "--dataset", image_folder, "--images", 16, "--bins", 5, "--device", "cpu")
    assert (found["images"], found["timesteps"]) == (16, 5)
    assert [row["layer"] for row in found["layers"]] == list(range(14))
    first, last = found["layers"][0], found["layers"][13]
    assert first["ece_recalibrated"] < first["ece"]
    assert last["ece"] is None
    assert last["mse_late"] > 0
    summary = json.loads((run / "checkpoints" / "7.calibration.json").read_text())
    weights = json.loads((run / "checkpoints" / "7.json").read_text())["sha256"]
    assert summary["checkpoint_sha256"] == weights
    assert "no test split" in summary["split"]
    assert len(summary["tables"]["mse"]) == 5

    common = ("sample", run, "--steps", 4, "--num-samples", 6, "--batch-size", 3)
    for policy in ("excess:0.05", "stopping:0.002"):
        out = run / "traces" / policy.partition(":")[0]
        sampled = result(capsys, *common, "--policy", policy, "--out", out)
        assert sampled["policy"] == policy
        assert 0 < sampled["layer_ratio"] < 1
        meta = json.loads((out / "trace.json").read_text())
        assert meta["policy_content"] == {"calibration_sha256": meta["policy_content"]["calibration_sha256"]}
    out = run / "traces" / "threshold"
    result(capsys, *common, "--policy", "threshold:0.5", "--recalibrated", "--out", out)
    meta = json.loads((out / "trace.json").read_text())
    assert len(meta["recalibration_sha256"]) == 64
    assert main([*map(str, common), "--policy", "threshold:0.5", "--out", str(out)]) == 2
    assert "holds another trace (different: recalibration_sha256)" in capsys.readouterr().err
    compared = result(capsys, "compare", out, run / "traces" / "excess")
    assert [row["policy"] for row in compared["traces"]] == ["threshold:0.5, recalibrated u", "excess:0.05"]
    assert isinstance(deediff.load(run, recalibrated=True), EarlyExitModel)
