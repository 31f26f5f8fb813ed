"""What asks traces: `deediff trends`, `variance` and `static`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from deediff.analysis.static import fit_static, save_schedule
from deediff.analysis.trends import threshold_table
from deediff.analysis.variance import VarianceSplit, exit_variance, uncertainty_variance
from deediff.cli.command import Result, argument, command, number, open_trace, positive
from deediff.errors import UserError


def parse_thresholds(text: str) -> list[float]:
    """'0.01:0.2:0.01' (start:stop:step, both ends) or '0.05,0.1' → numbers. Raises UserError."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        start, stop, step = (float(part) for part in text.split(":"))
        if not (step > 0 and 0 <= start <= stop <= 1):
            raise ValueError
        return [round(start + i * step, 6) for i in range(math.floor((stop - start) / step + 1e-9) + 1)]
    except ValueError:
        raise UserError(
            f"thresholds {text!r}: expected start:stop:step or a comma-separated list, e.g. 0.01:0.2:0.01"
        ) from None


@command(
    "trends",
    "layer ratio, GFLOPs and exits per threshold, without sampling",
    argument("trace", help="a trace folder, or its URL"),
    argument("--thresholds", default=None, help="start:stop:step or a comma-separated list, rounded to 0.005"),
)
def trends(args: argparse.Namespace) -> Result:
    """What thresholds would do, from the summary alone."""
    trace = open_trace(args.trace)
    measured = ("policy", "num_samples", "layer_ratio", "mean_gflops", "wall_seconds")
    recorded = {key: trace.meta.raw.get(key) for key in measured}
    if args.thresholds is None and trace.what_if_limit is None:
        return {"measured": recorded, "thresholds": [], "note": trace.why_no_what_if}
    lowest = trace.what_if_limit[0] if trace.what_if_limit else 0.0
    wanted = (
        parse_thresholds(args.thresholds) if args.thresholds else [i / 100 for i in range(1, 21) if i / 100 >= lowest]
    )
    return {"measured": recorded, "thresholds": threshold_table(trace, wanted).to_dict("records")}


@command(
    "variance",
    "is it the sample or the timestep? Where the exits' variance comes from",
    argument("traces", nargs="+", help="trace folders or URLs, imported exit layers included"),
    argument("--layers", action="store_true", help="also of u, per layer; for traces recorded in full"),
    argument("--draws", type=positive, default=1000, help="resamplings of the samples, for the intervals"),
    argument("--seed", type=int, default=0, help="of the resampling"),
)
def variance(args: argparse.Namespace) -> Result:
    """What the timestep explains, what the sample, and how near a static schedule comes."""
    rows, schedules, layers = [], [], []
    for trace in map(open_trace, args.traces):
        folder = trace.path.parent
        name = {"trace": f"{folder.parent.name}/{trace.path.name}" if folder.name == "traces" else trace.path.name}
        split = exit_variance(trace, args.draws, args.seed)
        rows.append({**name, "samples": split.samples, "steps": split.steps, **_shares(split)})
        if args.layers:
            splits = uncertainty_variance(trace, args.draws, args.seed)
            layers += [{**name, "layer": i, **_shares(split)} for i, split in enumerate(splits)]
        try:
            adaptive, same, nearest = fit_static(trace, imitate=True).held_out
        except UserError as error:
            print(f"note: no static schedule, because {error}", file=sys.stderr)
            continue
        row = {"layer_ratio": adaptive.layer_ratio, "gflops": adaptive.gflops}
        for key, held in (("static", same), ("nearest", nearest)):
            row[f"{key}_ratio"], row[f"{key}_gflops"] = held.layer_ratio, held.gflops
            row[f"{key}_agrees"], row[f"{key}_distance"] = held.agreement, held.layer_distance
        schedules.append({**name, **row})
    return {"exit_layer": rows, "uncertainty": layers, "static_schedule": schedules, "note": VARIANCE_NOTE}


VARIANCE_NOTE = (
    "timestep + sample + rest = 1 (shares of the total variance); with one value per sample and timestep, rest is "
    "interaction and noise, which cannot be told apart. stays_all, stays_next: of what is left within a timestep, "
    "what a sample keeps over all steps, and to the next step. In brackets: 95%, resampling samples. Static: one exit "
    "layer per timestep at the adaptive policy's GFLOPs (static) or nearest to its exits (nearest), fitted on the even "
    "samples, tested on the odd ones; agrees: share of equal decisions; distance: mean difference in layers."
)


def _shares(split: VarianceSplit) -> Result:
    estimates = ("total", "timestep", "sample", "rest", "stays_all", "stays_next")
    return {name: number(getattr(split, name)) for name in estimates}


@command(
    "static",
    "the best static schedule of the same cost, as a file for schedule:FILE",
    argument("trace", help="a trace folder, or its URL; with --record full --deviations it can tell best"),
    argument("--out", type=Path, required=True, help="the JSON file to write"),
    argument(
        "--budget", type=float, default=None, help="mean GFLOPs per image and step; default: the adaptive policy's"
    ),
)
def static(args: argparse.Namespace) -> Result:
    """Fit a static schedule to half of a trace, test it on the other half, and write it."""
    trace = open_trace(args.trace)
    fit = fit_static(trace, args.budget)
    save_schedule(args.out, trace, fit.layers)
    rows = [{key: number(getattr(held, key)) for key in vars(held)} for held in fit.held_out]
    return {
        "schedule": str(args.out),
        "sample_with": f"--policy schedule:{args.out}",
        "price": fit.price,
        "fitted_on": fit.fitted_on,
        "tested_on": fit.tested_on,
        "held_out": rows,
    }
