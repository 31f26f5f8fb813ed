"""By how much exits change the images of a trace: thousands of PNGs are compared, so in the background."""

from __future__ import annotations

import logging
from functools import partial

from app.jobs.results import Results, Stopped
from deediff.analysis.compare import image_change
from deediff.errors import UserError
from deediff.traces.reader import Trace

CHANGES = Results("image changes", 10_000)
Key = tuple[str, str, int, int]  # both folders, and when they were last written


def known_change(trace: Trace, full: Trace) -> float | None:
    """Mean |difference| in grey levels, 0 … 255; None until it is known, and where there are no images.

    The first call starts the computation.
    """
    if trace.path == full.path:
        return 0.0
    computation = CHANGES.request(_key(trace, full), f"change of {trace.path.name}", partial(_compute, trace, full))
    return None if computation.status.active else computation.value


def is_known(trace: Trace, full: Trace) -> bool:
    """Whether `known_change` is final; starts the computation."""
    known_change(trace, full)
    return trace.path == full.path or CHANGES.is_known(_key(trace, full))


def _key(trace: Trace, full: Trace) -> Key:
    return str(trace.path), str(full.path), trace.path.stat().st_mtime_ns, full.path.stat().st_mtime_ns


def _compute(trace: Trace, full: Trace, stopped: Stopped) -> float | None:
    try:
        return image_change(trace, full)
    except (UserError, OSError) as error:  # a damaged image: the table leaves its cell empty
        logging.getLogger(__name__).warning("no change of %s from %s: %s", trace.path, full.path, error)
        return None
