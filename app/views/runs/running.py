"""What runs at this moment, found in the folder of runs: trainings and samplings of any process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import streamlit as st

from app.jobs.queue import QUEUE
from app.state import cache
from app.state.selection import Selection
from app.views.runs import inventory
from app.views.runs.figures import training_curves
from app.widgets import gallery
from app.widgets.panels import Panel, heading
from app.widgets.plot import chart
from app.widgets.waiting import polled
from deediff.errors import UserError
from deediff.runs import Run, is_fresh, is_training, list_runs

POLL = 2.0  # seconds between two looks while something runs
GRIDS, IMAGES = 6, 16  # of a training: its latest grids; of a sampling: its first images
HELP = (
    "Trainings and samplings that write into this folder, also those started elsewhere: a training by the rows of its "
    "metrics.parquet and its sample grids, a sampling by its complete parts."
)


@dataclass(frozen=True)
class Running:
    """Runs in training, and folders of traces that are being sampled."""

    trainings: Sequence[Run]
    samplings: Sequence[Path]

    def __bool__(self) -> bool:
        return bool(self.trainings or self.samplings)


def find_running() -> Running:
    """From the files as they are now; the jobs of this explorer's queue are left out, which are listed with it."""
    runs = list_runs(cache.runs_root())[0]
    own = {getattr(job, "folder", None) for job in QUEUE.jobs()}
    growing = [
        run.path / "traces" / name
        for run in runs
        for name, meta in cache.metas(run)[0].items()
        if not meta.complete and not meta.imported
    ]
    return Running(
        [run for run in runs if is_training(run)],
        [folder for folder in growing if folder not in own and is_fresh(folder)],
    )


def running_panel(chosen: Sequence[Run]) -> Panel:
    """`chosen` are the ticked runs, whose curves are below."""
    return Panel("running", partial(_draw_polled, chosen))


def _draw_polled(chosen: Sequence[Run], selected: Selection) -> None:
    polled(partial(_draw, {run.name for run in chosen}), lambda: bool(find_running()), POLL)


def _draw(chosen: set[str]) -> None:
    running = find_running()
    if not running:
        return
    counts = [(len(running.trainings), "training"), (len(running.samplings), "sampling")]
    words = " and ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in counts if count)
    single = sum(count for count, _ in counts) == 1
    heading(f"{words} {'is' if single else 'are'} running", "updates by itself", HELP)
    for run in running.trainings:
        curve = inventory.read_curves([run], []).get(run.name)
        _draw_training(run, curve)
        if run.name not in chosen:
            if curve is not None and len(curve):
                shown = {run.name: inventory.thinned(curve)}
                about = f"training of {run.name}"
                chart(training_curves(shown, inventory.LOSSES), f"plot training {run.name}", about, about=about)
            draw_grids(run)
    for folder in running.samplings:
        _draw_sampling(folder)


def _draw_training(run: Run, curve: pd.DataFrame | None) -> None:
    """From the last logged step."""
    planned = inventory.steps_planned(run)
    if curve is None or not len(curve):
        st.caption(f":material/hourglass_top: {run.name} is starting; no losses have been logged yet.")
        return
    last = curve.iloc[-1]
    step, rate = int(last["step"]), float(last.get("images_per_second", float("nan")))
    text = f"**{run.name}** trains: {last['stage']}, step {step:,}" + (f" of {planned:,}" if planned else "")
    text += f" · loss {last['loss_total']:.4g}" + (f" · {rate:,.0f} images/s" if rate == rate else "")
    st.progress(min(1.0, step / planned) if planned else 0.0, text)


def draw_grids(run: Run) -> None:
    """The latest sample grids of a training; nothing where there are none."""
    files = [file for file in (run.path / "samples").glob("*.png") if file.stem.isdigit()]
    latest = sorted(files, key=lambda file: int(file.stem))[-GRIDS:]
    tiles = []
    for file in latest:
        label = f"step {int(file.stem):,}"
        tiles.append(gallery.Tile(file.read_bytes(), label, f"{run.name}, {label}: 16 images of the averaged weights"))
    if tiles:
        gallery.gallery(f"grids {run.name}", tiles, GRIDS)


def _draw_sampling(folder: Path) -> None:
    """Progress by complete parts, and the first images."""
    name = f"{folder.parents[1].name}/{folder.name}"
    try:
        trace = cache.get_trace(folder)
        total = trace.meta.num_samples
        done = min(total, len(trace.parts) * (trace.meta.batch_size or total))
        text = f"**{name}** is sampled: {done:,} of {total:,} images"
        if trace.parts:
            text += f" · layer ratio {trace.cost.layer_ratio(trace.summary.exits):.3f} so far"
        st.progress(done / total, text)
        images = trace.images(range(IMAGES)) if trace.parts else []
    except UserError as error:  # a part that is replaced at this moment
        st.caption(str(error))
        return
    if images:
        tiles = [gallery.Tile(png, f"{k}", f"{name}, image {k}") for k, png in enumerate(images)]
        gallery.gallery(f"growing {name}", tiles)
