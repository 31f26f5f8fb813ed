"""The images nearest to this one, of the same trace and of the training images, in the metric's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.jobs.results import Stopped
from app.state.selection import Selection, select
from app.state.traces import why_no_images
from app.views.sample.stored import number_of, stored_image
from app.widgets import gallery, inputs, waiting
from app.widgets.panels import Panel, heading
from app.widgets.samples.features import trace_features
from deediff.errors import UserError

if TYPE_CHECKING:
    from deediff.analysis.neighbours import EmbeddedImages
    from deediff.quality.extractors import Extractor
    from deediff.quality.image_sets import RealImages

COUNT = 8  # neighbours of each kind
ALL = "neighbours_all"  # in the URL as in the session: among all training images, not only those that ship
Numbers = NDArray[np.int64]
Distances = NDArray[np.float64]
Shape = tuple[int, int]  # channels, pixels per side
HELP = (
    "Euclidean distance in the features of the extractor: alike to the metric's network, not equal pixels. A training "
    "image much nearer than those of held-out real images suggests that this image is memorised. Click a generated "
    "image to select it."
)


def _draw(selected: Selection) -> None:
    trace, number = selected.trace, number_of(selected)
    assert trace is not None
    whole, extractor, shape = trace_features(trace)
    at = np.flatnonzero(whole.numbers == number)
    if not len(at):
        st.info(f"Sample {number} has no image. {why_no_images(trace)}")
        return
    mine = whole.features[at[0]]
    numbers, distances = whole.nearest(mine, COUNT, without=[number])
    real, images, problem = _reference(selected, extractor, shape)
    tables = [_table("generated", numbers, distances)]
    title = f"The nearest of {len(whole.numbers) - 1:,} other generated images is at {distances[0]:.3g}" * len(numbers)
    if real is not None:
        near, away = real.nearest(mine, COUNT)
        usual = _held_out(real.name, len(real.numbers), real, shape, extractor)
        title = finding(float(away[0]), float(distances[0]) if len(distances) else None, usual)
        tables.append(_table("real", near, away))
    title = title or "There is no other image to compare with"
    subtitle = f"sample {number} of {trace.path.name} · distances in the features of {extractor.name}"
    heading(title, subtitle, HELP, lambda: pd.concat(tables, ignore_index=True), "neighbours")
    with st.container(key="neighbours_generated"):
        st.caption(f"This image, and the nearest of the {len(whole.numbers):,} generated ones of this trace")
        own = stored_image(trace, number)
        assert own is not None
        tiles = [gallery.Tile(gallery.encode(own), f"{number} · this", f"sample {number}", number=number)]
        pngs = trace.samples([int(k) for k in numbers]).set_index("sample")["png"]
        tiles += [
            gallery.Tile(pngs[k], f"{k} · {d:.3g}", f"sample {k}, distance {d:.4g}", number=int(k))
            for k, d in zip(numbers, distances, strict=True)
        ]
        gallery.gallery("generated neighbours", tiles, chosen=number, on_pick=lambda k: select(sample=k))
    if problem:
        st.info(problem)
    if real is not None:
        _draw_real(real, images, near, away)


def finding(real: float, generated: float | None, held_out: Distances) -> str:
    """What the nearness says, in one sentence; `held_out`: the same distance of real images, where known."""
    beside = "" if generated is None else f", the nearest generated one at {generated:.3g}"
    if not len(held_out):
        return f"The nearest training image is at {real:.3g}{beside}"
    share = float((held_out < real).mean())
    verdict = "suspiciously near" if share < 0.01 else "rather near" if share < 0.05 else "no sign of memorisation"
    return (
        f"The nearest training image is at {real:.3g}: {verdict}, {share:.0%} of test images have a nearer one{beside}"
    )


def _table(kind: str, numbers: Numbers, distances: Distances) -> pd.DataFrame:
    return pd.DataFrame({"kind": kind, "number": numbers, "distance": distances})


@st.cache_resource(max_entries=4, show_spinner=False)
def _held_out(name: str, count: int, _real: EmbeddedImages, shape: Shape, _extractor: Extractor) -> Distances:
    from deediff.analysis.neighbours import held_out_distances

    return held_out_distances(_real, shape, _extractor)


def _reference(
    selected: Selection, extractor: Extractor, shape: Shape
) -> tuple[EmbeddedImages | None, RealImages | None, str]:
    """Features of training images, the images, and a sentence where these cannot be searched or shown."""
    from deediff.analysis.neighbours import shipped_real, training_set

    name = training_set(selected.run.path)
    if name is None:
        return (
            None,
            None,
            f"{selected.run.name} names no training images that are here: only generated ones are compared.",
        )
    shipped = shipped_real(name, shape, extractor)
    try:
        images = _training_images(name, shape)
    except UserError as error:
        only = "only generated ones are compared" if shipped is None else "the nearest are given by number alone"
        return shipped, None, f"{error}. Until then {only}."
    label = f"Among all {len(images):,} training images"
    some = "" if shipped is None else f"Otherwise among {len(shipped.numbers):,}, drawn at random, which need no time. "
    help_text = f"{some}Features of all images are computed once, which takes minutes on a CPU, and then cached."
    if inputs.toggle(label, ALL, shipped is None, help=help_text):
        return _all_features(images, extractor), images, ""
    return shipped, images, "" if shipped is not None else f"Turn on “{label}” to compare with them, too."


def _all_features(images: RealImages, extractor: Extractor) -> EmbeddedImages:
    def compute(stopped: Stopped) -> EmbeddedImages:
        from deediff.analysis.neighbours import embed_real
        from deediff.quality.progress import Progress

        return embed_real(images, extractor, Progress(cancelled=stopped))

    text = f"Features of {len(images):,} training images, once …"
    found: EmbeddedImages = waiting.result("training features", (images.name, extractor.key), compute, text)
    return found


@st.cache_resource(max_entries=2, show_spinner="Reading the training images …")
def _training_images(name: str, shape: Shape) -> RealImages:
    from deediff.analysis.neighbours import training_images_here

    return training_images_here(name, shape)


def _draw_real(real: EmbeddedImages, images: RealImages | None, numbers: Numbers, distances: Distances) -> None:
    """The nearest training images, or their numbers where the images are not here."""
    import torch

    with st.container(key="neighbours_real"):
        st.caption(f"The nearest of {len(real.numbers):,} of the {real.total:,} images of {real.name}")
        if images is None:
            st.markdown(" · ".join(f"{k}: {d:.3g}" for k, d in zip(numbers, distances, strict=True)))
            return
        tiles = [
            gallery.Tile(gallery.encode(image), f"{k} · {d:.3g}", f"{real.name} {k}, distance {d:.4g}")
            for image, k, d in zip(images.images[torch.as_tensor(numbers)].numpy(), numbers, distances, strict=True)
        ]
        gallery.gallery("real neighbours", tiles)


NEIGHBOURS = Panel("neighbours", _draw)
