"""A report holds what the page shows, needs no network, and names the commands that reproduce it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deediff
from app.shell.report import Section, command_of, report
from app.state.selection import SELECTION
from app.state.shown import SHOWN, Shown
from deediff.cli import main
from deediff.cli.parsing import parse_arguments
from deediff.cli.sampling import Sample
from tests.app.helpers import EXITS, figure, open_app
from tests.conftest import record

INLINE = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)


def figures_in(text: str) -> list[dict[str, Any]]:
    """The figures of a report."""
    return [json.loads(found) for found in INLINE.findall(text)]


def test_a_report_holds_the_figures_of_the_page_and_no_address(runs: Path) -> None:
    app = open_app("trends", trace=EXITS)
    text = report(app.session_state[SELECTION], [Section("Exit trends", list(app.session_state[SHOWN].values()), "x")])
    shown = figure(app, "exit heatmap")
    assert shown["data"] in [found["data"] for found in figures_in(text)]
    body = text[: text.index("<script>")]  # before plotly.js
    assert not re.search(r'(src|href)="(?!data:)', body)
    assert f"deediff sample {runs / 'toy'} --policy threshold:0.1" in text


def test_text_of_the_data_cannot_end_the_script(runs: Path) -> None:
    app = open_app("trends", trace=EXITS)
    bad = Shown("</script><b>", "<i>", {"data": [{"name": "</script>"}], "layout": {}})
    text = report(app.session_state[SELECTION], [Section("<u>", [bad], "x")])
    assert figures_in(text)[0]["data"] == [{"name": "</script>"}]
    assert not re.search("<(b|i|u)>", text[: text.index("<script>")])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"policy": "threshold:0.1", "steps": 3, "seed": 4, "record": "full", "deviations": True},
        {"solver": "dpm-solver++", "timesteps": (999, 500, 20), "clip_x0": True},
        {"solver": "ddim", "eta": 0.5, "spacing": "quadratic", "steps": 5},
    ],
)
def test_the_command_samples_the_trace_again(run: Path, settings: dict[str, Any]) -> None:
    """Parsed as a command line, it gives the settings of the trace."""
    trace = record(run, "t", **settings)
    command = command_of(trace)
    assert command is not None
    program, name, *words = shlex.split(command)
    assert (program, name) == ("deediff", "sample")
    parsed = parse_arguments(Sample, words, "deediff sample")
    again = deediff.SamplingSettings(**vars(parsed.settings))
    theirs = trace.meta.settings
    assert theirs is not None
    for field in (
        "policy",
        "solver",
        "steps",
        "seed",
        "record",
        "deviations",
        "timesteps",
        "clip_x0",
        "eta",
        "spacing",
    ):
        assert getattr(again, field) == getattr(theirs, field)
    assert again.num_samples == theirs.num_samples
    assert parsed.out == str(trace.path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere is not a run folder"),
        (["{run}", "--pages", "mars"], "unknown page 'mars'"),
        (["{run}", "--out", "{run}/no/r.html"], "is not a folder: choose another --out"),
    ],
)
def test_bad_input_is_a_sentence(
    run: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(run=run) for word in words]
    assert main(["report", *words, *([] if "--out" in words else ["--out", "r.html"])]) == 2
    assert sentence in capsys.readouterr().err


def test_the_command_writes_the_pages_of_a_run(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(runs / "toy"), "--out", str(out), "--pages", "trends"]) == 0
    text = out.read_text()
    assert "<h2>Exit trends</h2>" in text
    heatmap = figure(open_app("trends"), "exit heatmap")["data"]
    drawn = [found["data"] for found in figures_in(text)]
    assert np.any([found == heatmap for found in drawn])
