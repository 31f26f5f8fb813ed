"""Noise and the training target (Figures 7 and 8)."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state.selection import Selection, select
from app.views.method.example import Example, image_png
from app.views.method.figures import coefficients
from app.widgets.gallery import Tile, gallery
from app.widgets.panels import Panel, heading, section
from app.widgets.plot import chart, selects

NOISE_HELP = (
    "x_t = √ᾱ_t x₀ + √(1−ᾱ_t) ε (Eq. 1): the curves are the two coefficients (β is linear in t), the dotted line is "
    "the selected timestep. Move *Timestep t* in the sidebar."
)
PAIR_HELP = (
    "The network's input is x_t and t, its loss is the mean squared difference from the target (Eq. 4). Noise is drawn "
    "from −3 (black) to 3 (white)."
)
TIMES = 8  # in the row of other timesteps


def noise_panel(example: Example) -> Panel:
    """The coefficients of image and noise, and input and target of the network."""
    return Panel("noise", partial(_draw_noise, example))


def _draw_noise(example: Example, selected: Selection) -> None:
    e = example.e
    section("1 · The network learns to remove noise")
    image, noise = math.sqrt(e.alpha_bar), math.sqrt(1 - e.alpha_bar)
    st.markdown(
        f"Training mixes a clean image with noise, and the network predicts {example.target}. The timestep *t* sets "
        f"the mixture: at t = {e.timestep} the coefficient of the image is {image:.3f} and that of the noise "
        f"{noise:.3f}. Sampling runs in the other direction: it starts with noise alone and removes a little at each "
        "step, with a forward pass of the whole network every time."
    )
    left, right = st.columns([1, 1.15], gap="medium")
    with left:
        _draw_coefficients(example)
    with right:
        _draw_pair(example, image, noise)


def _draw_coefficients(example: Example) -> None:
    alphas_bar = example.alphas_bar
    half = int(np.abs(alphas_bar - 0.5).argmin())
    columns = {"timestep": range(len(alphas_bar)), "image": alphas_bar**0.5, "noise": (1 - alphas_bar) ** 0.5}
    title = f"Image and noise have equal coefficients at t = {half}"
    subtitle = "coefficients of x_t (Figure 7) · the loaded schedule"
    heading(title, subtitle, NOISE_HELP, partial(pd.DataFrame, columns), "coefficients", level=3)
    figure = coefficients(alphas_bar, example.e.timestep)
    chart(figure, "plot coefficients", "Diffusion coefficients", selects(x="timestep"))


def _draw_pair(example: Example, image: float, noise: float) -> None:
    e, as_noise = example.e, not example.predicts_image
    title = f"At t = {e.timestep}, the second image is the input and the third the target"
    heading(title, f"noisy image and target (Figure 8) · sample {example.sample}", PAIR_HELP, level=3)
    error = e.errors[-1]
    tiles = [
        Tile(image_png(e.clean), "clean image x₀", f"sample {example.sample} of the trace"),
        Tile(image_png(e.noisy), f"x_t at t = {e.timestep}", f"{image:.4f} × image + {noise:.4f} × noise"),
        Tile(image_png(e.target, as_noise), f"target: {example.target}", "training target of the network"),
        Tile(
            image_png(e.predictions[-1], as_noise),
            f"full network: û = {error:.3f}",
            f"its prediction; mean tanh|difference| = {error:.4f}",
        ),
    ]
    gallery("method noise", tiles, 4)
    st.caption("The same image and noise at other timesteps; click to select one:")
    row = []
    for t in np.linspace(len(example.alphas_bar) - 1, 0, TIMES).round().astype(int).tolist():
        a, b = example.alphas_bar[t] ** 0.5, (1 - example.alphas_bar[t]) ** 0.5
        noisy = (a * e.clean + b * e.noise).astype(np.float32)  # Eq. 1
        row.append(Tile(image_png(noisy), f"t = {t}", f"image × {a:.4f} + noise × {b:.4f}", number=t))
    gallery("method timesteps", row, len(row), on_pick=lambda t: select(timestep=t))
