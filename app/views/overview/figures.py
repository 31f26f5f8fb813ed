"""The figures of the page, small: those of other pages without legends and titles, and two of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from app.widgets.figures import FULL, A, Mark, Spec, axis, spec
from app.widgets.pictures.exit_heatmap import exit_heatmap
from app.widgets.plans.figures import plan_marks
from deediff.plans import Plan
from deediff.traces.summary import Ints

HEIGHT = 265  # three figures and a table fit one screen of 1440 × 900
TITLE = {"standoff": 4, "font": {"size": 11}}  # of an axis
EDGE = 25  # timesteps beside a plan's first and last mark
STRIP = 0.2  # of the height of a figure: a plan below a heatmap


def small(figure: Spec, legend: Literal["top right", "bottom left", "above"] | None = None) -> Spec:
    """The figure at the page's height, with small axis titles, and its legend in a corner, above, or without."""
    layout: dict[str, Any] = figure["layout"]
    axes = {key: {**own, "title": {**own["title"], **TITLE}} for key, own in layout.items() if key[1:5] == "axis"}
    if legend == "above":
        place: dict[str, Any] = {"orientation": "h", "xanchor": "left", "x": 0, "yanchor": "bottom", "y": 1}
    else:
        y, x = (legend or "top right").split()
        place = {"orientation": "v", "xanchor": x, "x": int(x == "right"), "yanchor": y, "y": int(y == "top")}
    place |= {"font": {"size": 11}, "bgcolor": "rgba(0,0,0,0)"}
    margin = {"l": 4, "r": 4, "t": 24, "b": 4}
    kept = {**layout, **axes, "height": HEIGHT, "margin": margin, "showlegend": legend is not None, "legend": place}
    return {**figure, "layout": kept}


def where_it_happens(exits: Ints | None, timesteps: Sequence[int], plan: Plan | None, mark: Mark) -> Spec:
    """The heatmap of exits (S, N+1), and below it, on the same axis, a mark per step of the plan; or one of them."""
    marks = [] if plan is None else plan_marks({plan.name: plan}, size=10)
    row = {"type": "category", "showgrid": False, "showticklabels": False, "fixedrange": True}
    if exits is None:
        last = 1000 if plan is None else plan.num_timesteps
        x = axis("timestep t", range=[last * 1.02, -last * 0.02])
        figure = spec(marks, x, {**row, "title": {"text": ""}})
        figure = small(figure, "top right")
        figure["layout"]["height"] = HEIGHT // 2
        return figure
    figure = small(exit_heatmap(exits, list(timesteps), mark=mark))
    layout = figure["layout"]
    layout["xaxis"]["title"] |= {"text": "timestep t"}
    layout["yaxis"]["title"] |= {"text": "exit layer"}
    if marks:
        span = layout["xaxis"]["range"]
        steps = [step for trace in marks for step in trace["x"]]
        ends = [max(span[0], *(t + EDGE for t in steps)), min(span[1], *(t - EDGE for t in steps))]
        layout["xaxis"] = {**layout["xaxis"], "range": ends, "anchor": "y2"}
        layout["yaxis"] = {**layout["yaxis"], "domain": [STRIP, 1]}
        plans = {**row, "domain": [0, STRIP - 0.06], "title": {"text": "plan", **TITLE}}
        figure["data"] = [*figure["data"], *({**trace, "yaxis": "y2"} for trace in marks)]
        layout["yaxis2"] = plans
    return figure


def measured_traces(rows: Sequence[dict[str, Any]], metric: str) -> Spec:
    """Cost against quality of a run's traces: the full network's hollow and grey, those with exits in the colour of A.

    Each row has trace, GFLOPs per image, value, low, high, full.
    """
    data = []
    looks = ((True, "full network", FULL, "circle-open"), (False, "with exits", A, "circle"))
    for full, name, color, symbol in looks:
        found = [row for row in rows if row["full"] == full]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [row["GFLOPs per image"] for row in found],
                "y": [row["value"] for row in found],
                "error_y": _intervals(found),
                "marker": {"color": color, "symbol": symbol, "size": 9},
                "customdata": [[row["trace"]] for row in found],
                "hovertemplate": f"<b>%{{customdata[0]}}</b>: {metric} %{{y:.2f}} at %{{x:.3g}} GFLOPs<extra></extra>",
            }
        )
    x, y = axis("GFLOPs per image", rangemode="tozero"), axis(metric, showgrid=True, rangemode="tozero")
    return small(spec(data, x, y), "bottom left")


def _intervals(values: Sequence[Any]) -> dict[str, Any]:
    """Error bars from value, low and high; none where an end is unknown."""
    up = [0.0 if row["high"] is None else row["high"] - row["value"] for row in values]
    down = [0.0 if row["low"] is None else row["value"] - row["low"] for row in values]
    return {"array": up, "arrayminus": down, "symmetric": False, "thickness": 1, "width": 3}
