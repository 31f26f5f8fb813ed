"""What to measure of a trace's images and against which real ones: asked wherever an evaluation is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.jobs.kept import EvaluateJob
from app.state import session
from app.widgets import job_list

METRICS, REFERENCE = "metrics", "reference"  # session keys
METRICS_HELP = (
    "*fd-mnist* and *fd-cifar* (Fréchet distance and KID) and their *prc* (precision and recall) use features of small "
    "classifiers that ship: compare them with themselves only. *fid*, *kid*, *cmmd* and *prc* use pretrained networks, "
    "whose weights are looked for on the server and else downloaded."
)
REFERENCE_HELP = (
    "cifar10-train, mnist-test, …, or a folder of images on the server. Of a named data set the floor is that of the "
    "other split."
)


@dataclass(frozen=True)
class Wish:
    """How to evaluate."""

    metrics: tuple[str, ...] = ()  # none: fd-mnist or fd-cifar, whichever fits
    reference: str | None = None  # None: the images that the run was trained on


def choose() -> None:
    """The widgets."""
    with st.spinner("Looking what can be measured …"):
        from deediff.quality.metrics import METRICS as KNOWN  # brings torch, which the page of runs does without
    st.multiselect(
        "Metrics", list(KNOWN), key=METRICS, persist_state="session",
        placeholder="fd-mnist or fd-cifar, whichever fits", help=METRICS_HELP,
    )  # fmt: skip
    st.text_input(
        "Real images", key=REFERENCE, persist_state="session", placeholder="those that the run was trained on",
        help=REFERENCE_HELP,
    )  # fmt: skip
    for sentence in missing_weights(chosen().metrics):
        st.caption(f":material/download: {sentence}")


def chosen() -> Wish:
    """What the widgets say, or said on another page."""
    metrics, reference = st.session_state.get(METRICS, []), st.session_state.get(REFERENCE, "")
    return Wish(tuple(metrics), reference.strip() or None)


def submit(folders: Sequence[Path]) -> None:
    """An evaluation for each of these traces, as chosen."""
    wish = chosen()
    for folder in folders:
        job_list.submit(EvaluateJob(session.current(), folder, wish.reference, wish.metrics))


def missing_weights(metrics: Sequence[str]) -> list[str]:
    """One sentence for each pretrained network that these metrics need and this machine has not."""
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
                f"{users}: the weights of {name} are not on the server, which will try to download them. Where it may "
                f"not, put [{PRETRAINED[name].file}]({PRETRAINED[name].url}) into `{folder}`."
            )
    return sentences


@st.dialog("Evaluate")
def ask(folders: Sequence[Path]) -> None:
    """On *Runs*."""
    st.caption(f"{', '.join(folder.name for folder in folders)}: measured in the background, one after the other.")
    choose()
    if st.button("Evaluate", type="primary", key="start evaluation"):
        submit(folders)
        st.rerun()
