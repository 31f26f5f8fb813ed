"""Exit layers per step of least price under a budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.analysis.static import exit_distance
from deediff.errors import UserError
from deediff.policies.from_trace.knapsack import static_layers
from tests.analysis.traces import STATIC_COST, counts_of

exit_layers = st.integers(1, 40).flatmap(
    lambda steps: st.lists(st.lists(st.integers(0, 13), min_size=steps, max_size=steps), min_size=1, max_size=6)
)


@settings(max_examples=60, deadline=None)
@given(exit_layers, st.floats(0.7, 13.7))
def test_a_static_schedule_spends_its_budget_up_to_one_step(exits: list[list[int]], budget: float) -> None:
    counts = counts_of(np.asarray(exits))
    spent = STATIC_COST[static_layers(exit_distance(counts), STATIC_COST, budget, spend=True)].mean()
    assert spent <= budget + 1e-6
    assert spent > budget - 1.0001 / len(counts)  # one block of one step


def test_without_a_budget_it_is_the_median() -> None:
    exits = np.random.default_rng(0).integers(0, 14, (101, 30))
    found = static_layers(exit_distance(counts_of(exits)), STATIC_COST, np.inf, spend=False)
    assert (found == np.median(exits, axis=0)).all()


def test_it_is_the_lagrangian_solution() -> None:
    rng = np.random.default_rng(0)
    price, cost = rng.random((50, 14)), np.cumsum(rng.random(14))
    for multiplier in np.geomspace(1e-3, 10, 40):
        best = (price + multiplier * cost).argmin(axis=1)  # no schedule of this cost has a lower price
        assert (static_layers(price, cost, cost[best].mean(), spend=False) == best).all()
    for budget in np.linspace(cost[0], cost[-1], 20):
        assert cost[static_layers(price, cost, budget, spend=False)].mean() <= budget + 1e-9
    with pytest.raises(UserError, match="the cheapest is"):
        static_layers(price, cost, cost[0] / 2, spend=False)


def test_the_distance_from_adaptive_exits() -> None:
    exits = np.asarray([[3, 13], [5, 13]])
    assert exit_distance(counts_of(exits))[:, 4].tolist() == [1, 9]
