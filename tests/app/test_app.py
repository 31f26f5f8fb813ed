"""Every page of the explorer: the numbers on screen equal what the Parquet rows say; bad input becomes a sentence."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from streamlit.testing.v1 import AppTest

import deediff
from app.shell import head
from deediff.json_files import read_json, write_json
from deediff.quality.results import Quality, write_quality
from tests.app.helpers import (
    APP,
    BLOCKS,
    EXITS,
    FULL,
    SAMPLES,
    STEPS,
    counted_exits,
    in_the_link,
    metric,
    open_app,
    select,
    sentences,
    times,
)
from tests.conftest import sample_trace


def test_the_ratio_at_the_slider_is_a_count_over_the_rows(runs: Path) -> None:
    app = open_app()
    seen = set()
    for tau in (0.08, 0.1, 0.15):
        app.slider(key="tau").set_value(tau).run()
        exits = counted_exits(runs / "toy" / "traces" / FULL, tau)
        assert metric(app, "Layer ratio", 1) == f"{exits.mean() / BLOCKS:.3f}"
        gflops = deediff.read_trace(runs / "toy" / "traces" / FULL).what_if(tau).gflops
        assert metric(app, "GFLOPs per step", 1).startswith(f"{gflops:.4g} (")
        seen.add(metric(app, "Layer ratio", 1))
    assert len(seen) > 1


def test_measured_figures_are_those_of_the_trace(runs: Path) -> None:
    app = open_app(trace=EXITS)
    layers = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    assert metric(app, "Layer ratio") == f"{layers.mean() / BLOCKS:.3f}"
    a, b = (read_json(runs / "toy" / "traces" / name / "trace.json")["wall_seconds"] for name in (FULL, EXITS))
    assert metric(app, "Seconds per image") == f"{b / SAMPLES:.4g} s"
    assert metric(app, "Speed-up") == f"{a / b:.2f}×"


def test_the_first_metric_stands_above_the_page_with_its_interval(runs: Path) -> None:
    app = open_app(trace=EXITS, b=FULL)
    assert metric(app, "Quality") == "unknown"
    for name, value in ((EXITS, 12.5), (FULL, 10.0)):
        write_quality(runs / "toy" / "traces" / name, [
            Quality("fid", "inception-v3", value, value - 1, value + 2, "jackknife", SAMPLES, "cifar10-train", "key",
                    50_000, None, None, "", "cpu"),
        ])  # fmt: skip
    app.run()
    assert metric(app, "FID") == "12.5 [11.5, 14.5]"
    assert next(m.delta for m in app.metric if m.label == "FID") == "B: 10 [9, 12]  (B − A: −2.5)"


def test_a_trace_with_exits_answers_from_its_own_threshold_only(runs: Path) -> None:
    app = open_app(trace=EXITS, tau="0.05")
    assert app.slider(key="tau").min == 0.1
    assert "tau = 0.05" in sentences(app)
    app.slider(key="tau").set_value(0.1).run()
    assert metric(app, "Layer ratio", 1) == metric(app, "Layer ratio", 0)  # at its own τ


def test_a_link_restores_the_selection(runs: Path) -> None:
    app = open_app(trace=EXITS, b=FULL, tau="0.12", t=str(times(runs)[3]), layer="5", sample="2")
    assert app.selectbox(key="trace").value == EXITS
    assert app.selectbox(key="b").value == FULL
    assert app.slider(key="tau").value == pytest.approx(0.12)
    assert app.select_slider(key="t").value == times(runs)[3]
    assert app.number_input(key="chosen layer").value == 5
    assert app.number_input(key="chosen sample").value == 2
    assert not app.warning


def test_the_link_says_everything_that_is_selected_defaults_too(runs: Path) -> None:
    app = open_app()
    expected = {"run": "toy", "trace": FULL, "tau": "0.1", "t": str(times(runs)[STEPS // 2]), "checkpoint": "100"}
    assert in_the_link(app) == expected
    app.slider(key="tau").set_value(0.13).run()
    app.selectbox(key="b").set_value(EXITS).run()
    select(app, timestep=times(runs)[0], layer=3, sample=4)
    expected |= {"tau": "0.13", "b": EXITS, "t": str(times(runs)[0]), "layer": "3", "sample": "4"}
    assert in_the_link(app) == expected
    again = open_app("uncertainty", **in_the_link(app))
    assert in_the_link(again) == expected
    assert not again.warning


def test_widgets_show_the_selection_even_where_the_first_answer_never_arrived(runs: Path) -> None:
    """A second run of the script may drop what the first has not sent yet; a link still opens what it asks for."""
    asked = {"trace": EXITS, "b": FULL, "tau": "0.12", "t": str(times(runs)[1]), "layer": "3", "sample": "4"}
    app = open_app(**asked).run()
    assert not app.warning
    sliders = [app.slider(key="tau"), app.select_slider(key="t")]
    assert [float(w.proto.default[0]) for w in sliders] == pytest.approx([0.12, 1.0])  # of t, its position
    numbers = [app.number_input(key=f"chosen {name}").proto.default for name in ("layer", "sample")]
    assert numbers == [3, 4]
    for key in ("run", "trace", "b", "checkpoint"):
        box = app.selectbox(key=key)
        assert box.proto.options[box.proto.default] == box.value == asked.get(key, box.value)


def test_what_a_link_asks_for_and_is_not_there_is_a_sentence_each(runs: Path) -> None:
    app = open_app(t="12345", layer="14", sample=str(SAMPLES))
    said = sentences(app)
    assert "t = 12345" in said
    assert "layer = 14, but this trace has layers 0 … 13" in said
    assert f"sample = {SAMPLES}, but this trace has samples 0 … {SAMPLES - 1}" in said
    assert not {"layer", "sample"} & set(in_the_link(app))
    assert sentences(app.run()) == said  # until the link is another
    app.number_input(key="chosen layer").set_value(3).run()
    assert not sentences(app.run())


def test_another_trace_takes_over_what_it_can(runs: Path) -> None:
    name = "short"
    sample_trace(runs / "toy", runs / "toy" / "traces" / name, 3, "never", "ddim", 2, batch_size=3)
    app = open_app(t=str(times(runs)[1]), layer="13", sample="5")
    app.selectbox(key="trace").set_value(name).run()
    nearest = min(times(runs, name), key=lambda t: abs(t - times(runs)[1]))
    assert app.select_slider(key="t").value == nearest
    assert app.number_input(key="chosen layer").value == 13
    assert app.number_input(key="chosen sample").value == 2
    assert not app.exception


def test_an_unknown_name_in_the_link_is_a_sentence(runs: Path) -> None:
    app = open_app(run="nowhere", trace="never-heard-of")
    assert "nowhere" in sentences(app)
    assert "never-heard-of" in sentences(app)
    assert app.selectbox(key="run").value == "toy"
    assert metric(app, "Layer ratio") == "1.000"


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
    assert "part-00001.parquet is cut short" in sentences(app)
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


def test_an_imported_trace_disables_the_slider_with_the_reason(runs: Path) -> None:
    folder = runs / "toy" / "traces" / EXITS
    meta = {**read_json(folder / "trace.json"), "has_uncertainty": False, "solver": None}
    del meta["wall_seconds"], meta["batch_size"], meta["device"]
    write_json(folder / "trace.json", meta)
    app = open_app(trace=EXITS)
    assert app.slider[0].disabled
    assert "holds no uncertainties" in sentences(app)
    layers = deediff.read_trace(folder).exit_layers()
    assert metric(app, "Layer ratio") == f"{layers.mean() / BLOCKS:.3f}"
    assert metric(app, "Seconds per image") == "unknown"
    app.switch_page("views/uncertainty/page.py").run()
    assert not app.exception
    assert "holds no uncertainties" in sentences(app)


@pytest.mark.parametrize("size", [10, 100_000])
def test_every_page_asks_for_plotly_in_its_head_whatever_the_browser_takes(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"<html><head></head><body>" + b"x" * size + b"</body></html>"

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        await GZipMiddleware(Response(page, media_type="text/html"), minimum_size=500)(scope, receive, send)

    headers = [(b"accept", b"text/html,*/*"), (b"accept-encoding", b"gzip, br")]
    scope = {"type": "http", "method": "GET", "path": "/compare", "headers": headers}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(head.InHead(respond)(scope, None, send))
    body = b"".join(message.get("body", b"") for message in sent)
    assert body == page.replace(b"</head>", f"{head.head_lines()}</head>".encode())
    assert f'src="{head.plotly_path()}"' in head.head_lines()
    assert dict(sent[0]["headers"])[b"content-length"] == str(len(body)).encode()
