"""The headline figures of a trace: measured cost, speed and quality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.state.commands import evaluate_command
from app.widgets.formatting import percent
from deediff.errors import UserError
from deediff.quality.results import Quality, read_quality
from deediff.traces.cohort import Cohort
from deediff.traces.pairing import speed_up
from deediff.traces.reader import Trace


@dataclass(frozen=True)
class Figure:
    """One number of the line above every page."""

    label: str
    value: float | None  # None: unknown
    text: Callable[[float], str]
    help: str  # how it was obtained
    interval: str = ""

    @property
    def shown(self) -> str:
        """The number as text."""
        return "unknown" if self.value is None else self.text(self.value) + self.interval

    def beside(self, other: Figure) -> str:
        """The same figure of B, and its difference from this one."""
        if self.value is None or other.value is None:
            return f"B: {other.shown}"
        difference = other.value - self.value
        sign = "+" if difference > 0 else "−" if difference < 0 else "±"
        return f"B: {other.shown}  (B − A: {sign}{self.text(abs(difference))})"


def figures_of(trace: Trace, comparable: list[Trace]) -> list[Figure]:
    """Layer ratio, GFLOPs, seconds, speed-up over one of `comparable`, quality."""
    meta, exits, samples = trace.meta, trace.summary.exits, int(trace.summary.samples)
    steps = len(trace.timesteps)
    gflops = trace.cost.mean_gflops(exits, with_uem=meta.policy_needs_uncertainty)
    speedup, against = compare_speed(trace, comparable)
    return [
        Figure(
            "Layer ratio",
            trace.cost.layer_ratio(exits),
            "{:.3f}".format,
            f"Mean exit layer / {trace.num_blocks}, over {samples:,} samples × {len(trace.timesteps)} steps.",
        ),
        Figure(
            "GFLOPs per image",
            gflops * steps,
            "{:.4g}".format,
            f"Counted exits × the cost of each exit, over {steps} steps: {gflops:.4g} per step, where the full network "
            f"costs {trace.cost.full:.4g}. 2 × multiply-accumulates, attention products included.",
            f" ({percent(gflops, trace.cost.full)})",
        ),
        Figure(
            "Seconds per image",
            meta.seconds_per_image,
            "{:.4g} s".format,
            f"Wall seconds / {samples:,} samples, in batches of {meta.batch_size}, on {meta.device}.",
        ),
        Figure("Speed-up", speedup, "{:.2f}×".format, against),
        _quality(trace),
    ]


def _quality(trace: Trace) -> Figure:
    """The first metric of the trace's quality file."""
    if isinstance(trace, Cohort):
        return Figure("Quality", None, str, "Measured for all samples of a trace, not for some of them.")
    command = f"`{evaluate_command([Path(str(trace.path))])}` measures it."
    try:
        found = read_quality(trace.path)
    except UserError as error:
        return Figure("Quality", None, str, str(error))
    if not found:
        return Figure("Quality", None, str, f"This trace has not been evaluated: {command}")
    first = found[0]
    return Figure(first.metric.upper(), first.value, "{:.4g}".format, _how(first, len(found)), _interval(first))


def _interval(quality: Quality) -> str:
    if quality.low is None or quality.high is None:
        return ""
    return f" [{quality.low:.4g}, {quality.high:.4g}]"


def _how(quality: Quality, metrics: int) -> str:
    """Extractor, counts, interval and floor of a metric."""
    better = "higher" if quality.higher_is_better else "lower"
    sentences = [
        f"{quality.extractor}, {quality.images:,} images against {quality.reference_images:,} of {quality.reference}; "
        f"{better} is better. Interval: {quality.interval}."
    ]
    if quality.floor is not None:
        spread = f" ± {quality.floor_spread:.2g}" if quality.floor_spread is not None else ""
        sentences.append(f"Real images at the same N: {quality.floor:.4g}{spread} ({quality.floor_source}).")
    if metrics > 1:
        sentences.append(f"{metrics - 1} more on the page Compare.")
    return " ".join(sentences)


def compare_speed(trace: Trace, comparable: list[Trace]) -> tuple[float | None, str]:
    """Speed-up over the full network's trace of the same noise and machine, and how it was obtained."""
    found = speed_up(trace, [trace, *comparable])
    if found is None:
        return None, (
            "Needs a trace with policy never, of the same seed, solver, steps, classes, guidance, batch size, machine "
            "and checkpoint."
        )
    value, full = found
    note = " (that trace also evaluated every UEM)" if full.meta.record == "full" else ""
    return value, f"Seconds per image of {full.path.name}{note} / those of {trace.path.name}."
