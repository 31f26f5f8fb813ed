"""Policies that use a calibration: excess and optimal stopping."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from deediff.calibration.file import Calibration
from deediff.calibration.recalibrated import calibration_of
from deediff.cost.components import model_cost
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy, make_policy
from deediff.policies.calibrated.optimal_stopping import Stopping
from deediff.sampling.forward import predict
from deediff.sampling.request import Request


def exits_under(policy: ExitPolicy, model: EarlyExitModel) -> Tensor:
    x = sample_noise(3, range(16), 0, model.image_shape)
    solver = make_solver("ddim", Schedule(), 10)
    step = solver.timesteps.index(699)
    return predict(model, x, Request(policy.prepared(model, solver), step, 699, np.arange(16))).exit_layer


def test_excess_is_a_ratio_to_the_mean_u_of_the_deepest_layer(loaded: EarlyExitModel, measured: Calibration) -> None:
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
    """u (S,M,N), error (S,M,N+1), cost (N+1,): errors fall with depth or are constant; u is error plus noise."""
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


def test_a_tiny_budget_exits_at_the_first_layer_and_a_large_one_never() -> None:
    stopping = Stopping(*toy())
    assert (stopping.within(0.1)[0][:, 0] == np.inf).all()
    assert (stopping.within(10.0)[0] == -np.inf).all()  # errors fall with depth, so further layers always pay off
    assert (Stopping(*toy(falling=False)).at_price(1e-3)[0][:, 0] == np.inf).all()  # they never do
    with pytest.raises(UserError, match=r"the cheapest exits cost 0\.1"):
        stopping.within(0.09)


def test_stopping_spends_more_on_steps_of_larger_errors() -> None:
    u, error, cost = toy(steps=2)
    error[0], u[0] = error[1], u[1]
    thresholds, _, _ = Stopping(u, error * np.array([1.0, 9.0])[:, None, None], cost).within(0.5)
    exited = (u <= thresholds[:, None]).any(axis=2).mean(axis=1)
    assert exited[0] > exited[1]


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


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_stopping_counts_the_squared_error_in_epsilon_of_every_step_alike(
    loaded: EarlyExitModel, prediction: str
) -> None:
    solver = make_solver("ddim", Schedule(), 6)
    loaded.prediction = prediction
    policy = make_policy("stopping:0.004").prepared(loaded, solver)
    a = np.array([solver.alpha_bar(s) for s in range(6)])
    weights = a / (1 - a) if prediction == "x0" else np.ones(6)
    found = calibration_of(loaded)
    error = found.at(found.squared_error, solver.timesteps) * weights[:, None, None]
    cost = model_cost(loaded).at_exit(with_uem=True)
    expected = Stopping(found.at(found.u, solver.timesteps), error, cost).within(0.004)[0]
    np.testing.assert_array_equal(policy.table, expected)  # type: ignore[attr-defined]
