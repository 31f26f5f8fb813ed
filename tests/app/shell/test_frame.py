"""Empty folders and damaged files become sentences on every page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.app.helpers import (
    APP,
    FULL,
    metric,
    open_app,
    sentences,
)


@pytest.mark.parametrize("page", [None, "live", "uncertainty", "images"])
def test_no_runs_shows_the_command_that_makes_one(page: str | None, runs: Path) -> None:
    shutil.rmtree(runs / "toy")
    app = AppTest.from_file(str(APP / "explorer.py"), default_timeout=60).run()
    if page is not None:
        app.switch_page(f"views/{page}/page.py").run()
    assert not app.exception
    assert app.code[0].value == "python -m trainer.run mnist_tiny"


def test_a_run_without_traces_shows_the_command_that_samples_one(runs: Path) -> None:
    shutil.rmtree(runs / "toy" / "traces")
    for page in (None, "uncertainty", "images"):
        app = open_app(page)
        assert f"deediff sample {runs / 'toy'} --policy threshold:0.1" in app.code[0].value


def test_a_corrupt_run_is_a_sentence_and_the_others_stay(runs: Path) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("{")
    app = open_app()
    assert "broken" in sentences(app)
    assert app.selectbox(key="run").value == "toy"
    assert metric(app, "Layer ratio") == "1.000"


@pytest.mark.parametrize("page", [None, "uncertainty", "images"])
def test_a_truncated_part_is_ignored_with_a_warning(page: str | None, runs: Path) -> None:
    part = runs / "toy" / "traces" / FULL / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    app = open_app(page)
    assert "part-00001.parquet is truncated" in sentences(app)
    assert not app.error


@pytest.mark.parametrize("file", ["trace.json", "summary.npz", "samples-00000.parquet"])
def test_a_corrupt_file_of_a_trace_never_ends_in_a_traceback(file: str, runs: Path) -> None:
    (runs / "toy" / "traces" / FULL / file).write_text("nonsense")
    for page in (None, "live", "uncertainty", "images"):
        app = AppTest.from_file(str(APP / "explorer.py"), default_timeout=60)
        app.query_params["trace"] = FULL
        app.run()
        if page is not None:
            app.switch_page(f"views/{page}/page.py").run()
        assert not app.exception
