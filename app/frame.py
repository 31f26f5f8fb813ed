"""What stands around every page: the sidebar with the selection, one line of figures, and what was wrong."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

import data
import link
import selection
from deediff.runs import Run, list_runs
from deediff.traces.reader import Trace
from measured import figures_of, percent, signed
from panels import guarded

__all__ = ["around", "current", "no_trace", "percent", "signed"]


def around(page: StreamlitPage) -> None:
    """Draw the frame, then the page."""
    chosen: selection.Selection | None = None
    problems: list[str] = []
    with st.sidebar, guarded():
        chosen, problems = selection.choose()
    above = st.container()
    if chosen is None:
        _no_runs()
    else:
        st.session_state["selection"] = chosen
        if chosen.trace is not None:
            with guarded():
                _figures_line(chosen.trace, chosen)
        page.run()
    if sentences := dict.fromkeys([*problems, *link.complaints()]):  # the page may have found more
        above.warning("  \n".join(sentences))


def current() -> selection.Selection:
    """The selection that the frame made in this run of the script."""
    return st.session_state["selection"]


def _no_runs() -> None:
    st.info(f"There is no readable run in {data.runs_root()}. This command trains a small one:")
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
    """The empty state of what needs a model: `so` says what cannot be done."""
    others = [other.name for other in list_runs(data.runs_root())[0] if other.checkpoints]
    say = f"This run has no checkpoint, so {so}. Copy its weights into {run.path / 'checkpoints'}"
    if others:
        st.info(f"{say}, or choose a run that has some: {', '.join(others)}.")
        return
    st.info(f"{say}. This command trains a small model:")
    st.code("python -m trainer.run mnist_tiny", language="bash")


def _figures_line(trace: Trace, chosen: selection.Selection) -> None:
    """Measured figures of trace A, and of B where there is one."""
    others = [chosen.other] if chosen.other is not None else []
    comparable = [*chosen.siblings, trace, *others]
    a = figures_of(trace, comparable)
    b = figures_of(others[0], comparable) if others else None
    with st.container(horizontal=True, key="figures", gap="medium"):
        st.caption(f"**A, measured**  \nN = {int(trace.summary.samples):,}", width="content")
        for k, figure in enumerate(a):
            delta = figure.beside(b[k]) if b is not None else None
            how = f"Measured. {figure.help}"
            st.metric(
                figure.label, figure.shown, delta, delta_color="off", delta_arrow="off", help=how, width="content"
            )  # fmt: skip
