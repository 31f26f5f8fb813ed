"""What this project claims about plans, compared with the evaluated traces of the runs.

A plan counts as equal to the full network only where no distance says otherwise: a search that minimises one distance
may find plans that exploit it, and a second one (`fd-pixels`) shows that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deediff.errors import UserError
from deediff.quality.paired import Difference, quality_difference
from deediff.quality.results import Quality, read_quality
from deediff.runs import read_run
from deediff.traces.reader import Trace, read_trace

RUNS = ("mnist_tiny", "uvit_tiny")
STEPS, SAVING = 12, 0.7
COLUMNS = ("claim", "verdict", "measured", "holds when", "command")
RULE = (
    "the cheapest plan of which no distance, fd-pixels among them, is worse than the rival's beyond the paired 95 % "
    "interval costs so much less"
)


def plan_verdicts(folder: Path) -> Iterator[dict[str, str]]:
    """A row per run that holds an evaluated trace of the rival. Raises UserError when a trace is damaged."""
    for name in RUNS:
        run = folder / name
        traces = [read_trace(path) for path in read_run(run).traces] if (run / "run.json").exists() else []
        rival = next((t for t in traces if _is_rival(t) and read_quality(t.path)), None)
        if rival is None:
            continue
        claim = f"timesteps and exits chosen together cost {SAVING:.0%} less than {STEPS} uniform steps ({name})"
        verdict, measured = _judge(rival, [t for t in traces if t.meta.plan is not None and not t.meta.is_full])
        command = f"deediff sample runs/{name} --plan NAME --seed {rival.meta.seed}"
        yield dict(zip(COLUMNS, (claim, verdict, measured, RULE, command), strict=True))


def _is_rival(trace: Trace) -> bool:
    meta = trace.meta
    return meta.is_full and meta.plan is None and meta.solver == "dpm-solver++" and len(trace.timesteps) == STEPS


def _judge(rival: Trace, plans: list[Trace]) -> tuple[str, str]:
    """Verdict, and the numbers of the cheapest plan that is not worse."""
    full = rival.meta.cost.full * STEPS
    for trace in sorted(plans, key=_gflops):
        changes = _differences(trace, rival)
        if "fd-pixels" in {change.metric for change in changes} and all(change.low <= 0 for change in changes):
            saving = 1 - _gflops(trace) / full
            numbers = ", ".join(f"{c.metric} {c.value:+.3g} [{c.low:+.3g}, {c.high:+.3g}]" for c in changes)
            text = f"{trace.path.name}: {saving:.0%} less, {_gflops(trace):.2f} GFLOPs per image against {full:.2f}; "
            text += f"paired differences {numbers}, N = {trace.meta.num_samples:,}"
            return ("holds" if saving >= SAVING else "does not hold"), text
    return "does not hold", "no evaluated plan is equal"


def _gflops(trace: Trace) -> float:
    """Per image, over all steps."""
    return (trace.meta.mean_gflops or 0.0) * len(trace.timesteps)


def _differences(trace: Trace, rival: Trace) -> list[Difference]:
    """Plan minus rival, for each distance that both have."""
    theirs: dict[str, Quality] = {entry.metric: entry for entry in read_quality(rival.path)}
    found = []
    for entry in read_quality(trace.path):
        other = theirs.get(entry.metric)
        if other is None or entry.higher_is_better or entry.metric.endswith("-inf"):
            continue
        try:
            found.append(quality_difference(entry, other))
        except UserError:  # another number of images or another reference
            continue
    return found
