"""*Exit trends*: the values of each panel and of its CSV are those of the Parquet rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

import deediff
from app.widgets.plot import selects
from deediff.analysis.variance import decompose
from tests.app.helpers import (
    BLOCKS,
    EXITS,
    FULL,
    SAMPLES,
    STEPS,
    counted_exits,
    figure,
    in_the_link,
    line,
    metric,
    open_app,
    select,
    sentences,
    times,
    titles,
    unpacked,
)

TAU = 0.1


def exits_of(runs: Path, trace: str = FULL, tau: float = TAU) -> np.ndarray:
    """(samples, steps) exit layers at a threshold, from the rows."""
    return counted_exits(runs / "toy" / "traces" / trace, tau).reshape(SAMPLES, STEPS)


def counts(exits: np.ndarray) -> np.ndarray:
    """(samples, steps) → (steps, N+1)."""
    return (exits[:, :, None] == np.arange(BLOCKS + 1)).sum(axis=0)


def heatmap(app: AppTest) -> dict[str, Any]:
    return figure(app, "exit heatmap")["data"][0]


@pytest.mark.parametrize("tau", [0.08, 0.12])
def test_the_heatmap_is_a_count_over_the_rows(tau: float, runs: Path, tables: dict[str, pd.DataFrame]) -> None:
    expected = counts(exits_of(runs, tau=tau))
    app = open_app("trends", tau=str(tau))
    np.testing.assert_allclose(unpacked(heatmap(app)["z"]), expected.T / SAMPLES, rtol=1e-6)
    np.testing.assert_array_equal(unpacked(heatmap(app)["customdata"])[:, :, 0], expected.T)
    np.testing.assert_array_equal(unpacked(heatmap(app)["x"]), times(runs))
    csv = tables["exit heatmap"]
    np.testing.assert_array_equal(csv["count"].to_numpy().reshape(STEPS, BLOCKS + 1), expected)
    np.testing.assert_array_equal(csv["timestep"], np.repeat(times(runs), BLOCKS + 1))


def test_a_click_chooses_its_cell_in_every_panel_and_in_the_link(runs: Path) -> None:
    app = select(open_app("trends", b=EXITS, tau="0.12"), timestep=times(runs)[1], layer=4)
    assert (in_the_link(app)["t"], in_the_link(app)["layer"]) == (str(times(runs)[1]), "4")
    bars = {trace["name"]: unpacked(trace["x"]) for trace in figure(app, "exits at one timestep")["data"][:2]}
    np.testing.assert_allclose(bars["A estimated, τ = 0.12"], counts(exits_of(runs, tau=0.12))[1] / SAMPLES, rtol=1e-6)
    measured = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    np.testing.assert_allclose(bars["B measured, τ = 0.1"], counts(measured)[1] / SAMPLES, rtol=1e-6)
    box = [s for s in figure(app, "exit heatmap")["layout"]["shapes"] if s["type"] == "rect" and s["y1"] == 4.5]
    assert box
    assert all(s["x0"] < times(runs)[1] < s["x1"] and s["y0"] == 3.5 for s in box)
    for panel in ("mean exit layer", "spread between samples", "open and closed loop"):
        marked = [s["x0"] for s in figure(app, panel)["layout"]["shapes"] if s["x0"] == s["x1"]]
        assert times(runs)[1] in marked, panel


def test_the_click_of_a_figure_selects_what_its_axes_are(runs: Path) -> None:
    import streamlit as st

    selects(x="timestep", y="layer")({"x": 480, "y": 7.0, "customdata": None})
    selects(x="layer")({"x": 9, "y": 0.3, "customdata": None})
    assert st.session_state.pop("clicked") == {"t": 480, "layer": 9}


def test_lines_of_several_thresholds_and_traces(runs: Path, tables: dict[str, pd.DataFrame]) -> None:
    app = open_app("trends", also="0.08,0.13")
    measured = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers().mean(axis=0)
    np.testing.assert_allclose(line(app, "mean exit layer", "τ = 0.1 measured"), measured, rtol=1e-6)
    for tau in (0.08, 0.1, 0.13):
        estimated = line(app, "mean exit layer", f"τ = {tau:g} estimated")
        np.testing.assert_allclose(estimated, exits_of(runs, tau=tau).mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(tables["mean exit layer"][f"τ = {tau:g} estimated"], estimated, rtol=1e-6)
    assert in_the_link(app)["also"] == "0.08,0.13"


def test_still_inside_and_spread_are_those_of_the_rows(runs: Path, tables: dict[str, pd.DataFrame]) -> None:
    app = open_app("trends", tau="0.12")
    exits = exits_of(runs, tau=0.12)
    arriving = [(exits >= layer).mean() for layer in range(BLOCKS + 1)]
    np.testing.assert_allclose(line(app, "still inside", "A estimated, τ = 0.12, all timesteps"), arriving, rtol=1e-6)
    np.testing.assert_allclose(tables["still inside"]["arriving_all_timesteps"], arriving)
    spread = tables["spread between samples"]
    np.testing.assert_allclose(spread["standard_deviation"], exits.std(axis=0))
    for share, column in ((0.05, "p05"), (0.25, "p25"), (0.5, "median"), (0.75, "p75"), (0.95, "p95")):
        np.testing.assert_array_equal(spread[column], np.quantile(exits, share, axis=0, method="inverted_cdf"), column)


def test_the_estimate_stands_beside_the_truth_with_their_difference(
    runs: Path, tables: dict[str, pd.DataFrame]
) -> None:
    app = open_app("trends", tau="0.1")
    estimated, truth = exits_of(runs), deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    assert metric(app, "Closest measured layer ratio") == f"{truth.mean() / BLOCKS:.3f} (τ = 0.1)"
    gap = f"{(estimated.mean() - truth.mean()) / BLOCKS:+.3f}".replace("-", "−")
    assert metric(app, "Estimate − measured") == gap
    csv = tables["open and closed loop"]
    np.testing.assert_allclose(csv["difference"], estimated.mean(axis=0) - truth.mean(axis=0))
    app.slider(key="tau").set_value(0.13).run()  # judged at the measured threshold, wherever the slider is
    np.testing.assert_allclose(line(app, "open and closed loop", "measured, τ = 0.1"), truth.mean(axis=0), rtol=1e-6)
    assert not [m for m in app.metric if m.label == "Estimate − measured"]


def test_the_variance_is_split_as_the_rows_say(runs: Path, tables: dict[str, pd.DataFrame]) -> None:
    app = open_app("trends", b=EXITS)
    measured = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    csv = tables["variance"].set_index(["trace", "share"])
    shown = {trace["name"]: trace for trace in figure(app, "variance")["data"]}
    for name, exits in (("A, estimated at τ = 0.1", exits_of(runs)), ("B, measured", measured)):
        expected = decompose(exits)
        bars = [expected.timestep.value, expected.sample.value, expected.rest.value, expected.stays_next.value]
        np.testing.assert_allclose(unpacked(shown[name]["x"]), bars, rtol=1e-5)
        assert csv.loc[(name, "sample"), "high"] > csv.loc[(name, "sample"), "low"]
        assert csv.loc[(name, "total"), "value"] == pytest.approx(expected.total.value)


def test_without_rows_the_timestep_alone_is_explained(runs: Path) -> None:
    for part in (runs / "toy" / "traces" / FULL).glob("part-*.parquet"):
        part.unlink()
    exits = exits_of(runs, EXITS)
    app = open_app("trends", trace=EXITS)
    assert "needs the rows" not in sentences(app)
    for part in (runs / "toy" / "traces" / EXITS).glob("part-*.parquet"):
        part.unlink()
    app = open_app("trends", trace=EXITS)
    share = exits.mean(axis=0).var() / exits.var()
    assert f"the timestep explains {share:.0%}" in sentences(app)
    assert "computed from the rows, which this trace lacks" in sentences(app)
    assert not app.error


def test_where_all_leave_together_nothing_varies(runs: Path) -> None:
    assert "the exit layer does not vary" in sentences(open_app("trends", tau="0"))


def test_a_budget_finds_the_smallest_threshold_that_keeps_it(runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / FULL)
    costs = {tau: STEPS * trace.what_if(tau).gflops for tau in np.round(np.arange(0, 0.2, 0.005), 3)}
    budget = (costs[0.1] + costs[0.105]) / 2
    app = open_app("trends")
    app.number_input(key="budget").set_value(budget).run()
    tau = min(tau for tau, cost in costs.items() if cost <= budget)
    assert app.button(key="use budget").label == f"τ = {tau:.3f}: {costs[tau]:.4g} GFLOPs"
    app.button(key="use budget").click().run()
    assert app.slider(key="tau").value == pytest.approx(tau)
    assert in_the_link(app)["tau"] == f"{tau:g}"
    app.number_input(key="budget").set_value(1e-9).run()
    assert any("no threshold costs" in caption.value for caption in app.caption)
    assert not app.exception
    endless = open_app("trends", budget="inf")
    assert endless.number_input(key="budget").value is None
    assert not endless.error


def test_every_figure_is_one_that_plotly_takes(runs: Path) -> None:
    for page in (None, "uncertainty"):
        app = open_app(page, b=EXITS, layer="3")
        names = [
            element.proto.id.rpartition("-plot ")[2] for element in app.get("bidi_component")[1:]
        ]  # after plotly.js
        assert names
        for name in names:
            go.Figure(figure(app, name))  # raises for an attribute that does not exist


def test_a_measurement_at_the_threshold_is_shown_and_the_estimate_laid_over_it(runs: Path) -> None:
    measured = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    app = open_app("trends", tau="0.1")  # A is the full network's trace
    np.testing.assert_array_equal(unpacked(heatmap(app)["customdata"])[:, :, 0], counts(measured).T)
    name = "estimated (open loop), τ = 0.1"
    np.testing.assert_allclose(line(app, "exit heatmap", name), exits_of(runs).mean(axis=0), rtol=1e-6)
    lines = {trace.get("name"): trace["line"] for trace in figure(app, "exit heatmap")["data"][1:]}
    assert lines[name]["dash"] == "dash"
    assert f"At τ = 0.1 a sample runs {measured.mean():.1f} of {BLOCKS} blocks on average" in titles(app)
    assert not [title for title in titles(app) if title.startswith("Estimated")]


def test_only_without_a_measurement_an_estimate_is_the_title_and_says_so(runs: Path) -> None:
    app = open_app("trends", tau="0.12")
    exits = exits_of(runs, tau=0.12)
    assert f"Estimated: at τ = 0.12 a sample runs {exits.mean():.1f} of {BLOCKS} blocks on average" in titles(app)
    theirs = open_app(
        "trends", trace=EXITS, tau="0.12"
    )  # sampled with exits: its own are on screen wherever the slider is
    measured = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    np.testing.assert_array_equal(unpacked(heatmap(theirs)["customdata"])[:, :, 0], counts(measured).T)
    assert f"At τ = 0.1 a sample runs {measured.mean():.1f} of {BLOCKS} blocks on average" in titles(theirs)
