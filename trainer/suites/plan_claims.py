"""What this project claims about plans, compared with the validated fronts of the runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deediff.plans.front import ROOM, Front, Point, read_front

RUNS = ("mnist_tiny", "uvit_tiny")
UNIFORM, BY_HAND = "12-uniform", "7-hand"  # rivals: plans of the full network
LESS_THAN_UNIFORM, LESS_THAN_ENDS = 0.7, 0.4
GFLOPS, NEAR = 1.25, 0.2  # of a plan for digits, and its largest distance from BY_HAND
COLUMNS = ("claim", "verdict", "measured", "holds when", "command")
EQUAL = (
    f"no distance, the guard among them, is worse than that of {UNIFORM} beyond the paired 95 % interval, "
    f"and the metric at most {ROOM} above"
)


def plan_verdicts(folder: Path) -> Iterator[dict[str, str]]:
    """Rows for each run with validated fronts. Raises UserError when a file is damaged."""
    for name in RUNS:
        front = read_front(folder / name)
        if front is not None and front.point(UNIFORM) is not None:
            command = f"deediff search runs/{name} --validate-only"
            for row in (_less_than_uniform(name, front), _less_than_ends(name, front), *_near(name, front)):
                yield dict(zip(COLUMNS, (*row, command), strict=True))


def _less_than_uniform(run: str, front: Front) -> tuple[str, str, str, str]:
    claim = f"timesteps and exits chosen together cost {LESS_THAN_UNIFORM:.0%} less than 12 uniform steps ({run})"
    rule = f"the cheapest plan of which {EQUAL} costs so much less"
    return claim, *_verdict(front, front.point(UNIFORM), LESS_THAN_UNIFORM), rule


def _less_than_ends(run: str, front: Front) -> tuple[str, str, str, str]:
    claim = f"they cost {LESS_THAN_ENDS:.0%} less than a full network that may skip its first and last step ({run})"
    rule = f"of the cheapest plans with and without exits of which {EQUAL}, the one with exits costs so much less"
    rival = front.cheapest_like(UNIFORM, "uniform", "hand", "full", "ends")
    return claim, *_verdict(front, rival, LESS_THAN_ENDS), rule


def _verdict(front: Front, rival: Point | None, saving: float) -> tuple[str, str]:
    """The verdict, and the numbers of the cheapest plan with exits that equals UNIFORM."""
    plan = front.cheapest_like(UNIFORM)
    if plan is None or rival is None:
        return "does not hold", f"no {'plan' if plan is None else 'rival'} equals {UNIFORM}"
    found = 1 - plan["evaluations"] / rival["evaluations"]
    text = f"{plan['plan']}: {found:.0%} less than {rival['plan']}, {plan['gflops_per_image']:.2f} GFLOPs per image "
    text += f"against {rival['gflops_per_image']:.2f}; {_differences(front, plan, UNIFORM)}"
    return ("holds" if found >= saving else "does not hold"), text


def _near(run: str, front: Front) -> Iterator[tuple[str, str, str, str]]:
    """A plan of few GFLOPs beside the full network at timesteps chosen by hand; of digits only."""
    rival = front.point(BY_HAND)
    if run != "mnist_tiny" or rival is None:
        return
    claim = f"a plan of {GFLOPS} GFLOPs per image is within {NEAR} of {rival['gflops_per_image']:.2f} ({run})"
    rule = f"its {front.metric} is less than {NEAR} above that of the full network at {list(rival['timesteps'])}"
    plans = [p for p in front.points.get("all", []) if p["gflops_per_image"] <= GFLOPS and front.change(p, BY_HAND)]
    if not plans:
        yield claim, "does not hold", "no such plan is validated", rule
        return
    best = min(plans, key=lambda p: front.change(p, BY_HAND)[front.metric]["value"])
    holds = front.change(best, BY_HAND)[front.metric]["value"] < NEAR
    text = f"{best['plan']}: {best['gflops_per_image']:.2f} GFLOPs per image; {_differences(front, best, BY_HAND)}"
    yield claim, "holds" if holds else "does not hold", text, rule


def _differences(front: Front, plan: Point, rival: str) -> str:
    """The plan minus its rival, for each distance."""
    change = front.change(plan, rival)
    values = [(name, change[name]) for name in (front.metric, *front.guards) if name in change]
    numbers = ", ".join(f"{name} {c['value']:+.3g} [{c['low']:+.3g}, {c['high']:+.3g}]" for name, c in values)
    return f"paired differences from {rival}: {numbers}, N = {front.images:,}"
