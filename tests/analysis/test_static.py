"""Static schedules fitted on one half of a trace and tested on the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deediff.analysis.static import best_exit_layer, fit_static
from deediff.errors import UserError
from deediff.policies.base import LayerState
from deediff.policies.from_trace.knapsack import static_layers
from deediff.policies.from_trace.oracle_exits import oracle_exits
from deediff.policies.registry import make_policy
from deediff.policies.schedule import ScheduledExit
from tests.analysis.traces import COST, STATIC_COST, command_json, make_trace


def first_below(u: np.ndarray, tau: float) -> np.ndarray:
    leaves = u.astype(np.float32) <= np.float32(tau)
    return np.where(leaves.any(-1), leaves.argmax(-1), 13)


@pytest.mark.parametrize("kind", ["deviation", "uncertainty"])
def test_full_traces_are_fitted_on_half_and_tested_on_the_other(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    u = np.sort(rng.random((30, 10, 13)), axis=-1)[:, :, ::-1]
    deviation = np.sort(rng.random((30, 10, 13)), axis=-1)[:, :, ::-1] if kind == "deviation" else None
    exits = first_below(u, 0.05)
    fit = fit_static(make_trace(tmp_path / "t", exits, u, deviation))
    assert (fit.price, fit.fitted_on, fit.tested_on) == (kind, 15, 15)
    price = np.concatenate([u, u[:, :, -1:]] if deviation is None else [deviation, np.zeros((30, 10, 1))], axis=-1)
    budget = COST.at_exit(with_uem=True)[exits[::2]].mean()
    assert (fit.layers == static_layers(price[::2].mean(axis=0), STATIC_COST, budget, spend=False)).all()
    adaptive, static = fit.held_out
    mine, theirs = (np.take_along_axis(price, e[:, :, None], 2)[1::2, :, 0] for e in (exits, fit.layers * (exits >= 0)))
    assert adaptive.price == pytest.approx(mine.mean(), rel=1e-5)
    assert static.price == pytest.approx(theirs.mean(), rel=1e-5)
    assert static.above_adaptive.value == pytest.approx(theirs.mean() - mine.mean(), rel=1e-4)
    assert static.above_adaptive.low < static.above_adaptive.value < static.above_adaptive.high
    assert adaptive.gflops == pytest.approx(COST.at_exit(with_uem=True)[exits[1::2]].mean())
    assert static.gflops == pytest.approx(STATIC_COST[fit.layers].mean())
    assert static.gflops <= budget + 1e-9
    assert static.agreement == pytest.approx((exits[1::2] == fit.layers).mean())
    assert static.layer_distance == pytest.approx(np.abs(exits[1::2] - fit.layers).mean())


@pytest.mark.parametrize("kind", ["deviation", "uncertainty", "layers"])
def test_no_exit_at_layers_without_a_trained_head(tmp_path: Path, kind: str) -> None:
    """With UEMs at layers 2 and 9 only; the untrained head of layer 5 happens to be nearest to the full network."""
    rng = np.random.default_rng(0)
    u = np.full((20, 6, 13), np.nan)
    u[:, :, [2, 9]] = rng.random((20, 6, 2))
    deviation = 1 + rng.random((20, 6, 13))
    deviation[:, :, 5] = 0
    exits = rng.choice([2, 9, 13], (20, 6))
    trace = make_trace(tmp_path / "t", exits, u, deviation if kind == "deviation" else None)
    budget = float(STATIC_COST[7])
    fits = [fit_static(trace, imitate=True), fit_static(trace, budget, imitate=True)]
    if kind != "layers":
        fits = [fit_static(trace), fit_static(trace, budget)]
    for fit in fits:
        assert fit.price == kind
        assert set(fit.layers.tolist()) <= {2, 9, 13}
        assert np.isfinite(fit.held_out[1].gflops)
    if kind == "deviation":
        assert (oracle_exits(trace, float(STATIC_COST[13])) == 13).all()
        assert (oracle_exits(trace, float(STATIC_COST[2])) == 2).all()
        assert set(oracle_exits(trace, budget).flatten().tolist()) <= {2, 9, 13}


@pytest.mark.parametrize("kind", ["all exits", "exits at 2, 7 and 9"])
def test_one_exit_for_all_is_the_affordable_layer_of_least_deviation(tmp_path: Path, kind: str) -> None:
    """As on the shipped models, the deviation rises again in the middle, so that the deepest layer is not the best."""
    u = np.random.default_rng(0).random((6, 4, 13))
    if kind != "all exits":
        u[:, :, np.delete(np.arange(13), [2, 7, 9])] = np.nan
    deviation = np.tile([9.0, 8, 5, 3, 4, 5, 6, 7, 8, 7, 6, 2, 1], (6, 4, 1)) + np.zeros((6, 4, 1))
    trace = make_trace(tmp_path / "t", np.full((6, 4), 13), u, deviation)
    best = {10: 3, 11: 11, 2: 2} if kind == "all exits" else {10: 2, 11: 2, 2: 2}
    for affordable, layer in best.items():
        assert best_exit_layer(trace, float(STATIC_COST[affordable]) + 0.5) == layer
    assert best_exit_layer(trace, float(STATIC_COST[13])) == 13
    with pytest.raises(UserError, match="the cheapest is"):
        best_exit_layer(trace, float(STATIC_COST[0]) / 2)


def test_a_planted_schedule_is_found_and_its_file_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = np.asarray([2, 2, 5, 13, 13])
    deviation = np.where(np.arange(13) < planted[:, None], 1.0, 0.0)  # free from the planted layer on
    u = np.random.default_rng(0).random((12, 5, 13)) * 0.2
    make_trace(
        tmp_path / "t", np.full((12, 5), 13), u, deviation + 0 * u, policy="never", policy_needs_uncertainty=False
    )
    file = tmp_path / "schedule.json"
    budget = STATIC_COST[planted].mean()
    result = command_json(capsys, "static", tmp_path / "t", "--out", file, "--budget", budget)
    assert result["price"] == "deviation"
    mine = result["held_out"][-1]
    assert mine["gflops"] == pytest.approx(budget)
    assert mine["price"] == 0
    assert result["held_out"][0]["policy"].startswith("threshold:")  # the adaptive policy of the same budget
    assert result["held_out"][0]["gflops"] <= budget
    policy = make_policy(f"schedule:{file}")
    assert isinstance(policy, ScheduledExit)
    for timestep, layer in [(999, 2), (799, 2), (599, 5), (500, 5), (498, 13), (199, 13), (0, 13)]:
        assert next(i for i in range(14) if policy.should_exit(LayerState(i, 13, 0, timestep, np.arange(1)))) == layer
