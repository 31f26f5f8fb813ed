"""The selection: widgets, link and warnings agree."""

from __future__ import annotations

from pathlib import Path

import pytest

import deediff
from deediff.json_files import read_json, write_json
from tests.app.helpers import (
    BLOCKS,
    EXITS,
    FULL,
    SAMPLES,
    STEPS,
    in_the_link,
    metric,
    open_app,
    select,
    sentences,
    times,
)
from tests.conftest import sample_trace


def test_a_trace_with_exits_answers_from_its_own_threshold_only(runs: Path) -> None:
    app = open_app("trends", trace=EXITS, tau="0.05")
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
    """A second run of the script may drop unsent updates of the first; a link still selects its values."""
    asked = {"trace": EXITS, "b": FULL, "tau": "0.12", "t": str(times(runs)[1]), "layer": "3", "sample": "4"}
    app = open_app(**asked).run()
    assert not app.warning
    sliders = [app.slider(key="tau"), app.select_slider(key="t")]
    assert [float(w.proto.default[0]) for w in sliders] == pytest.approx([0.12, 1.0])  # of t, its position
    numbers = [app.number_input(key=f"chosen {name}").proto.default for name in ("layer", "sample")]
    assert numbers == [3, 4]
    for key in ("run", "trace", "b", "checkpoint"):
        box = app.selectbox(key=key)
        assert box.proto.options[box.proto.default].split(" · ")[0] == box.value == asked.get(key, box.value)


def test_what_a_link_asks_for_and_is_not_there_is_a_sentence_each(runs: Path) -> None:
    app = open_app("trends", t="12345", layer="14", sample=str(SAMPLES))
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


def test_an_imported_trace_disables_the_slider_with_the_reason(runs: Path) -> None:
    folder = runs / "toy" / "traces" / EXITS
    meta = {**read_json(folder / "trace.json"), "has_uncertainty": False, "solver": None}
    del meta["wall_seconds"], meta["batch_size"], meta["device"]
    write_json(folder / "trace.json", meta)
    app = open_app("trends", trace=EXITS)
    assert app.slider[0].disabled
    assert "holds no uncertainties" in sentences(app)
    layers = deediff.read_trace(folder).exit_layers()
    assert metric(app, "Layer ratio") == f"{layers.mean() / BLOCKS:.3f}"
    assert metric(app, "Seconds per image") == "unknown"
    app.switch_page("views/uncertainty/page.py").run()
    assert not app.exception
    assert "holds no uncertainties" in sentences(app)


def test_values_that_a_page_does_not_use_are_dropped_from_its_link_and_said(runs: Path) -> None:
    app = open_app(trace=FULL, budgett="3", order="exit")
    assert "The link sets budgett = 3, which is not used here" in sentences(app)
    assert "order = exit" in sentences(app)
    assert not {"budgett", "order"} & set(in_the_link(app))
    app.switch_page("views/images/page.py").run()
    assert "order" in in_the_link(app)
    assert not sentences(app)
    app.switch_page("views/trends/page.py").run()
    assert "order" not in in_the_link(app)
    assert not sentences(app)  # the page wrote it, not a link


def test_a_threshold_in_a_link_that_nothing_answers_is_said(runs: Path) -> None:
    folder = runs / "toy" / "traces" / EXITS
    write_json(folder / "trace.json", {**read_json(folder / "trace.json"), "has_uncertainty": False})
    app = open_app(trace=EXITS, tau="0.2")
    assert "The link sets tau = 0.2, which is not used here" in sentences(app)
