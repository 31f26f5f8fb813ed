"""Features of a trace's images, for maps and neighbours: computed when asked for, then cached."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.jobs.results import Stopped
from app.state import cache
from app.widgets import waiting
from deediff.traces.reader import Trace

if TYPE_CHECKING:
    from deediff.analysis.neighbours import EmbeddedImages
    from deediff.quality.extractors import Extractor


def trace_features(trace: Trace) -> tuple[EmbeddedImages, Extractor, tuple[int, int]]:
    """Of all its samples, with the extractor and the images' (channels, pixels per side). Raises UserError.

    The script may wait for it, as for every `waiting.result`.
    """
    folder = Path(str(trace.path))
    key = ("image features", folder, cache.stamp(cache.get_trace(folder)))

    def compute(stopped: Stopped) -> tuple[EmbeddedImages, Extractor, tuple[int, int]]:
        from deediff.analysis.neighbours import embed_trace, extractor_for
        from deediff.quality.image_sets import TraceImages
        from deediff.quality.progress import Progress

        whole = cache.get_trace(folder)
        shape = TraceImages(whole).shape
        extractor = extractor_for(shape)
        return embed_trace(whole, extractor, Progress(cancelled=stopped)), extractor, shape

    found: tuple[EmbeddedImages, Extractor, tuple[int, int]] = waiting.result(
        "image features", key, compute, f"Features of the images of {folder.name}, once …"
    )
    return found


def projected(trace: Trace) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Sample numbers (n,), principal components (n, 2), and their shares of the variance (2,)."""
    from deediff.analysis.neighbours import principal_axes

    images, _, _ = trace_features(trace)
    return images.numbers, *principal_axes(images.features)
