"""Traces as points of cost and quality: axes, and lines of one policy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from app.state.traces import key_of
from deediff.quality.results import Quality
from deediff.traces.pairing import NOISE, noise_key
from deediff.traces.reader import Trace

KINDS = {
    "threshold": "τ = {}",
    "patience": "τ = {}",
    "batch-mean": "τ = {}",
    "excess": "δ = {}",
    "fixed": "layer {}",
    "budget": "{} GFLOPs",
    "stopping": "{} GFLOPs",
    "oracle": "{} GFLOPs",
    "dual": "down to t = {}",
}

BUDGETS = ("budget", "stopping", "oracle")

COSTS = {"gflops": "GFLOPs per image", "seconds": "seconds per image"}
NAMES = {"timesteps": "steps", "eta": "η", "checkpoint_sha256": "weights"}  # of NOISE, where others are clearer


@dataclass(frozen=True)
class Reading:
    """One value on a quality axis."""

    value: float
    low: float | None = None  # 95 % interval
    high: float | None = None
    floor: float | None = None  # the same metric of real images at the same N
    floor_spread: float | None = None
    how: str = ""  # method of the interval
    quality: Quality | None = None  # of a trace: holds the groups of samples that a paired difference needs
    paired: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of a plan: differences, by rival's key


@dataclass(frozen=True)
class Axis:
    """A measure of quality and its values by trace; only equal protocols share an axis."""

    name: str  # fid, kid, …, or change
    label: str  # with extractor, reference and N
    higher_is_better: bool
    readings: dict[str, Reading] = field(default_factory=dict)  # by trace
    protocol: tuple[str, str, str, int] | None = None  # of `Quality`; None for the change of the images
    full: str | None = None  # of a change: the trace of the full network
    of_plans: bool = False  # of validated plans, not of traces

    @property
    def key(self) -> str:
        """The value in the URL."""
        return ",".join(map(str, self.protocol)) if self.protocol is not None else f"{self.name},{self.full}"


@dataclass(frozen=True)
class Point:
    """One trace, or one validated plan, in the figure."""

    key: str  # run/trace, or run/plans/plan
    run: str
    family: str  # policy, solver and steps: points of one run and family are joined by a line
    label: str  # threshold, budget or steps, within its family
    is_full: bool  # the full network at every step
    gflops: float  # per image: over all steps
    seconds: float | None  # per image
    layer_ratio: float | None  # None of a plan
    images: int
    reading: Reading
    steps: int = 1  # of one image


def family_of(trace: Trace) -> tuple[str, str]:
    """The family of a trace's policy, and its label within the family.

    Traces of the full network with different numbers of steps are a family of their own, and so are plans.
    """
    meta = trace.meta
    solver, steps = (meta.solver or "unknown solver").upper(), len(trace.timesteps)
    if meta.plan is not None:
        kind = "plans of the full network" if meta.is_full else "plans"
        return f"{kind}, {solver}", meta.plan.name or f"{steps} steps"
    head, *bounds = meta.title.split(",")
    kind, _, argument = head.partition(":")
    again = ["recalibrated u"] if meta.recalibration_sha256 else []
    again += [f"guidance {meta.guidance:g}"] if meta.guidance is not None else []
    if kind == "never":
        return ", ".join([f"full network, {solver}", *again]), f"{steps} steps"
    place = re.split(r"[@:]", argument)[0] if kind in KINDS else argument.rpartition("/")[2].removesuffix(".json")
    with suppress(ValueError):
        per_image = steps if kind in BUDGETS else 1  # policies take budgets per step
        place = f"{float(place) * per_image:.4g}"  # one found by a bisection has many digits
    if kind == "schedule":  # kinds differ by the beginning of the file's name
        kind = f"schedule {re.split('[-_.]', place)[0]}"
    name = ", ".join([kind, *(bound.replace(":", " ") for bound in bounds), *again])
    return f"{name} · {solver}, {steps} steps", KINDS.get(kind, "{}").format(place or kind)


def axes(traces: Sequence[Trace], quality: dict[str, list[Quality]]) -> list[Axis]:
    """The quality axes of the traces: every protocol that was evaluated."""
    found: dict[tuple[str, str, str, int], Axis] = {}
    for trace in traces:
        for q in quality.get(key_of(trace), []):
            label = f"{q.metric.upper()} · {q.extractor}, N = {q.images:,}, against {q.reference}"
            axis = found.setdefault(q.protocol, Axis(q.metric, label, q.higher_is_better, {}, q.protocol))
            axis.readings[key_of(trace)] = Reading(q.value, q.low, q.high, q.floor, q.floor_spread, q.interval, q)
    return sorted(found.values(), key=lambda axis: (-len(axis.readings), axis.name))


def change_axes(traces: Sequence[Trace]) -> list[Axis]:
    """The changes of the images, each from a trace of the full network with the same noise.

    Their readings are added by `with_readings`.
    """
    groups: dict[tuple[object, ...], list[Trace]] = {}
    for trace in traces:
        if trace.meta.settings is not None:  # an imported trace has no noise in common with another
            groups.setdefault((trace.path.parents[1].name, *noise_key(trace.meta)), []).append(trace)
    made = []
    for group in groups.values():
        never = sorted((t for t in group if t.meta.is_full), key=lambda t: t.meta.record != "exit")
        if not never or len(group) < 2:
            continue
        full = never[0]
        how = f"{str(full.meta.solver).upper()}, {len(full.timesteps)} steps, seed {full.meta.seed}"
        label = f"change · {full.path.parents[1].name}, from the full network's images, {how}"
        empty = {key_of(trace): Reading(float("nan")) for trace in group}
        made.append(Axis("change", label, False, empty, None, key_of(full)))
    return sorted(made, key=lambda axis: (-len(axis.readings), axis.label))


def with_readings(axis: Axis, values: dict[str, float | None]) -> Axis:
    """The axis with these values; None is left out."""
    readings = {key: Reading(value) for key in axis.readings if (value := values.get(key)) is not None}
    return replace(axis, readings=readings)


def points(traces: Sequence[Trace], axis: Axis) -> list[Point]:
    """The traces that the axis has a value of."""
    made = []
    for trace in traces:
        reading = axis.readings.get(key_of(trace))
        if reading is None:
            continue
        family, label = family_of(trace)
        exits, seconds = trace.summary.exits, trace.meta.wall_seconds
        step = trace.cost.mean_gflops(exits, with_uem=trace.meta.policy_needs_uncertainty)
        made.append(
            Point(
                key_of(trace),
                trace.path.parents[1].name,
                family,
                label,
                trace.meta.is_full,
                step * len(trace.timesteps),
                float(seconds) / trace.meta.num_samples if seconds else None,
                trace.cost.layer_ratio(exits),
                int(trace.summary.samples),
                reading,
                len(trace.timesteps),
            )
        )
    return made


def other_differences(traces: Sequence[Trace]) -> str:
    """Settings other than the policy in which the traces differ, as a sentence, or nothing."""
    values = zip(*(noise_key(trace.meta) for trace in traces), strict=True)
    different = [NAMES.get(name, name) for name, found in zip(NOISE, values, strict=True) if len(set(found)) > 1]
    if "seed" in different:
        return "These traces differ in their seed: images of one column do not start from the same noise."
    if different:
        also = " and ".join(filter(None, [", ".join(different[:-1]), different[-1]]))
        return f"Equal seeds, but these traces also differ in {also}: differences are not due to the exits alone."
    return ""


def cost_of(point: Point, cost: str) -> float | None:
    """One of COSTS, per image."""
    return point.gflops if cost == "gflops" else point.seconds


def far_above(points: Sequence[Point]) -> list[Point]:
    """Outliers that would compress the axis: at most a fifth of the points, at least three times the next value."""
    order = sorted(points, key=lambda point: point.reading.value)
    for place in range(len(order) - len(order) // 5, len(order)):
        if order[place].reading.value > 3 * order[place - 1].reading.value > 0:
            return order[place:]
    return []
