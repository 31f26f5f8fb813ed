"""What stands around every page: the sidebar with the selection, one line of figures, and what was wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

import data
import selection
from deediff.traces.reader import Trace
from panels import guarded

STYLE = """
<style>
.stMainBlockContainer {padding: 3.2rem 3rem 2rem;}
.st-key-figures, .st-key-estimate, .st-key-live_figures {gap: 0.3rem 2rem !important;}
@media (max-width: 1150px) {
  .stMainBlockContainer {padding: 3.2rem 1.5rem 2rem;}
  .st-key-figures, .st-key-estimate, .st-key-live_figures {gap: 0.3rem 1.2rem !important;}
  [class*="st-key-panels"] [data-testid="stHorizontalBlock"],
  .st-key-live > div > [data-testid="stHorizontalBlock"] {flex-wrap: wrap;}
  [class*="st-key-panels"] [data-testid="stColumn"],
  .st-key-live > div > div > [data-testid="stColumn"] {min-width: 100%;}
}
[class*="st-key-panels"] [data-testid="stColumn"] [data-testid="stVerticalBlock"] {gap: 0.35rem;}
.gallery {display: grid; gap: 10px 8px;}
.gallery figure {margin: 0; min-width: 0;}
.gallery img {display: block; width: 100%; image-rendering: pixelated; border-radius: 2px;}
.gallery .strip {height: 9px; margin-top: 2px;}
.gallery figcaption {font-size: 0.75rem; line-height: 1.25; opacity: 0.8; text-align: center; white-space: nowrap;}
</style>
"""


def around(page: StreamlitPage) -> None:
    """Draw the frame, then the page."""
    st.html(STYLE)
    chosen: selection.Selection | None = None
    problems: list[str] = []
    with st.sidebar, guarded():
        chosen, problems = selection.choose()
    if problems:
        st.warning("  \n".join(dict.fromkeys(problems)))
    if chosen is None:
        _no_runs()
        return
    st.session_state["selection"] = chosen
    if chosen.trace is not None:
        with guarded():
            _figures_line(chosen.trace, chosen)
    page.run()


def current() -> selection.Selection:
    """The selection that the frame made in this run of the script."""
    return st.session_state["selection"]


def _no_runs() -> None:
    st.info(f"There is no readable run in {data.runs_root()}. This command trains a small one:")
    st.code("python -m trainer.run mnist_tiny", language="bash")


def no_trace(run: Path) -> None:
    """The empty state of pages that draw traces."""
    st.info("This run has no trace yet. This command samples one:")
    st.code(
        f"deediff sample {run} --policy threshold:0.1 --solver ddim --steps 50 "
        f"--num-samples 64 --out {run / 'traces' / 'ddim50-threshold-0.1'}",
        language="bash",
    )


def _figures_line(trace: Trace, chosen: selection.Selection) -> None:
    """Measured figures of trace A, and of B where there is one."""
    a = _figures(trace, chosen)
    b = _figures(chosen.other, chosen) if chosen.other is not None else {}
    with st.container(horizontal=True, key="figures", gap="medium"):
        st.caption(f"**A, measured**  \nN = {int(trace.summary.samples):,}", width="content")
        for label, (value, help_text) in a.items():
            delta = f"B: {b[label][0]}" if b else None
            how = f"Measured. {help_text}"
            st.metric(label, value, delta, delta_color="off", delta_arrow="off", help=how, width="content")


def _figures(trace: Trace, chosen: selection.Selection) -> dict[str, tuple[str, str]]:
    """Label → (value, how it was obtained)."""
    meta, exits = trace.meta, trace.summary.exits
    gflops = trace.cost.mean_gflops(exits, with_uem=bool(meta["policy_needs_uncertainty"]))
    seconds = seconds_per_image(meta)
    speedup, against = _speedup(trace, chosen)
    samples = int(trace.summary.samples)
    return {
        "Layer ratio": (
            f"{trace.cost.layer_ratio(exits):.3f}",
            f"Mean exit layer / {trace.num_blocks}, over {samples:,} samples × {len(trace.timesteps)} steps.",
        ),
        "GFLOPs per step": (
            f"{gflops:.4g} ({percent(gflops, trace.cost.full)})",
            f"Counted exits × the cost of each exit, per image; the full network costs {trace.cost.full:.4g}. "
            "2 × multiply-accumulates, attention products included.",
        ),
        "Seconds per image": (
            f"{seconds:.4g} s" if seconds else "unknown",
            f"Wall seconds / {samples:,} samples, in batches of {meta.get('batch_size')}, on {meta.get('device')}.",
        ),
        "Speed-up": (f"{speedup:.2f}×" if speedup else "unknown", against),
    }


def seconds_per_image(meta: dict[str, Any]) -> float | None:
    """Wall seconds / samples; None in an imported or unfinished trace."""
    seconds = meta.get("wall_seconds")
    return float(seconds) / int(meta["num_samples"]) if seconds else None


def _speedup(trace: Trace, chosen: selection.Selection) -> tuple[float | None, str]:
    """Against the full network's trace of the same run, solver, steps, batch and machine."""
    same = ("solver", "timesteps", "batch_size", "device", "threads", "dtype", "checkpoint_sha256")
    mine = seconds_per_image(trace.meta)
    for twin in [trace, *chosen.siblings] + ([chosen.trace] if chosen.trace else []):
        alike = all(twin.meta.get(key) == trace.meta.get(key) for key in same)
        theirs = seconds_per_image(twin.meta)
        if twin.meta["policy"] == "never" and alike and mine and theirs:
            note = " (that trace also evaluated every UEM)" if twin.meta["record"] == "full" else ""
            return theirs / mine, f"Seconds per image of {twin.path.name}{note} / those of {trace.path.name}."
    return None, "Needs a trace with policy never, of the same solver, steps, batch size, machine and checkpoint."


def signed(value: float, digits: int) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def percent(value: float, reference: float) -> str:
    """Signed difference from the full network."""
    change = (value / reference - 1) * 100
    return f"{change:+.1f}%".replace("-", "−") if abs(change) >= 0.05 else "±0%"
