"""At most so many percent worse than the full network: which trace is the cheapest, and what does it save?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from app.state.selection import Selection
from app.views.compare.points import COSTS, Axis, Point, cost_of
from app.views.compare.reading import named
from app.widgets import inputs
from app.widgets.panels import Panel

HELP = (
    "Among the traces above: the rival is the full network's trace of best quality, of any number of steps. Values are "
    "compared, not intervals; hold a close winner against the rival's interval."
)


Answer = tuple[Point, Point | None]  # the full network's best trace, and the winner


def cheapest_within(points: Sequence[Point], axis: Axis, cost: str, percent: float) -> Answer | None:
    """The full network's best trace, and the cheapest trace of its run at most `percent` worse that costs less.

    The second is None where there is none; the whole where no trace is of the full network, or none has a cost.
    """
    sign = -1.0 if axis.higher_is_better else 1.0
    costed = [(c, p) for p in points if (c := cost_of(p, cost)) is not None]
    full = [(sign * p.reading.value, c, p) for c, p in costed if p.is_full]
    if not full:
        return None
    best, spent, rival = min(full, key=lambda entry: entry[:2])
    limit = best + abs(best) * percent / 100
    cheaper = [(c, p) for c, p in costed if p.run == rival.run and c < spent and sign * p.reading.value <= limit]
    return rival, min(cheaper, key=lambda entry: entry[0])[1] if cheaper else None


def allowance_panel(shown: Sequence[Point], axis: Axis, cost: str) -> Panel:
    """The question as a line, with its answer."""
    return Panel("allowance", partial(_draw, shown, axis, cost))


def _draw(shown: Sequence[Point], axis: Axis, cost: str, _: Selection) -> None:
    if axis.full is not None:
        return  # a change of images is no quality: the full network's is 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        percent = inputs.number_input("At most … % worse", 0, 100, "worse", 5, width=150, help=HELP)
        st.markdown(sentence(cheapest_within(shown, axis, cost, percent), axis, cost, percent), width="stretch")


def sentence(found: Answer | None, axis: Axis, cost: str, percent: float) -> str:
    """The answer."""
    if found is None:
        return "No trace of the full network is among these."
    rival, winner = found
    what = f"{named(rival, False)} ({axis.name} {rival.reading.value:.3g})"
    if winner is None:
        return f"None is cheaper than {what} and at most {percent} % worse."
    spent, full = cost_of(winner, cost), cost_of(rival, cost)
    assert spent is not None
    assert full is not None
    return (
        f"**{named(winner, False)}** ({axis.name} {winner.reading.value:.3g}) costs {1 - spent / full:.0%} "
        f"less than {what}: {spent:.3g} against {full:.3g} {COSTS[cost]}."
    )
