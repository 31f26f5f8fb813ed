"""Compare: what traces cost against how good their images are, and the images themselves at equal seeds."""

from __future__ import annotations

from dataclasses import asdict

import pandas as pd
import streamlit as st

from app.state import cache, link
from app.state.selection import Selection, become, current, select
from app.state.traces import changes, key_of, open_traces, read_qualities
from app.views.compare import points
from app.views.compare.choices import PICKED, choose_axis, choose_runs, follow_picks, toggle
from app.views.compare.figures.cost_quality import cost_quality, published_gflops, published_seconds
from app.views.compare.points import Axis, Point
from app.widgets import gallery, inputs, plot
from app.widgets.empty import no_trace
from app.widgets.panels import guarded, heading
from app.widgets.ticked_table import pickable
from deediff.analysis.compare import comparison_table
from deediff.analysis.published import FULL, NOTE, SECONDS, SECONDS_NOTE, TABLES
from deediff.runs import Run, list_runs
from deediff.traces.reader import Trace

COLUMNS = 12  # images side by side
UNSORTED = "run and name"  # instead of a column to sort by
WORDY = ("model", "uem", "strategy", "losses", "device", "quality_protocol")  # columns that stand at the end
HELP = (
    "Each mark is one trace; lines join traces of one policy, labelled by its threshold, budget or steps; bars are "
    "95 % intervals, the grey band is what real images of the same number reach. The wide grey line is the Pareto "
    "front: nothing measured is both cheaper and better. Click a mark to see its images below; again to take them away."
)
PUBLISHED_HELP = (
    "These stand apart because their extractor or protocol is not that of any trace here: compare shapes, not values. "
    "Circles are MLPs per layer, squares per timestep, diamonds per layer and timestep, triangles attention probes."
)
IMAGES_HELP = (
    "Equal columns are equal sample numbers. Traces of one solver, step count, seed and checkpoint started there from "
    "the same noise, so whatever differs within a column is due to the exits."
)


def table_of(traces: list[Trace]) -> pd.DataFrame:
    """The comparison table with each run's name in front."""
    quality = read_qualities(traces, [])  # what is damaged is said above
    table = comparison_table(traces, changes().ask, lambda trace: quality[key_of(trace)])
    table.insert(0, "run", [trace.path.parents[1].name for trace in traces])
    last = [name for name in WORDY if name in table]
    return table[[name for name in table if name not in last] + last]


