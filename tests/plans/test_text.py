"""Plans as text in links."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deediff.errors import UserError
from deediff.plans import PlanStep
from deediff.plans.text import steps_from_text, steps_to_text

NETWORKS = st.one_of(st.none(), st.text(min_size=1, max_size=12))
STEPS = st.one_of(
    st.builds(PlanStep, st.integers(0, 999), st.one_of(st.integers(0, 13), st.just("full"), st.just("policy")),
              network=NETWORKS),
    st.builds(PlanStep, st.integers(0, 999), st.one_of(st.integers(0, 12), st.just("policy")),
              st.sampled_from(["memory:1", "deep:3", "output:0"])),
    st.builds(PlanStep, st.integers(0, 999), st.just(0), st.sampled_from(["gaussian", "input", "output:2"])),
)  # fmt: skip


@given(st.lists(STEPS, min_size=1, max_size=14))
def test_a_plan_survives_its_text(steps: list[PlanStep]) -> None:
    assert steps_from_text(steps_to_text(steps)) == tuple(steps)


def test_the_text_is_short() -> None:
    steps = (PlanStep(999, 0, "gaussian"), PlanStep(700, 3), PlanStep(580), PlanStep(100, 0, "output:0"))
    assert steps_to_text(steps) == "999:gaussian,700:3,580,100:output:0"


@pytest.mark.parametrize("text", ["", "x", "999,", "999:", "999@", "9.5", "-3"])
def test_malformed_text_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="malformed, expected TIMESTEP"):
        steps_from_text(text)
