"""*Sample live*: the saved trace is that of the command line, and is evaluated in the queue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

import deediff
from deediff.quality.results import read_quality
from tests.app.helpers import (
    FULL,
    STEPS,
    open_app,
    press,
    sentences,
)


def keep(app: AppTest, button: str, count: int, name: str) -> AppTest:
    """Fill in *Keep as a trace* and wait for the jobs."""
    next(n for n in app.number_input if n.label == "Images" and n.key is None).set_value(count)
    next(t for t in app.text_input if t.label == "Name").set_value(name).run()
    app.button(key=button).click().run()
    assert not app.exception
    if "kept jobs" not in app.session_state:
        return app  # refused
    for job in app.session_state["kept jobs"]:
        job.join(60)
    return app.run()


def test_a_saved_trace_is_the_one_of_the_command_line(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(STEPS)
    app.number_input(key="live seed").set_value(3).run()
    app = press(app)
    job = app.session_state["job"]
    app = keep(app, "save", 6, "mine")
    assert "Saved 6 images as trace mine" in " ".join(box.value for box in app.success)
    trace = deediff.read_trace(runs / "toy" / "traces" / "mine")
    assert trace.meta.complete
    assert (str(trace.meta.policy), trace.meta.seed, trace.meta.num_samples) == (job.settings.policy, 3, 6)
    np.testing.assert_array_equal(trace.exit_layers()[:4], job.early.exit_layers)  # the four that were on screen
    app.button(key="open 0").click().run()
    assert app.selectbox(key="trace").value == "mine"


def test_a_name_that_is_taken_is_refused(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2).run()
    app = press(app)
    before = (runs / "toy" / "traces" / FULL / "trace.json").read_bytes()
    for name, complaint in (
        (FULL, f"a trace {FULL} exists already"),
        ("../elsewhere", "is not a valid name"),
        ("", "is not a valid name"),
    ):
        app = keep(app, "save", 4, name)
        assert complaint in sentences(app)
    assert (runs / "toy" / "traces" / FULL / "trace.json").read_bytes() == before
    assert not (runs / "toy" / "elsewhere").exists()


def test_a_kept_trace_is_evaluated_in_the_queue(runs: Path, image_folder: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2).run()
    app = press(app)
    app.text_input(key="reference").set_value(str(image_folder)).run()
    app = keep(app, "save and evaluate", 40, "mine")
    assert not app.error
    found = read_quality(runs / "toy" / "traces" / "mine")
    assert {(q.metric, q.images, q.reference) for q in found} >= {("fd-mnist", 40, image_folder.name)}
    value = next(q.value for q in found if q.metric == "fd-mnist")
    assert f"fd-mnist {value:.3g}" in " ".join(box.value for box in app.success)


def test_an_evaluation_that_cannot_be_is_a_sentence(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2).run()
    app = keep(press(app), "save", 4, "few")
    assert app.button(key="save and evaluate").disabled
    app.button(key="evaluate 0").click().run()
    for job in app.session_state["kept jobs"]:
        job.join(60)
    app.run()
    assert "holds 4 images, expected at least 40" in sentences(app)
