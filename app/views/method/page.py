"""Method: how early exit works, drawn from the loaded model and a sample of the run's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
import torch

from app.state import cache
from app.state.selection import Selection, current, select
from app.views.method.explained import Explained, explain
from app.views.method.figures import coefficients, heat, network, u_and_error
from app.widgets import gallery, plot
from app.widgets.empty import no_checkpoint, no_trace
from app.widgets.panels import guarded, heading
from deediff.cost.components import model_cost
from deediff.datasets import to_uint8
from deediff.models import EarlyExitModel
from deediff.traces.reader import Trace

NOISE_RANGE = 3.0  # noise is shown from −3 (black) to 3 (white)
WORDS = {"epsilon": "the noise ε", "x0": "the clean image x₀", "v": "the velocity v"}
NOISE_HELP = (
    "x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε (Eq. 1): the curves are the two coefficients (β is linear in t), the dotted line is "
    "the chosen timestep. Move *Timestep t* at the left."
)
PAIR_HELP = (
    "The network gets x_t and t and has to answer the target; its loss is the mean squared difference (Eq. 4). "
    "Noise is drawn from −3 (black) to 3 (white)."
)
NETWORK_HELP = (
    "Squares are blocks, circles are UEMs coloured by their u for this image, triangles are output heads, arcs are "
    "long skips. Hover for GFLOPs; click a circle or a triangle to look at that exit below."
)
SEES_HELP = (
    "The UEM reads the same tokens that block i is about to read (before its long skip is joined). An MLP's "
    "u = sigmoid(wᵀ L + b), averaged over tokens (Eq. 5), is trained towards û = mean tanh|g_i − target| (Eq. 6–7)."
)
CURVE_HELP = (
    "A sample leaves at the first exit whose u lies under τ. Where the solid line lies under the dotted one, the UEM "
    "is too sure; û can be computed here because the noise is known, while sampling it is not."
)


@st.cache_data(max_entries=64, show_spinner="Asking every exit of the network …")
def explained(
    checkpoint: Path, stamp: int, trace: Path, sample: int, timestep: int, _png: bytes, label: int
) -> Explained:
    """Remembered, because another panel's widget must not run the network again."""
    model, schedule = cache.open_model(checkpoint)
    return explain(model, schedule, _png, timestep, sample, label)


def example(selected: Selection) -> tuple[Trace, int, bytes] | None:
    """A trace of the run with images, a sample number and its PNG: the selected ones where they have an image."""
    for trace in [t for t in (selected.trace, selected.other, *selected.siblings) if t is not None]:
        number = selected.sample or 0
        found = trace.samples(range(number, number + 1))
        if (
            not len(found) or found["png"].iloc[0] is None
        ):  # that sample's part may not be here: take the first there is
            found = next((s for p in trace.image_parts[:1] if len(s := trace.samples(part_range(trace, p)))), found)
        found = found[found["png"].notna()]
        if len(found):
            return trace, int(found["sample"].iloc[0]), found["png"].iloc[0]
    return None


def part_range(trace: Trace, part: int) -> range:
    """Sample numbers of a part."""
    size = int(trace.meta.batch_size or trace.meta.num_samples)
    return range(part * size, (part + 1) * size)


def label_of(trace: Trace, sample: int) -> int:
    """Its class; 0 where there are none."""
    classes = trace.meta.settings and trace.meta.settings.classes
    return int(classes[sample % len(classes)]) if classes else 0


def picture(image: np.ndarray, noise: bool = False) -> bytes:
    """(C,H,W) → PNG."""
    x = torch.from_numpy(image)
    return gallery.encode(to_uint8(x / NOISE_RANGE if noise else x).numpy())


