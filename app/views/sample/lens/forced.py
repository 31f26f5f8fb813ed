"""What one exit costs this image: the sample as it was, beside the same with one decision changed."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.views.sample.lens import choices, picture
from app.views.sample.lens.compute import Counterfactual, FilmedSide, Source, counterfactual_of
from app.widgets import gallery
from app.widgets.films.player import Pair, Reel, player, wipe, wipe_images, wiping
from app.widgets.image_difference import AMPLIFY, image_difference
from app.widgets.panels import heading
from deediff.analysis.trajectory import ExitChoice
from deediff.errors import UserError

HELP = (
    "The same noise and the same policy, with one decision changed (closed loop): the steps before are equal, and "
    "after it the policy decides anew, from another x_t. GFLOPs are those of the exits that were run, UEMs included."
)


def draw_forced(source: Source, step: int, choice: ExitChoice) -> None:
    """Both films and both images, once they are sampled."""
    timesteps, name = source.trace.timesteps, picture.choice_name(choice, source.model.num_blocks)
    try:
        found = counterfactual_of(source, step, choice)
    except UserError as error:
        st.info(f"This exit cannot be forced: {error}.")
        found = None
    if found is None:
        st.button("Close", key="forced close", on_click=choices.release)
        return
    saved = found.sampled.gflops - found.forced.gflops
    cost = "the cost stays" if abs(saved) < 5e-4 else f"{abs(saved):.3f} GFLOPs {'saved' if saved > 0 else 'more'}"
    changed = int((found.sampled.exit_layers != found.forced.exit_layers)[step + 1 :].sum())
    later = (
        "no later exit changes"
        if not changed
        else f"{changed} later exits change"
        if changed > 1
        else "1 later exit changes"
    )
    if found.distance == 0:
        title = f"Leaving by {name} at t = {timesteps[step]} changes nothing: the sampling did so anyway"
    else:
        title = (
            f"Leaving by {name} at t = {timesteps[step]} changes the image by {found.distance:.2f} grey levels (RMS)"
        )
    subtitle = (
        f"measured · sample {source.number}, step {step} of {len(timesteps)} · {cost} "
        f"({found.sampled.gflops:.3f} → {found.forced.gflops:.3f} GFLOPs per image) · {later}"
    )
    with st.container(key="forced"):
        head, button = st.columns([6, 1], vertical_alignment="center")
        with head:
            heading(title, subtitle, HELP)
        button.button("Close", key="forced close", on_click=choices.release, width="stretch")
        _draw_sides(source, found, step, name)


def _draw_sides(source: Source, found: Counterfactual, step: int, name: str) -> None:
    timesteps = source.trace.timesteps
    sides = {"As sampled": found.sampled, f"Leaving by {name}": found.forced}
    times = [timesteps[s] for s in found.steps]
    left, right = st.columns([3, 4], gap="medium")
    with left:
        difference, change = image_difference(found.forced.film, found.sampled.film)
        reels = [
            Reel(title, side.film, [f"t = {t} · {layer}" for t, layer in zip(times, exits, strict=True)], times)
            for title, side in sides.items()
            for exits in [_exits(side, found.steps)]
        ]
        delta = [f"t = {t} · Δ {value:.1f}" for t, value in zip(times, change, strict=True)]
        if wiping():
            wipe("forced wipe", *reels)
        else:
            player("forced player", [*reels, Reel(f"Difference × {AMPLIFY}", difference, delta, times)])
        picture_of, _ = image_difference(found.forced.image, found.sampled.image)
        images = [*(side.image for side in sides.values()), picture_of]
        st.caption("Final images")
        titles = [*sides, f"Difference × {AMPLIFY}"]
        tiles = [gallery.Tile(gallery.encode(i), title, title) for i, title in zip(images, titles, strict=True)]
        if wiping():
            a, b = (tile.png for tile in tiles[:2])
            wipe_images("forced wiped images", (titles[0], titles[1]), [Pair(a, b)], columns=1)
        else:
            gallery.gallery("forced images", tiles, columns=3)
    with right:
        for row, (title, side) in enumerate(sides.items()):
            st.caption(f"{title}: x̂₀ over time, with its exit layers")
            captions = _exits(side, found.steps)
            tiles = [
                gallery.Tile(gallery.encode(image), f"{t} · {layer}", f"t = {t}, {caption}", number=s)
                for image, t, s, layer, caption in zip(
                    side.film,
                    [timesteps[s] for s in found.steps],
                    found.steps,
                    side.exit_layers[list(found.steps)],
                    captions,
                    strict=True,
                )
            ]
            gallery.gallery(f"forced film {row}", tiles, columns=6, chosen=step)


def _exits(side: FilmedSide, steps: tuple[int, ...]) -> list[str]:
    return [f"exit {layer}" for layer in np.asarray(side.exit_layers)[list(steps)]]
