"""The per-process cache: runs, traces, models and calibrations, opened once for all sessions.

Torch is imported only with a model, so the first page does not wait for it.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.runs import Run
from deediff.traces.cohort import Cohort
from deediff.traces.meta import TraceMeta, read_meta
from deediff.traces.reader import Trace, read_trace

if TYPE_CHECKING:
    from deediff.calibration.file import Calibration
    from deediff.diffusion.schedule import Schedule
    from deediff.models import EarlyExitModel


def runs_root() -> Path:
    """The folder of runs: $DEEDIFF_RUNS, else `runs` beside `app/`."""
    return Path(os.environ.get("DEEDIFF_RUNS") or Path(__file__).resolve().parents[2] / "runs")


def get_trace(folder: Path) -> Trace:
    """A trace, read again only when its folder has changed. Raises UserError."""
    return _trace(folder, _stamp(folder))


def stamp(trace: Trace) -> int:
    """Changes with the trace's folder, and with the samples it is limited to; for cache keys."""
    numbers = trace.numbers.tobytes() if isinstance(trace, Cohort) else b""
    return hash((_stamp(Path(str(trace.path))), numbers))


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        return folder.stat().st_mtime_ns, (folder / "trace.json").stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{folder} cannot be opened ({error.strerror}): reload the page") from None


@lru_cache(32)  # more than any page opens; Streamlit's cache would hash the key for as long as a slider may take
def _trace(folder: Path, stamp: tuple[int, int]) -> Trace:
    return read_trace(folder)


def sample_rows(trace: Trace, number: int) -> tuple[NDArray[np.int8], NDArray[np.float32] | None] | None:
    """Exit layers (S,) and u (S,N) of one sample, from the rows; None where the trace lacks them."""
    return _rows(trace, stamp(trace), number)


@st.cache_data(max_entries=64, show_spinner=False)
def _rows(_trace: Trace, stamp: int, number: int) -> tuple[NDArray[np.int8], NDArray[np.float32] | None] | None:
    rows = _trace.to_pandas(slice(number, number + 1))
    if rows.empty:
        return None
    u = np.stack(rows["uncertainty"].to_list()) if _trace.meta.has_uncertainty else None
    return rows["exit_layer"].to_numpy(), u


def get_model(checkpoint: Path) -> tuple[EarlyExitModel, Schedule]:
    """A model ready to sample, on the GPU where there is one. Raises UserError."""
    try:
        stamp = checkpoint.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"{checkpoint} cannot be opened ({error.strerror}): choose another checkpoint") from None
    return _model(checkpoint, stamp)


@st.cache_resource(max_entries=2, show_spinner="Loading the checkpoint …")
def _model(checkpoint: Path, stamp: int) -> tuple[EarlyExitModel, Schedule]:
    import torch

    from deediff.checkpoints import load_checkpoint
    from deediff.diffusion.schedule import Schedule

    model, info = load_checkpoint(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")
    return model, Schedule(**info["schedule"])


def get_calibration(checkpoint: Path) -> Calibration | None:
    """The calibration beside a checkpoint, or None. Raises UserError when it belongs to other weights."""
    from deediff.calibration.file import calibration_file

    file = calibration_file(checkpoint)
    if not file.exists():
        return None
    calibration = _calibration(file, file.stat().st_mtime_ns)
    sha256 = read_json(checkpoint.with_suffix(".json")).get("sha256")
    if calibration.info.get("checkpoint_sha256") != sha256:
        raise UserError(f"{file} belongs to other weights: run 'deediff calibrate {checkpoint}' again")
    return calibration


@st.cache_resource(max_entries=4, show_spinner="Reading the calibration …")
def _calibration(file: Path, stamp: int) -> Calibration:
    from deediff.calibration.file import Calibration

    return Calibration.load(file)


def metas(run: Run) -> tuple[dict[str, TraceMeta], list[str]]:
    """trace.json of every readable trace of a run, by name; and a sentence for each of the others.

    Traces that answer every threshold come first, so that the explorer opens on one of them.
    """
    found, problems = {}, []
    for folder in run.traces:
        try:
            found[folder.name] = _meta(folder, _stamp(folder))
        except UserError as error:
            problems.append(str(error))
    best_first = sorted(found, key=lambda name: (not _answers_all(found[name]), name))
    return {name: found[name] for name in best_first}, problems


@lru_cache(1024)
def _meta(folder: Path, stamp: tuple[int, int]) -> TraceMeta:
    return read_meta(folder / "trace.json")


def _answers_all(meta: TraceMeta) -> bool:
    return meta.has_uncertainty and meta.record == "full"
