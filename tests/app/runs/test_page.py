"""*Runs*: tables of the files, differing settings, and confirmation before a deletion."""

from __future__ import annotations

import base64
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from streamlit.testing.v1 import AppTest

import deediff
from app.views.runs import actions
from app.views.runs.inventory import POINTS, thinned
from deediff.json_files import read_json, write_json
from tests.app.helpers import EXITS, FULL, SAMPLES, figure, in_the_link, open_app, sentences


def write_curves(run: Path, steps: int = 40) -> pd.DataFrame:
    """metrics.parquet of two stages."""
    step = np.arange(10, 10 * steps + 1, 10)
    backbone = step <= 5 * steps
    nothing = np.where(backbone, np.nan, 1.0)
    curve = pd.DataFrame(
        {
            "step": step,
            "stage": np.where(backbone, "backbone", "exits"),
            "images_seen": 64 * step,
            "loss_total": 5 / step,
            "loss_simple": 4 / step,
            "loss_uncertainty": nothing / step,
            "loss_ual": nothing * 2 / step,
            "loss_layer": np.full(len(step), np.nan),
            "learning_rate": 1e-3,
            "images_per_second": 123.4,
        }
    )
    curve.to_parquet(run / "metrics.parquet")
    return curve


def tick(app: AppTest, key: str, names: list[str]) -> AppTest:
    """Tick these rows of a table."""
    app.session_state[key] = names
    app.run()
    assert not app.exception
    return app


def table(app: AppTest, key: str) -> pd.DataFrame:
    """The table of this key."""
    return next(frame.value for frame in app.dataframe if frame.key == key)


def settings(app: AppTest, names: list[str]) -> pd.DataFrame:
    """The table of settings of these runs or traces."""
    return next(frame.value for frame in app.dataframe if list(frame.value) == ["setting", *names])


def test_tables_hold_what_the_files_say(runs: Path) -> None:
    app = open_app("runs")
    files = [file for file in (runs / "toy").rglob("*") if file.is_file()]
    row = table(app, "run table").iloc[0]
    assert (row["run"], row["status"], row["images_seen"], row["traces"]) == ("toy", "done", 6400, 2)
    assert row["megabytes"] == pytest.approx(sum(file.stat().st_size for file in files) / 1e6)
    shown = table(app, "trace table").set_index("trace")
    for name in (FULL, EXITS):
        layers = deediff.read_trace(runs / "toy" / "traces" / name).exit_layers()
        assert shown["layer_ratio"][name] == pytest.approx(layers.mean() / 13)
        assert shown["images"][name] == SAMPLES
        inside = sum(file.stat().st_size for file in files if file.parent.name == name)
        assert shown["megabytes"][name] == pytest.approx(inside / 1e6)


def test_only_what_differs_is_listed(runs: Path) -> None:
    for name, lr in (("a", 0.1), ("b", 0.2)):
        shutil.copytree(runs / "toy", runs / name)
        config = {"seed": 0, "backbone": {"lr": lr, "steps": 5}}
        write_json(runs / name / "run.json", {**read_json(runs / name / "run.json"), "config": config})
    app = tick(open_app("runs"), "picked runs", ["a", "b"])
    assert settings(app, ["a", "b"]).to_dict("list") == {"setting": ["backbone.lr"], "a": ["0.1"], "b": ["0.2"]}
    names = [f"a/{FULL}", f"a/{EXITS}"]
    tick(app, "picked traces", names)
    theirs = {name: read_json(runs / name.replace("/", "/traces/") / "trace.json") for name in names}
    shown = settings(app, names).set_index("setting")
    assert shown.loc["policy"].tolist() == ["never", "threshold:0.1"]
    assert shown.loc["record"].tolist() == ["full", "exit"]
    same = [key for key in theirs[names[0]] if theirs[names[0]][key] == theirs[names[1]][key]]
    assert "seed" in same
    assert not set(same) & set(shown.index)
    tick(app, "picked runs", ["a"])
    assert "seed" in settings(app, ["a"])["setting"].tolist()


def test_a_link_reopens_what_was_ticked(runs: Path) -> None:
    shutil.copytree(runs / "toy", runs / "b")
    app = tick(open_app("runs"), "picked runs", ["b", "toy"])
    tick(app, "picked traces", [f"b/{FULL}", f"toy/{EXITS}"])
    theirs = open_app("runs", **in_the_link(app))
    assert theirs.session_state["picked runs"] == ["b", "toy"]
    assert list(settings(theirs, [f"b/{FULL}", f"toy/{EXITS}"]))


