"""The network with its exits, and the one that the image takes."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.views.method.example import Example, select_exit
from app.views.method.figures import network_figure
from app.widgets.panels import Panel, heading, section
from app.widgets.plot import chart
from deediff.cost.components import model_cost

HELP = (
    "Squares are blocks, circles are UEMs coloured by their u for this image, triangles are output heads, arcs are "
    "long skips. Hover for GFLOPs; click a circle or a triangle to select that exit below."
)


def network_panel(example: Example) -> Panel:
    """Blocks, UEMs, heads and long skips."""
    return Panel("network", partial(_draw_network, example))


def _draw_network(example: Example, selected: Selection) -> None:
    e, model = example.e, example.model
    n, cost = model.num_blocks, model_cost(model)
    section(f"2 · An exit before each of its {n} blocks")
    if not len(e.u):
        st.info("This checkpoint has no exits yet: only its backbone is trained. *trainer.run* adds them afterwards.")
    exit_layer = e.exit_layer(selected.threshold) if len(e.u) and selected.threshold is not None else None
    taken, title = "", "The cost of a sample is that of the blocks before its exit"
    if exit_layer is not None:
        done = float(cost.at_exit(with_uem=True)[exit_layer])
        taken = (
            f" At τ = {selected.threshold:.3f} this image exits at layer {exit_layer}, at a cost of {done:.4g} GFLOPs: "
            f"{100 * done / cost.full:.0f} % of the full network's {cost.full:.4g}."
        )
        title = (
            f"This image exits after {exit_layer} of {n} blocks" if exit_layer < n else "This image runs every block"
        )
    st.markdown(
        f"Each block is preceded by a small *uncertainty estimation module* (UEM) and an output head. The UEM predicts "
        f"the head's error; if its prediction u is ≤ τ, the head's output is used and the rest of the network is not "
        f"run. Exit *i* means that *i* blocks were run: 0 skips the whole step, {n} is no early exit.{taken}"
    )
    weights = selected.checkpoint.stem if selected.checkpoint is not None else ""
    table = pd.DataFrame({"exit": range(n + 1), "gflops": cost.at_exit(with_uem=True)})
    subtitle = f"the loaded model, checkpoint {weights} · t = {e.timestep}"
    heading(title, subtitle, HELP, lambda: table.assign(u=pd.Series(e.u)), "network", level=3)
    skips = [model.backbone.skip_source(i) for i in range(n)]
    figure = network_figure(cost, skips, e.u, example.highest, exit_layer, example.layer if len(e.u) else None)
    chart(figure, "plot network", "The network with its exits", select_exit)
