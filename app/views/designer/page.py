"""Plan designer: a plan by hand, with its images, its cost and its measurements."""

from __future__ import annotations

from functools import partial

from app.state.selection import Selection, current
from app.views.designer.design import Design, choose
from app.views.designer.images import design_images
from app.views.designer.measured import result_panels
from app.views.designer.timeline import timeline
from app.widgets.empty import no_checkpoint
from app.widgets.panels import Panel, Row, guarded, heading, show

TIMELINE_HELP = (
    "Each handle is a step at its diffusion timestep; drag it, or move it with ← and →. Below it, choose what the step "
    "does: run the full network, exit at a layer, take another network, or read out a prediction without any block. A "
    "click on the grey band adds a step, Delete removes the focused one."
)


def _draw_timeline(design: Design, _: Selection) -> None:
    less = f"{abs(design.saving):.0%} {'less' if design.saving >= 0 else 'more'} than {design.rival.name}"
    title = f"{design.gflops:.3g} GFLOPs per image, {less} ({design.rival_gflops:.3g})"
    subtitle = f"{design.plan.solver.upper()}: {design.plan}"
    heading(title, subtitle, TIMELINE_HELP)
    timeline(design.plan, design.rungs)


def designer_page(selected: Selection) -> None:
    """The page."""
    if selected.checkpoint is None:
        no_checkpoint(selected.run, "no plan can be sampled from it")
        return
    design = choose(selected)
    trials, steps, measure = result_panels(design)
    rows: list[Row | Panel] = [
        Panel("timeline", partial(_draw_timeline, design)),
        design_images(design),
        [(trials, 1), (steps, 1)],
        measure,
    ]
    show(rows, selected, gap="medium")


with guarded():
    designer_page(current())