def test_curves_are_those_of_the_file_one_picture_per_term(runs: Path) -> None:
    curve = write_curves(runs / "toy")
    app = open_app("runs")
    spec = figure(app, "training curves")
    drawn = go.Figure(spec)  # every attribute is one that Plotly knows
    titles = [note.text for note in drawn.layout.annotations]
    terms = ["total", "simple", "uncertainty", "ual"]  # the fourth loss was not used
    assert [title.split("</b>")[0].removeprefix("<b>") for title in titles] == terms
    for trace, term in zip(drawn.data, terms, strict=True):
        known = curve[curve[f"loss_{term}"].notna()]
        values = np.frombuffer(base64.b64decode(trace.y["bdata"]), "<f4")
        np.testing.assert_allclose(values, known[f"loss_{term}"], rtol=1e-6)
    assert {shape.x0 for shape in drawn.layout.shapes} == {200}  # where the exits were put on
    assert table(app, "run table")["last_loss"].iloc[0] == pytest.approx(curve["loss_total"].iloc[-1])


def test_a_long_curve_is_thinned_and_keeps_its_end(runs: Path) -> None:
    curve = pd.DataFrame({"step": np.arange(1, 7 * POINTS + 4)})
    kept = thinned(curve)["step"]
    assert len(kept) <= POINTS
    assert kept.iloc[-1] == 7 * POINTS + 3
    assert set(np.diff(kept)) == {8}


def test_a_training_that_goes_on_shows_its_last_step(runs: Path) -> None:
    curve = write_curves(runs / "toy")
    config = {"backbone": {"steps": 200}, "exits": {"steps": 600}}
    info = {**read_json(runs / "toy" / "run.json"), "status": "training", "config": config}
    write_json(runs / "toy" / "run.json", info)
    app = open_app("runs")
    assert table(app, "run table")["status"].iloc[0] == "training"
    bar = app.get("progress")[0].proto
    assert bar.value == 50  # per cent: 400 of 800 steps
    assert "exits, step 400 of 800" in bar.text
    assert f"loss {curve['loss_total'].iloc[-1]:.4g}" in bar.text
    long_ago = time.time() - 3600
    for file in ("run.json", "metrics.parquet", "checkpoints/100.safetensors"):
        os.utime(runs / "toy" / file, (long_ago, long_ago))
    app.run()
    assert table(app, "run table")["status"].iloc[0] == "interrupted"
    assert not app.get("progress")


def test_damaged_curves_are_a_sentence(runs: Path) -> None:
    (runs / "toy" / "metrics.parquet").write_bytes(b"no parquet")
    app = open_app("runs")
    assert "metrics.parquet cannot be read" in sentences(app)
    assert len(table(app, "trace table")) == 2


def test_deleting_asks_first(runs: Path) -> None:
    app = tick(open_app("runs"), "picked traces", [f"toy/{EXITS}"])
    app.button(key="delete trace").click().run()
    assert (runs / "toy" / "traces" / EXITS).exists()
    assert [m.value for m in app.markdown if m.value.startswith("- ")] == [f"- **{EXITS}**"]
    assert app.button(key="confirm delete").label == "Delete"


def test_what_a_job_writes_is_not_deleted(runs: Path) -> None:
    from types import SimpleNamespace

    trace = runs / "toy" / "traces" / EXITS
    app = tick(open_app("runs"), "picked traces", [f"toy/{EXITS}"])
    real, job = actions.QUEUE, SimpleNamespace(folder=trace, title="evaluate it", kept=True)
    actions.QUEUE = SimpleNamespace(jobs=lambda: [job])
    try:
        assert "evaluate it" in str(actions.why_in_use(trace))
        assert "evaluate it" in str(actions.why_in_use(runs / "toy"))  # the run around it, too
        assert actions.why_in_use(runs / "toy" / "traces" / FULL) is None
        app.button(key="delete trace").click().run()
        assert "cannot be deleted now" in sentences(app)
        assert not [button for button in app.button if button.key == "confirm delete"]
    finally:
        actions.QUEUE = real
    assert trace.exists()


def test_a_trace_can_be_shown_as_a_or_b(runs: Path) -> None:
    app = tick(open_app("runs", trace=FULL), "picked traces", [f"toy/{EXITS}"])
    app.button(key="show as B").click().run()
    assert app.selectbox(key="b").value == EXITS
    app.button(key="show as A").click().run()
    assert app.selectbox(key="trace").value == EXITS


def test_an_evaluation_says_which_weights_are_missing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    app = tick(open_app("runs"), "picked traces", [f"toy/{EXITS}", f"toy/{FULL}"])
    app.session_state["metrics"] = ["fd-mnist", "fid", "kid", "prc"]
    app.button(key="evaluate traces").click().run()
    assert app.button(key="start evaluation").label == "Evaluate"
    said = [caption.value for caption in app.caption if "the weights of" in caption.value]
    assert ["fid, kid: the weights of inception-v3 are not" in said[0], "prc: the weights of vgg16" in said[1]] == [
        True
    ] * 2
    assert len(said) == 2
    assert f"`{tmp_path}/checkpoints`" in said[0]


def test_no_runs_is_the_command_that_makes_one(runs: Path) -> None:
    shutil.rmtree(runs / "toy")
    app = open_app()
    assert any("python -m trainer.run mnist_tiny" in code.value for code in app.code)
