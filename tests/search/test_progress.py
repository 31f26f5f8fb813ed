"""What a search says while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deediff.cli.search import search_progress
from deediff.search import SearchState
from tests.search.toy import COUNTS, toy_search


def test_the_best_plan_of_every_budget_is_measured_with_many_images(run: Path, image_folder: Path) -> None:
    states = list[Any]()
    toy_search(run, image_folder, on_state=states.append, choices="full", budgets=(5, 9), minutes=0.01, only="search")
    last = [state for state in states if state.task == "search"][-1]
    assert 5 in last.best
    assert all(images == COUNTS[-1] for _, images in last.best.values())


def test_progress_is_a_line_a_minute_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with search_progress() as on_state:
        for trials in (7, 8):  # within the same minute
            on_state(SearchState(trials, 60.0, 120.0, {3: (5.021, 1024), 4: (6.0, 256), 5: (4.5, 1024)}))
    assert capsys.readouterr().err == (
        "7 trials, 2.0 min left; best per budget of 1024 images 3:5.02 5:4.50; best per budget of 256 images 4:6.00\n"
    )
