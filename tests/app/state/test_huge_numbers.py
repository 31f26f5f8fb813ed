"""A number in a link that is too long to be one is a bad number, reported shortly; everything else is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.helpers import EXITS, open_app, sentences

HUGE = "9" * 5000


@pytest.mark.parametrize("number", [HUGE, f"-{HUGE}", f"{HUGE}.5"])
@pytest.mark.parametrize("key", ["t", "layer", "sample", "tau", "samples", "checkpoint"])
def test_a_huge_number_is_a_bad_number(runs: Path, key: str, number: str) -> None:
    app = open_app("trends", trace=EXITS, **{key: number})
    assert app.selectbox(key="run").value == "toy"
    assert app.selectbox(key="trace").value == EXITS
    assert len(sentences(app)) < 1000


@pytest.mark.parametrize(
    ("page", "key", "number"),
    [
        ("live", "live steps", HUGE),
        ("live", "live seed", HUGE),
        ("images", "size", HUGE),
        ("sample", "forced", f"{HUGE}:3:head"),
        ("sample", "forced", f"999:{HUGE}:head"),
    ],
)
def test_a_huge_number_of_a_page_is_a_bad_number(runs: Path, page: str, key: str, number: str) -> None:
    app = open_app(page, trace=EXITS, **{key: number})
    assert app.selectbox(key="run").value == "toy"
    assert len(sentences(app)) < 1000
    assert "DEEDIFF_DEBUG" not in sentences(app)
