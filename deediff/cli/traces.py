"""`deediff trends`, `variance` and `static`: analyses of finished traces."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from deediff.analysis.static import fit_static, save_schedule
from deediff.analysis.trends import threshold_table
from deediff.analysis.variance import VarianceSplit, exit_variance, uncertainty_variance
from deediff.cli.command import Command, Count, Flag, Result, Traces, defaults_to
from deediff.cli.show import json_number
from deediff.errors import UserError
from deediff.traces.cohort import limit
from deediff.traces.cohort_file import samples_named
from deediff.traces.reader import Trace, read_trace


def trace_argument(path: str) -> Trace:
    """Read a trace, and list its ignored parts on stderr."""
    trace = read_trace(path)
    for problem in trace.problems:
        print(f"note: {problem}", file=sys.stderr)
    return trace


SMALLEST_STEP = 1e-4  # of thresholds; they are rounded to multiples of 0.005


def parse_thresholds(text: str) -> list[float]:
    """'0.01:0.2:0.01' (start:stop:step, stop included) or '0.05,0.1' → numbers. Raises UserError."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        start, stop, step = (float(part) for part in text.split(":"))
        if not (step >= SMALLEST_STEP and 0 <= start <= stop <= 1):
            raise ValueError
        return [round(start + i * step, 6) for i in range(math.floor((stop - start) / step + 1e-9) + 1)]
    except ValueError:
        raise UserError(
            f"thresholds {text!r}: expected start:stop:step with 0 ≤ start ≤ stop ≤ 1 and steps of "
            f"{SMALLEST_STEP:g} or more, or a comma-separated list, e.g. 0.01:0.2:0.01"
        ) from None


@dataclass(frozen=True, kw_only=True)
class Trends(Command):
    """Layer ratio, GFLOPs and exits per threshold, computed from a trace's summary without sampling."""

    trace: Positional[str]
    """A trace folder or its URL."""
    thresholds: Annotated[str | None, defaults_to("0.01:0.2:0.01, as far as the trace can answer")] = None
    """start:stop:step or a comma-separated list; rounded to multiples of 0.005."""
    samples: Annotated[str | None, defaults_to("all samples")] = None
    """A CSV with the column sample, or the name of a cohort of the run: only these samples are counted."""

    def run(self) -> Result:
        """Recorded values, then a row per threshold."""
        trace = trace_argument(self.trace)
        if self.samples is not None:
            trace = limit(trace, samples_named(self.samples, trace.path.parent.parent))
        measured = ("num_samples", "layer_ratio", "mean_gflops", "wall_seconds")
        recorded = {"policy": trace.meta.title, **{key: getattr(trace.meta, key) for key in measured}}
        if self.thresholds is not None:
            thresholds = parse_thresholds(self.thresholds)
        elif trace.what_if_limit is None:
            return {"measured": recorded, "thresholds": [], "note": trace.why_no_what_if}
        else:
            thresholds = [i / 100 for i in range(1, 21) if i / 100 >= trace.what_if_limit[0]]
        return {"measured": recorded, "thresholds": threshold_table(trace, thresholds).to_dict("records")}


VARIANCE_NOTE = (
    "timestep + sample + rest = 1, shares of the total variance. With one value per sample and timestep, rest is "
    "interaction and noise, which cannot be separated. stays_all, stays_next: of the variance within a timestep, the "
    "share that a sample keeps over all steps, and until the next step. Brackets: 95 % intervals by resampling the "
    "samples. static: one exit layer per timestep at the adaptive policy's GFLOPs; nearest: the one nearest to its "
    "exits; both fitted on the even samples and tested on the odd ones. agrees: share of equal decisions; distance: "
    "mean difference in layers."
)


@dataclass(frozen=True, kw_only=True)
class Variance(Command):
    """The shares of timestep and sample in the variance of the exit layers, and the nearest static schedule."""

    traces: Traces
    """Trace folders or URLs, imported exit layers included."""
    layers: Flag = False
    """Also the shares in the variance of u, per layer; for traces recorded with --record full."""
    draws: Count = 1000
    """Resamplings of the samples, for the intervals."""
    seed: int = 0
    """Seed of the resampling."""

    def run(self) -> Result:
        """A row per trace; with --layers also one per layer."""
        rows, schedules, layers = [], [], []
        for trace in map(trace_argument, self.traces):
            folder = trace.path.parent
            name = {"trace": f"{folder.parent.name}/{trace.path.name}" if folder.name == "traces" else trace.path.name}
            split = exit_variance(trace, self.draws, self.seed)
            rows.append({**name, "samples": split.samples, "steps": split.steps, **_shares(split)})
            if self.layers:
                splits = uncertainty_variance(trace, self.draws, self.seed)
                layers += [{**name, "layer": i, **_shares(split)} for i, split in enumerate(splits)]
            try:
                schedules.append({**name, **_static_row(trace)})
            except UserError as error:
                print(f"note: no static schedule, because {error}", file=sys.stderr)
        return {"exit_layer": rows, "uncertainty": layers, "static_schedule": schedules, "note": VARIANCE_NOTE}


def _shares(split: VarianceSplit) -> Result:
    estimates = ("total", "timestep", "sample", "rest", "stays_all", "stays_next")
    return {name: json_number(getattr(split, name)) for name in estimates}


def _static_row(trace: Trace) -> Result:
    """The adaptive policy, and the two static schedules fitted to it, on the held-out samples."""
    adaptive, same, nearest = fit_static(trace, imitate=True).held_out
    row = {"layer_ratio": adaptive.layer_ratio, "gflops": adaptive.gflops}
    for key, held in (("static", same), ("nearest", nearest)):
        row[f"{key}_ratio"], row[f"{key}_gflops"] = held.layer_ratio, held.gflops
        row[f"{key}_agrees"], row[f"{key}_distance"] = held.agreement, held.layer_distance
    return row


@dataclass(frozen=True, kw_only=True)
class Static(Command):
    """Fit the best static schedule of the same cost to half of a trace, and test it on the other half."""

    trace: Positional[str]
    """A trace folder or its URL. --record full --deviations gives the most accurate schedule."""
    out: Path
    """The JSON file to write, for --policy schedule:FILE."""
    budget: Annotated[float | None, defaults_to("the cost of the trace's own policy")] = None
    """Mean GFLOPs per image and step."""

    def run(self) -> Result:
        """Write the schedule, and compare it with the trace's own exits."""
        trace = trace_argument(self.trace)
        fit = fit_static(trace, self.budget)
        save_schedule(self.out, trace, fit.layers)
        rows = [{key: json_number(getattr(held, key)) for key in vars(held)} for held in fit.held_out]
        return {
            "schedule": str(self.out),
            "sample_with": f"--policy schedule:{self.out}",
            "price": fit.price,
            "fitted_on": fit.fitted_on,
            "tested_on": fit.tested_on,
            "held_out": rows,
        }
