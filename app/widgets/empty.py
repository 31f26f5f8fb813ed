"""Empty states: the missing file, and the command that makes it."""

from __future__ import annotations

import streamlit as st

from app.state import cache
from deediff.runs import Run, list_runs


def no_runs() -> None:
    """The empty state of every page."""
    st.info(f"There is no readable run in {cache.runs_root()}. This command trains a small one:")
    st.code("python -m trainer.run mnist_tiny", language="bash")


def no_trace(run: Run) -> None:
    """The empty state of pages that draw traces."""
    st.info("This run has no trace yet. This command samples one:")
    policy = "threshold:0.1" if run.has_exits else "never"
    out = run.path / "traces" / f"ddim50-{policy.replace(':', '-')}"
    st.code(
        f"deediff sample {run.path} --policy {policy} --solver ddim --steps 50 --num-samples 64 --out {out}",
        language="bash",
    )


def no_checkpoint(run: Run, so: str) -> None:
    """The empty state of pages that need a model; `so` names the consequence."""
    others = [other.name for other in list_runs(cache.runs_root())[0] if other.checkpoints]
    say = f"This run has no checkpoint, so {so}. Copy its weights into {run.path / 'checkpoints'}"
    if others:
        st.info(f"{say}, or choose a run that has some: {', '.join(others)}.")
        return
    st.info(f"{say}. This command trains a small model:")
    st.code("python -m trainer.run mnist_tiny", language="bash")