def controls(runs: list[Run], selected: Selection, problems: list[str]) -> tuple[list[Trace], Axis | None, str]:
    """Which runs, which measure of quality, which cost."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        traces = open_traces(choose_runs(runs, selected), problems)
        quality = read_qualities(traces, problems)
        axis = choose_axis(points.axes(traces, quality))
        cost = inputs.segmented_control("Cost", ["GFLOPs", "seconds"], "cost", "GFLOPs").lower()
    if traces and not any(quality.values()):
        say_how_to_evaluate(selected)
    return traces, axis, cost


def say_how_to_evaluate(selected: Selection) -> None:
    """Without quality there is only the change of the images."""
    command = f"deediff evaluate {selected.run.path}/traces/*"
    st.info(
        "None of these traces was evaluated, so the quality axis shows the *change* of their images: a distance from "
        f"the full network's images of equal seeds, not a quality. This command adds quality: `{command}`"
    )


def draw_plot(shown: list[Point], axis: Axis, cost: str, selected: Selection) -> None:
    """The picture, and what it says."""
    front = points.front(shown, cost, axis.higher_is_better)
    letters = {key_of(t): letter for t, letter in ((selected.other, "B"), (selected.trace, "A")) if t is not None}
    figure = cost_quality(shown, front, axis, cost, letters, st.session_state[PICKED])
    missing = len(shown) - len([p for p in shown if points.cost_of(p, cost) is not None])
    title = f"{len(front)} of {len(shown) - missing} traces are on the Pareto front" if shown else "Nothing to compare"
    note = f" · {missing} without measured seconds" if missing else ""
    if beyond := points.far_above([p for p in shown if points.cost_of(p, cost) is not None]):
        note += " · far above: " + ", ".join(f"{p.label} ({p.reading.value:.3g})" for p in beyond)
    heading(title, f"{axis.label}{note}", HELP, lambda: plotted(shown, axis), "cost and quality")
    plot.chart(figure, "plot compare", title, toggle)


def plotted(shown: list[Point], axis: Axis) -> pd.DataFrame:
    """The numbers of the picture."""
    rows = [{name: value for name, value in vars(p).items() if name != "reading"} | vars(p.reading) for p in shown]
    return pd.DataFrame(rows).rename(columns={"key": "trace", "family": "policy", "value": axis.name})


def draw_published(cost: str) -> None:
    """What others printed, in a picture of its own: no trace here is measured as they did."""
    if cost == "seconds":
        heading("Published seconds, with other FIDs", SECONDS_NOTE, PUBLISHED_HELP, seconds_table, "published seconds")
        plot.chart(published_seconds(SECONDS), "plot published", "Published FID against seconds")
        return
    heading("Published results, with other FIDs", "hollow: printed by others", f"{PUBLISHED_HELP} {NOTE}.",
            published_table, "published")  # fmt: skip
    plot.chart(published_gflops(FULL, TABLES), "plot published", "Published FID against GFLOPs")


def published_table() -> pd.DataFrame:
    """The blog's lines."""
    rows = [{"uem": uem, "strategy": strategy, "losses": losses, "threshold": tau, **asdict(line)}
            for (uem, strategy, losses, tau), line in TABLES.items()]  # fmt: skip
    return pd.DataFrame([asdict(FULL), *rows])


def seconds_table() -> pd.DataFrame:
    """DuoDiff's pairs."""
    rows = [(name, fid, seconds) for name, pairs in SECONDS.items() for fid, seconds in pairs]
    return pd.DataFrame(rows, columns=["policy", "fid", "seconds_per_image"])