def draw_noise(e: Explained, alphas_bar: np.ndarray, kind: str, sample: int) -> None:
    """Figures 7 and 8."""
    st.subheader("1 · The network learns to see through noise", anchor=False)
    image, noise = math.sqrt(e.alpha_bar), math.sqrt(1 - e.alpha_bar)
    st.markdown(
        f"Training takes a clean image, mixes in noise, and asks the network for {WORDS[kind]}. The timestep *t* "
        f"says how much: at t = {e.timestep} the image counts {image:.3f} and the noise {noise:.3f}. Sampling goes the "
        "other way: it begins with noise alone and removes a little at each step, asking the whole network every time."
    )
    left, right = st.columns([1, 1.15], gap="medium")
    with left:
        table = pd.DataFrame({"timestep": range(len(alphas_bar)), "image": alphas_bar**0.5,
                              "noise": (1 - alphas_bar) ** 0.5})  # fmt: skip
        half = int(np.abs(alphas_bar - 0.5).argmin())
        heading(f"Image and noise weigh the same at t = {half}", "coefficients of x_t (Figure 7) · the loaded schedule",
                NOISE_HELP, lambda: table, "coefficients")  # fmt: skip
        figure = coefficients(alphas_bar, e.timestep)
        plot.chart(figure, "plot coefficients", "Diffusion coefficients", plot.selects(x="timestep"))
    with right:
        title = f"At t = {e.timestep} the network gets the second image and should answer the third"
        heading(title, f"noisy image and target (Figure 8) · sample {sample}", PAIR_HELP)
        tiles = [
            gallery.Tile(picture(e.clean), "clean image x₀", f"sample {sample} of the trace"),
            gallery.Tile(picture(e.noisy), f"x_t at t = {e.timestep}",
                         f"{image:.4f} × image + {noise:.4f} × noise"),
            gallery.Tile(picture(e.target, kind != "x0"), f"target: {WORDS[kind]}", "what the network should answer"),
            gallery.Tile(picture(e.predictions[-1], kind != "x0"), f"full network: û = {e.errors[-1]:.3f}",
                         f"its answer; mean tanh|difference| = {e.errors[-1]:.4f}"),
        ]  # fmt: skip
        gallery.show("method noise", tiles, 4)
        st.caption("The same image and noise at other timesteps; a click chooses one:")
        schedule = [t for t in np.linspace(len(alphas_bar) - 1, 0, 8).round().astype(int).tolist()]
        row = [gallery.Tile(picture(noised(e, alphas_bar[t])), f"t = {t}", f"image × {alphas_bar[t] ** 0.5:.4f} + "
                            f"noise × {(1 - alphas_bar[t]) ** 0.5:.4f}", number=t) for t in schedule]  # fmt: skip
        gallery.show("method timesteps", row, len(row), on_pick=lambda t: select(timestep=t))


def noised(e: Explained, alpha_bar: float) -> np.ndarray:
    """x_t of the same image and noise at another timestep (Eq. 1)."""
    return (alpha_bar**0.5 * e.clean + (1 - alpha_bar) ** 0.5 * e.noise).astype(np.float32)


def draw_network(e: Explained, model: EarlyExitModel, selected: Selection, layer: int, highest: float) -> None:
    """Where the exits are."""
    n = model.num_blocks
    st.subheader(f"2 · It can be left before each of its {n} blocks", anchor=False)
    cost = model_cost(model)
    if not len(e.u):
        st.info("This checkpoint has no exits yet: only its backbone is trained. *trainer.run* adds them afterwards.")
    leaves = e.exit_layer(selected.threshold) if len(e.u) and selected.threshold is not None else None
    tail = ""
    if leaves is not None:
        done = float(cost.at_exit(with_uem=True)[leaves])
        tail = (
            f" At τ = {selected.threshold:.3f} this image leaves at exit {leaves} for {done:.4g} GFLOPs, "
            f"{100 * done / cost.full:.0f} % of the full network's {cost.full:.4g}."
        )
    st.markdown(
        f"Before each block stand a small *uncertainty estimation module* (UEM) and an output head. The UEM guesses "
        f"how wrong the head would be; if its guess u is ≤ τ, the head answers and the rest of the network is not run. "
        f"Exit *i* means that *i* blocks were run: 0 skips the whole step, {n} is no early exit.{tail}"
    )
    title = "What a sample pays is the blocks before its exit"
    if leaves is not None:
        title = f"This image leaves after {leaves} of {n} blocks" if leaves < n else "This image takes every block"
    weights = selected.checkpoint.stem if selected.checkpoint is not None else ""
    table = pd.DataFrame({"exit": range(n + 1), "gflops": cost.at_exit(with_uem=True)})
    subtitle = f"the loaded model, checkpoint {weights} · t = {e.timestep}"
    heading(title, subtitle, NETWORK_HELP, lambda: table.assign(u=pd.Series(e.u)), "network")
    skips = [model.backbone.skip_source(i) for i in range(n)]
    figure = network(cost, skips, e.u, highest, leaves, layer if len(e.u) else None)
    plot.chart(figure, "plot network", "The network with its exits", look_at)


