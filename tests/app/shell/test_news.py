"""Lists with dates, newest first; the run that opens; and the note about new runs and traces."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from app.state.recent import date_of
from app.state.watch import look
from deediff.json_files import read_json, write_json
from tests.app.helpers import EXITS, FULL, in_the_link, open_app
from tests.conftest import set_dates

DAY = 86_400


def add_trace(runs: Path, name: str, age: float = 0.0, run: str = "toy") -> Path:
    """A copy of a trace, so many seconds old."""
    folder = runs / run / "traces" / name
    shutil.copytree(runs / "toy" / "traces" / EXITS, folder)
    when = time.time() - age
    os.utime(folder / "trace.json", (when, when))
    return folder


def test_lists_begin_with_the_newest_and_show_dates(runs: Path) -> None:
    yesterday, last_year = add_trace(runs, "yesterday", DAY), add_trace(runs, "a-last-year", 366 * DAY)
    app = open_app()
    box = app.selectbox(key="trace")
    days = [
        time.strftime(form, time.localtime(time.time() - age))
        for form, age in (("%d %b", DAY), ("%d %b %Y", 366 * DAY))
    ]
    assert date_of(yesterday) in (days[0], f"{days[0]} {time.localtime().tm_year - 1}")
    assert date_of(last_year) == days[1]
    assert box.options[:2] == [f"yesterday · {date_of(yesterday)}", f"a-last-year · {days[1]}"]
    assert [option.split(" · ")[0] for option in box.options[2:]] == [FULL, EXITS]  # equally old: by name
    assert box.value == FULL  # the explorer opens on a trace that answers every threshold


def test_the_run_used_last_opens_else_the_best_described(runs: Path) -> None:
    shutil.copytree(runs / "toy", runs / "a-bare", ignore=shutil.ignore_patterns("traces"))
    set_dates(runs)
    app = open_app()
    assert app.selectbox(key="run").options[0].startswith("a-bare · ")
    assert app.selectbox(key="run").value == "toy"
    app.selectbox(key="run").set_value("a-bare").run()
    assert open_app().selectbox(key="run").value == "a-bare"
    shutil.rmtree(runs / "a-bare")
    assert open_app().selectbox(key="run").value == "toy"


def test_a_state_folder_that_cannot_be_written_or_read_is_no_error(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs / "toy", runs / "b", ignore=shutil.ignore_patterns("traces"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))  # a folder in a file cannot be made, even by root
    app = open_app()
    app.selectbox(key="run").set_value("b").run()
    assert not app.exception
    assert not app.error
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "deediff").mkdir()
    (tmp_path / "deediff" / "explorer.json").write_text("{ half")
    assert open_app().selectbox(key="run").value == "toy"


def test_new_runs_and_traces_are_noted_until_they_are_selected(runs: Path) -> None:
    app = open_app()
    assert not [b for b in app.button if b.key and b.key.startswith("show toy")]
    add_trace(runs, "fresh")
    shutil.copytree(runs / "toy", runs / "other")
    app.run()
    assert [b.key for b in app.button if (b.key or "").startswith("show ")] == ["show toy/fresh", "show other"]
    before = in_the_link(app)
    app.button(key="show toy/fresh").click().run()
    assert in_the_link(app)["trace"] == "fresh" != before["trace"]
    assert [b.key for b in app.button if (b.key or "").startswith("show ")] == ["show other"]
    app.button(key="dismiss news").click().run()
    assert not [b for b in app.button if (b.key or "").startswith("show ")]


def test_every_change_that_a_page_shows_changes_the_contents(runs: Path) -> None:
    before = look(runs)
    assert (set(before.runs), set(before.traces)) == ({"toy"}, {f"toy/{FULL}", f"toy/{EXITS}"})
    assert look(runs) == before
    write_json(runs / "toy" / "run.json", {**read_json(runs / "toy" / "run.json"), "status": "training"})
    assert look(runs) != before
    before = look(runs)
    (runs / "toy" / "traces" / FULL / "quality.json").write_text("{}")
    assert look(runs) != before
    before = look(runs)
    add_trace(runs, "fresh")
    assert look(runs).new_since(before) == ["toy/fresh"]
    assert not look(runs / "nowhere").runs