def draw_images(traces: list[Trace], selected: Selection) -> None:
    """The same samples of every picked trace, one row each."""
    by_key = {key_of(trace): trace for trace in traces}
    picked = [by_key[key] for key in st.session_state[PICKED] if key in by_key]
    heading(
        f"The same seeds in {len(picked)} {'trace' if len(picked) == 1 else 'traces'}" if picked else "Images",
        "one row per picked trace · under each image its mean exit layer", IMAGES_HELP,
    )  # fmt: skip
    if not picked:
        st.info("Click marks above, or tick rows of the table: their images appear here side by side.")
        return
    if sentence := points.what_else_differs(picked):
        st.caption(sentence)
    fewest = min(trace.meta.num_samples for trace in picked)
    start = min((selected.sample or 0) // COLUMNS, (fewest - 1) // COLUMNS) * COLUMNS
    numbers = range(start, min(start + COLUMNS, fewest))
    with st.container(gap="xxsmall"):
        for trace in picked:
            draw_row(trace, numbers, selected)


def draw_row(trace: Trace, numbers: range, selected: Selection) -> None:
    """Some samples of one trace."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f"**{trace.meta.policy}** · {key_of(trace)}", width="content")
        st.button("A", key=f"A {key_of(trace)}", type="tertiary", on_click=become, args=(trace, "A"),
                  help="Show this trace as A on every page.")  # fmt: skip
        if trace.path.parents[1] == selected.run.path and trace.path != (selected.trace and selected.trace.path):
            st.button("B", key=f"B {key_of(trace)}", type="tertiary", on_click=become, args=(trace, "B"),
                      help="Show this trace as B on every page.")  # fmt: skip
    found = trace.samples(numbers)
    tiles = [
        gallery.Tile(png, f"{number} · {mean:.1f}", f"sample {number}, mean exit layer {mean:.3f}", number=int(number))
        for number, mean, png in zip(found["sample"], found["mean_exit_layer"], found["png"], strict=True)
        if png is not None
    ]
    if not tiles:
        st.caption("This trace holds no images.")
        return
    gallery.show(
        f"compare {key_of(trace)}", tiles, COLUMNS, chosen=selected.sample, on_pick=lambda k: select(sample=k)
    )  # fmt: skip


def draw_table(table: pd.DataFrame) -> None:
    """All columns; sorted, filtered by words and comparisons, exported as CSV."""
    heading(f"{len(table)} traces in full", "ticked rows are picked", TABLE_HELP)
    bar = st.container(horizontal=True, vertical_alignment="bottom")
    with bar, link.at_once():
        question = inputs.text_input("Filter", "filter", placeholder="threshold ddim gflops<0.35", width="stretch")
        column = inputs.selectbox("Sort by", [UNSORTED, *table], "sort", width=240)
        falling = inputs.toggle("Largest first", "falling", False)
    if column != UNSORTED:
        table = points.ordered(table, column, falling)
    try:
        table = points.filtered(table, question)
    except ValueError as error:
        st.warning(str(error))
    with bar:
        plot.download(lambda: table.replace("\n", " · ", regex=True), "comparison")
    keys = [f"{run}/{trace}" for run, trace in zip(table["run"], table["trace"], strict=True)]
    pickable("compare table", table, keys, PICKED)


TABLE_HELP = (
    "GFLOPs are per image and step; efficiency is the speed-up divided by what the saved GFLOPs promise; the change is "
    "in grey levels from the full network's images. The filter takes words and comparisons such as `gflops<0.35`. "
    "Filter and order stand in the link; a click on a column's head sorts here alone."
)


def draw() -> None:
    """The page."""
    selected = current()
    runs, _ = list_runs(cache.runs_root())
    if not any(run.traces for run in runs):
        no_trace(selected.run)
        return
    problems: list[str] = []
    with link.at_once():
        traces, axis, cost = controls(runs, selected, problems)
        follow_picks(runs, traces, selected)
    for problem in problems:
        st.warning(problem)
    if not traces:
        st.info("Choose a run that holds traces.")
        return
    draw_body(traces, axis, cost, selected)
    if left := pending(traces):
        st.fragment(poll, run_every=0.7)(traces, len(left))


def pending(traces: list[Trace]) -> list[str]:
    """Traces whose images are still being compared in the background."""
    by_key = {key_of(trace): trace for trace in traces}
    pairs = [(key, axis.full) for axis in points.axes(traces, {}) for key in axis.readings if axis.full]
    return [key for key, full in pairs if not changes().is_known(by_key[key], by_key[full])]


def poll(traces: list[Trace], before: int) -> None:
    """Draw the page again once there is more to show."""
    left = len(pending(traces))
    st.caption(f":material/hourglass_top: the images of {left} more traces are being compared in the background …")
    if left < before:
        st.rerun()


def draw_body(traces: list[Trace], axis: Axis | None, cost: str, selected: Selection) -> None:
    """The picture, the images, the table."""
    if axis is not None and axis.full is not None:
        by_key = {key_of(trace): trace for trace in traces}
        values = {key: changes().ask(by_key[key], by_key[axis.full]) for key in axis.readings}
        axis = points.with_readings(axis, values)
    shown = points.points(traces, axis) if axis is not None else []
    if axis is None:
        st.info("Nothing to draw yet: no trace was evaluated, and none of the full network is there to compare with.")
    else:
        with st.container(key="panels"):
            left, right = st.columns([1.9, 1])
            with left:
                draw_plot(shown, axis, cost, selected)
            with right, guarded():
                draw_published(cost)
    draw_images(traces, selected)
    draw_table(table_of(traces))


with guarded():
    draw()