def look_at(point: plot.Point) -> None:
    """A click on an exit selects its layer."""
    if point["customdata"] is not None:
        select(layer=int(point["customdata"][0]))


def draw_uem(e: Explained, kind: str, selected: Selection, layer: int, highest: float) -> None:
    """What the UEM sees, and how right it is."""
    if not len(e.u):
        return
    n = len(e.u)
    st.subheader("3 · The UEM guesses an error that it cannot know", anchor=False)
    has_uem = layer < n and not np.isnan(e.u[layer])
    says = f"u = {e.u[layer]:.3f}" if has_uem else "nothing, because there is none"
    st.markdown(
        f"It sees what block {min(layer, n - 1)} is about to read, one vector per patch of the image, and nothing "
        f"else: not the true noise, not the head's answer. At exit {layer} it says {says}; the head there is really "
        f"wrong by û = {e.errors[layer]:.3f}. Choose another exit by a click, or with *Layer* at the left."
    )
    left, right = st.columns([1.15, 1], gap="medium")
    with left:
        title = f"At exit {layer} the head answers this; where it is wrong, and where the UEM thinks so"
        heading(title, f"colours from 0 (dark) to {highest:g} (bright)", SEES_HELP)
        answer = picture(e.predictions[layer], kind != "x0")
        error = gallery.encode(heat(e.error_maps[layer], highest))
        tiles = [
            gallery.Tile(picture(e.noisy), f"x_t at t = {e.timestep}", "what goes into the network"),
            gallery.Tile(answer, f"answer of exit {layer}", f"should be {WORDS[kind]}"),
            gallery.Tile(error, f"its error: û = {e.errors[layer]:.3f}",
                         f"tanh|answer − target| of every pixel, Eq. 6; mean {e.errors[layer]:.4f}"),
        ]  # fmt: skip
        if e.u_maps is not None and has_uem:
            guess = gallery.encode(heat(e.u_maps[layer], highest))
            hover = f"u of every image token; over all tokens u = {e.u[layer]:.4f}"
            tiles.append(gallery.Tile(guess, f"UEM's guess: u = {e.u[layer]:.3f}", hover))
        gallery.show("method exit", tiles, len(tiles))
    with right:
        table = pd.DataFrame({"exit": range(n + 1), "u": [*e.u.tolist(), None], "error": e.errors.tolist()})
        gap = float(np.nanmean(np.abs(e.u - e.errors[:-1])))
        heading(f"u misses the real error by {gap:.3f} on average", f"this image at t = {e.timestep}", CURVE_HELP,
                lambda: table, "u and error")  # fmt: skip
        figure = u_and_error(e.u, e.errors, selected.threshold, layer)
        plot.chart(figure, "plot u and error", "u and the real error per exit", look_at)


def draw() -> None:
    """The page."""
    selected = current()
    if selected.checkpoint is None:
        no_checkpoint(selected.run, "there is no model to draw the method from")
        return
    found = example(selected)
    if found is None:
        st.info("The method is drawn from an image of the run's own, and none of its traces here holds any.")
        no_trace(selected.run)
        return
    trace, sample, png = found
    model, schedule = cache.open_model(selected.checkpoint)
    stamp = selected.checkpoint.stat().st_mtime_ns
    folder = Path(str(trace.path))
    e = explained(selected.checkpoint, stamp, folder, sample, selected.timestep, png, label_of(trace, sample))
    n, known = len(e.u), e.exit_layer(selected.threshold) if selected.threshold is not None else len(e.u) // 2
    layer = min(known if selected.layer is None else selected.layer, n)
    # One scale for the circles and the maps: the same colour is the same number everywhere on the page.
    highest = math.ceil(20 * max(0.05, float(np.nanmax(np.append(e.u, e.errors))))) / 20
    with st.container(key="panels"):
        draw_noise(e, schedule.alphas_bar.numpy(), model.prediction, sample)
        draw_network(e, model, selected, layer, highest)
        draw_uem(e, model.prediction, selected, layer, highest)


with guarded():
    draw()
