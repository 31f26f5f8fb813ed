"""Numbers that people write are whole numbers of few digits, wherever they are written."""

from __future__ import annotations

import pytest

import deediff
from deediff.digits import whole_number
from deediff.errors import UserError
from deediff.plans.text import steps_from_text

HUGE = "9" * 5000


@pytest.mark.parametrize("text", ["", "-1", "1.5", "²", "x", HUGE, "1_0"])
def test_other_texts_are_no_numbers(text: str) -> None:
    assert whole_number(text) is None


def test_digits_are_numbers() -> None:
    assert [whole_number(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]


@pytest.mark.parametrize("text", [HUGE, f"5:{HUGE}", f"{HUGE}:policy"])
def test_a_plan_with_a_huge_number_is_malformed(text: str) -> None:
    with pytest.raises(UserError, match="of a plan is malformed"):
        steps_from_text(text)


@pytest.mark.parametrize(
    "policy", [f"fixed:{HUGE}", f"never,min:{HUGE}", f"dual:{HUGE}:x", f"every:{HUGE}", f"threshold:{HUGE}"]
)
def test_a_policy_with_a_huge_number_is_malformed(policy: str) -> None:
    with pytest.raises(UserError):
        deediff.make_policy(policy)
