"""Which plans are kept, refined and chosen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deediff.plans import Plan, PlanStep
from deediff.search.front import BUDGETS, TOLERANCE, best_of, best_plans, budget_of, chosen, non_dominated, to_refine
from deediff.search.proxies import NAMES, best_proxy, promising, rank_correlations
from deediff.search.study import Tried

FEW, MANY = 8, 12


def tried(number: int, cost: float, few: float, many: float | None = None) -> Tried:
    plan = Plan((PlanStep(999), PlanStep(number)), 13)
    return Tried(number, plan, cost, {FEW: few} | ({} if many is None else {MANY: many}), dict.fromkeys(NAMES, few))


COSTS, DISTANCES = st.floats(0.1, 12), st.floats(0.1, 100)
TRIED = st.lists(st.tuples(COSTS, DISTANCES, st.one_of(st.none(), DISTANCES)), max_size=30).map(
    lambda rows: [tried(number, *row) for number, row in enumerate(rows)]
)


@given(TRIED)
def test_the_front_holds_exactly_the_plans_that_no_other_beats(plans: list[Tried]) -> None:
    def beats(a: Tried, b: Tried) -> bool:
        x, y = (a.cost, a.distances[FEW]), (b.cost, b.distances[FEW])
        return x != y and x[0] <= y[0] and x[1] <= y[1]

    front = non_dominated(plans, FEW)
    assert not any(beats(a, b) for a in plans for b in front)
    shown = {(plan.cost, plan.distances[FEW]) for plan in front}
    assert all(any(beats(a, b) for a in plans) for b in plans if (b.cost, b.distances[FEW]) not in shown)


@given(TRIED)
def test_chosen_plans_keep_the_budget_and_are_the_best_in_it(plans: list[Tried]) -> None:
    found = chosen(plans, MANY)
    assert all(plan.cost <= BUDGETS[-1] + TOLERANCE and MANY in plan.distances for plan in found)
    for budget in BUDGETS:
        within = [plan for plan in plans if MANY in plan.distances and plan.cost <= budget + TOLERANCE]
        best = best_of(plans, budget, MANY)
        assert (best is None) == (not within)
        if best is not None:
            assert best.digest in {plan.digest for plan in found}
            assert best.distances[MANY] == min(plan.distances[MANY] for plan in within)
    only = {best.digest for budget in (3, 6) if (best := best_of(plans, budget, MANY)) is not None}
    assert {plan.digest for plan in chosen(plans, MANY, (3, 6))} == only


@given(TRIED)
def test_refining_ends_and_then_every_budget_has_a_plan(plans: list[Tried]) -> None:
    for _ in range(len(plans) + 1):
        plan = to_refine(plans, FEW, MANY)
        if plan is None:
            break
        assert MANY not in plan.distances
        plan.distances[MANY] = plan.distances[FEW]
    assert to_refine(plans, FEW, MANY) is None
    assert all((best_of(plans, b, MANY) is None) == (best_of(plans, b, FEW) is None) for b in BUDGETS)


def test_a_plan_competes_within_its_budget() -> None:
    assert [budget_of(cost) for cost in (0.01, 2.05, 2.2, 10.1, 10.2)] == [2, 2, 3, 10, None]
    plans = [tried(number, 2.0, 1.0 + number) for number in range(4)]
    assert promising(dict.fromkeys(NAMES, 3.5), 0.3, plans, "metric")
    assert not promising(dict.fromkeys(NAMES, 4.5), 0.3, plans, "metric")
    assert not promising(dict.fromkeys(NAMES, 4.5), 9.0, plans, "metric")
    assert [plan.number for plan in best_plans(plans, FEW)] == [0, 1, 2]


def test_the_proxy_that_ranks_best_is_used() -> None:
    plans = [
        Tried(n, Plan((PlanStep(999), PlanStep(n)), 13), 3.0, {FEW: n}, {"image": -n, "features": n, "metric": n % 3})
        for n in range(20)
    ]
    assert rank_correlations(plans, FEW)["image"] == -1
    assert best_proxy(plans, FEW) == "features"
    assert best_proxy(plans[:4], FEW) == "metric", "too few to tell"
