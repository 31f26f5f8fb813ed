"""Sixteen seeds by the plan, by the full network at the same timesteps, and by the rival."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app.jobs.results import Stopped
from app.state.selection import Selection
from app.views.designer.design import Design
from app.widgets import inputs
from app.widgets.films.player import Pair, choose_mode, wipe_images
from app.widgets.gallery import Tile, encode, gallery
from app.widgets.image_difference import image_difference
from app.widgets.panels import Panel, heading
from app.widgets.waiting import result
from deediff.datasets import to_uint8
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from deediff.plans import Plan
from deediff.sampling.sampler import prepare_sampling
from deediff.search.judge import plan_digest
from deediff.settings import SamplingSettings

COUNT, COLUMNS = 16, 4
HELP = (
    "All three start from the same noise. Δ is the mean absolute difference in grey levels (0 – 255) from the full "
    "network at the same timesteps: what the exits and readouts of this plan change."
)


def design_images(design: Design) -> Panel:
    """The images of a design."""
    return Panel("designer images", partial(_draw, design))


def _draw(design: Design, selected: Selection) -> None:
    plans = {
        "This plan": design.plan,
        "Full network at these timesteps": design.full,
        f"Rival: {design.rival.name}": design.rival,
    }
    heading("The same seeds by three plans", f"samples 0 – {COUNT - 1} of seed {design.seed}", HELP)
    if choose_mode():
        _draw_wiped(design, plans)
        return
    columns = st.columns(3, gap="medium")
    for column, name in zip(columns, plans, strict=True):
        column.subheader(name, anchor=False)
    places = [column.empty() for column in columns]
    drawn = list[NDArray[np.uint8]]()
    order = (1, 0, 2)  # the differences need the full network's images
    for k in order:
        plan = list(plans.values())[k]
        with places[k].container():
            drawn.append(_sampled(k, design, plan))
            shown = drawn[-1]
            _, change = image_difference(shown, drawn[0])
            tiles = [
                Tile(encode(image), f"Δ {delta:.1f}" if k != 1 else f"image {i}", f"image {i}: Δ {delta:.2f}")
                for i, (image, delta) in enumerate(zip(shown, change, strict=True))
            ]
            gallery(f"designer {k}", tiles, COLUMNS)


def _draw_wiped(design: Design, plans: dict[str, Plan]) -> None:
    """The plan against the full network or the rival, under one divider."""
    others = list(plans)[1:]
    against = inputs.selectbox("Wipe against", others, "wipe_b", others[0], width=360)
    names = (next(iter(plans)), against)
    a, b = (_sampled(list(plans).index(name), design, plans[name]) for name in names)
    pairs = [Pair(encode(x), encode(y), f"image {i}") for i, (x, y) in enumerate(zip(a, b, strict=True))]
    wipe_images("designer wipe", names, pairs, 2 * COLUMNS)


def _sampled(slot: int, design: Design, plan: Plan) -> NDArray[np.uint8]:
    key = ("designer", design.model.origin, id(design.model), plan_digest(plan), design.seed)
    compute = partial(sample_images, design.model, design.schedule, plan, design.seed)
    images: NDArray[np.uint8] = result(f"designer {slot}", key, compute, "Sampling …")
    return images


def sample_images(
    model: EarlyExitModel, schedule: Schedule, plan: Plan, seed: int, stopped: Stopped
) -> NDArray[np.uint8] | None:
    """(COUNT,C,H,W) images of samples 0, 1, …; None when stopped. Raises UserError when the plan does not fit."""
    settings = SamplingSettings(plan=plan, seed=seed, num_samples=COUNT, batch_size=COUNT)
    *_, last = (None, *prepare_sampling(model, settings, schedule).steps(cancelled=stopped))
    if last is None or last.step < len(plan.steps) - 1:
        return None
    return np.asarray(to_uint8(last.x).cpu())
