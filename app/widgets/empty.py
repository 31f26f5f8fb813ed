"""Empty states: what is missing, a button that makes it in the queue, and the command that does the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from app.state import cache, session
from app.state.commands import calibrate_command, evaluate_command, sample_command
from app.widgets.panels import guarded
from app.widgets.waiting import polled
from deediff.runs import Run, list_runs
from deediff.settings import SamplingSettings
from deediff.traces.reader import Trace

if TYPE_CHECKING:
    from app.jobs.queue import Job

POLL = 1.0  # seconds between two checks of a job
THRESHOLD = "threshold:0.1"  # policy of the first trace of a run with exits


def offer(name: str, sentence: str, label: str, command: str, make: Callable[[], Sequence[Job]]) -> None:
    """What is missing, a button that submits the jobs that make it, their progress, and the command.

    `name` says what is made, such as the path of a trace: every tab shows the jobs of this name. The page is drawn
    again when the last one ends. A failure is shown here. The modules of jobs import torch, so `make` imports them.
    """
    if sentence:
        st.info(sentence)
    asked = st.session_state.setdefault(f"offered {name}", [])

    def draw() -> None:
        from app.widgets import job_list  # a job exists, so torch is loaded

        active = _active(name)
        for position, job in enumerate(active):
            job_list.draw_active(position, job)
        for job in asked:
            if job.status.state == "failed":
                st.error(job.status.error)

    if _active(name) or asked:
        polled(draw, lambda: bool(_active(name)), POLL)
    if not _active(name) and st.button(label, key=f"make {name}", icon=":material/play_arrow:"):
        with guarded():
            _submit(name, make())
            st.rerun()
    st.code(command, language="bash", wrap_lines=True)


def _active(name: str) -> list[Job]:
    from app.jobs.queue import QUEUE

    return [job for job in QUEUE.jobs() if job.purpose == name]


def _submit(name: str, jobs: Sequence[Job]) -> None:
    from app.widgets import job_list

    for job in jobs:
        job.purpose = name
        job_list.submit_job(job)
    st.session_state[f"offered {name}"] = list(jobs)


def offer_sampling(sentence: str, run: Run, settings: SamplingSettings, name: str) -> None:
    """Sample the newest checkpoint into a trace of this name."""
    out = run.path / "traces" / name
    images = f"{settings.num_samples:,} images"
    label = f"Record {images} in full" if settings.record == "full" else f"Sample {images}"

    def make() -> list[Job]:
        from app.jobs.kept import SaveJob

        return [SaveJob(session.this_tab(), run.path, run.checkpoints[-1], name, settings)]

    offer(str(out), sentence, label, sample_command(run.path, settings, out), make)


def offer_calibration(sentence: str, checkpoint: Path) -> None:
    """Compare u with the error on held-out images."""

    def make() -> list[Job]:
        from app.jobs.kept import CalibrateJob

        return [CalibrateJob(session.this_tab(), checkpoint)]

    offer(f"{checkpoint} calibration", sentence, "Calibrate", calibrate_command(checkpoint), make)


def offer_evaluation(sentence: str, traces: Sequence[Trace]) -> None:
    """Evaluate these traces; those without images are left out."""
    folders = [Path(str(trace.path)) for trace in traces if trace.image_parts]
    if not folders:
        st.info(f"{sentence} They hold no images, so they cannot be evaluated.")
        return

    def make() -> list[Job]:
        from app.jobs.kept import EvaluateJob

        return [EvaluateJob(session.this_tab(), folder) for folder in folders]

    label = f"Evaluate {len(folders)} trace{'s'[: len(folders) > 1]}"
    offer(f"{folders[0].parent} quality", sentence, label, evaluate_command(folders), make)


def no_runs() -> None:
    """The empty state of every page."""
    st.info(f"There is no readable run in {cache.runs_root()}. This command trains a small one:")
    st.code("python -m trainer.run mnist_tiny", language="bash")


def no_trace(run: Run) -> None:
    """The empty state of pages that draw traces; says so where the run has some and none can be read."""
    if run.traces:
        _, problems = cache.metas(run)
        st.error("  \n".join(problems) or f"No trace of {run.name} can be read.")
        return
    if not run.checkpoints:
        no_checkpoint(run, "it has no trace, and none can be sampled")
        return
    policy = THRESHOLD if run.has_exits else "never"
    name = f"ddim50-{policy.replace(':', '-')}"
    offer_sampling("This run has no trace yet.", run, SamplingSettings(policy=policy), name)


def no_exits(run: Run, trace: Trace | None) -> None:
    """No trace with exits has the steps of this one."""
    settings = SamplingSettings() if trace is None or trace.meta.settings is None else trace.meta.settings
    plain = replace(settings, policy=THRESHOLD, record="exit", deviations=False, plan=None)
    sentence = "No trace of this run with the steps of trace A exits early."
    offer_sampling(sentence, run, plain, f"{plain.solver}{plain.steps}-{THRESHOLD.replace(':', '-')}")


def no_measurement(run: Run, trace: Trace, threshold: float) -> None:
    """No trace of the noise of this one was sampled at a threshold."""
    sentence = (
        "The error of the estimate is unknown: no trace of this run was sampled at a threshold with this solver and "
        "these steps."
    )
    settings = trace.meta.settings
    if settings is None or not run.checkpoints:
        st.info(sentence)
        return
    policy = f"threshold:{threshold:g}"
    plain = replace(settings, policy=policy, record="exit", deviations=False, plan=None)
    offer_sampling(sentence, run, plain, f"{plain.solver}{plain.steps}-{policy.replace(':', '-')}-seed{plain.seed}")


def no_full_record(run: Run, trace: Trace) -> None:
    """A trace that answers no threshold: the same noise, recorded in full, does."""
    settings = trace.meta.settings
    if settings is None or settings.plan is not None or not run.has_exits or not run.checkpoints:
        return
    full = replace(settings, policy="never", record="full")
    name = f"{full.solver}{full.steps}-never-full-seed{full.seed}"
    if not (run.path / "traces" / name).exists():
        offer_sampling("", run, full, name)


def no_checkpoint(run: Run, so: str) -> None:
    """The empty state of pages that need a model; `so` names the consequence."""
    others = [other.name for other in list_runs(cache.runs_root())[0] if other.checkpoints]
    say = f"This run has no checkpoint, so {so}. Copy its weights into {run.path / 'checkpoints'}"
    if others:
        st.info(f"{say}, or choose a run that has some: {', '.join(others)}.")
        return
    st.info(f"{say}. This command trains a small model:")
    st.code("python -m trainer.run mnist_tiny", language="bash")
