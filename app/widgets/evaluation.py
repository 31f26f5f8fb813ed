"""Which metrics to compute of a trace's images, and against which real images; and the jobs that do it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app.jobs.kept import EvaluateJob
from app.state import session
from app.widgets.job_list import submit_job

METRICS, REFERENCE = "metrics", "reference"  # session keys
METRICS_HELP = (
    "*fd-mnist* and *fd-cifar* (Fréchet distance and KID) and their *prc* (precision and recall) use features of small "
    "classifiers that are included: compare them with themselves only. *fid*, *kid*, *cmmd* and *prc* use pretrained "
    "networks, whose weights are read on the server or else downloaded."
)
REFERENCE_HELP = (
    "cifar10-train, mnist-test, …, or a folder of images on the server. For a named data set the floor is that of the "
    "other split."
)


def choose_evaluation() -> None:
    """The widgets."""
    with st.spinner("Reading the list of metrics …"):
        from deediff.quality.metrics import METRICS as KNOWN  # imports torch, which the page of runs does without
    st.multiselect(
        "Metrics",
        list(KNOWN),
        key=METRICS,
        persist_state="session",
        placeholder="fd-mnist or fd-cifar, by data set",
        help=METRICS_HELP,
    )
    placeholder = "the run's training images"
    st.text_input("Real images", key=REFERENCE, persist_state="session", placeholder=placeholder, help=REFERENCE_HELP)
    for sentence in missing_weights(chosen_evaluation()[0]):
        st.caption(f":material/download: {sentence}")


def chosen_evaluation() -> tuple[tuple[str, ...], str | None]:
    """Metrics and reference, also where the widgets are on another page.

    No metrics: fd-mnist or fd-cifar, by data set. No reference: the run's training images.
    """
    metrics, reference = st.session_state.get(METRICS, []), st.session_state.get(REFERENCE, "")
    return tuple(metrics), reference.strip() or None


def evaluate_traces(folders: Sequence[Path]) -> None:
    """Submit an evaluation of each of these traces."""
    metrics, reference = chosen_evaluation()
    for folder in folders:
        submit_job(EvaluateJob(session.this_tab(), folder, reference, metrics))


def missing_weights(metrics: Sequence[str]) -> list[str]:
    """One sentence for each pretrained network that these metrics need and this machine lacks."""
    if not metrics:
        return []
    import torch

    from deediff.quality.extractors import PRETRAINED
    from deediff.quality.metrics import METRICS as KNOWN

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    sentences = []
    for name in dict.fromkeys(KNOWN[metric].extractor for metric in metrics):
        if name in PRETRAINED and not (folder / PRETRAINED[name].file).is_file():
            users = ", ".join(metric for metric in metrics if KNOWN[metric].extractor == name)
            sentences.append(
                f"{users}: the weights of {name} are not on the server, which will try to download them. If that is "
                f"not possible, put [{PRETRAINED[name].file}]({PRETRAINED[name].url}) into `{folder}`."
            )
    return sentences


@st.dialog("Evaluate")
def evaluation_dialog(folders: Sequence[Path]) -> None:
    """Opened on *Runs*."""
    st.caption(f"{', '.join(folder.name for folder in folders)}: evaluated in the background, one after the other.")
    choose_evaluation()
    if st.button("Evaluate", type="primary", key="start evaluation"):
        evaluate_traces(folders)
        st.rerun()
