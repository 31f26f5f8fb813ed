"""The rows of each suite: published tables and figures, and baselines.

Published values are in `deediff.analysis.published`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from deediff.analysis.published import FULL as FULL_PUBLISHED
from deediff.analysis.published import TABLES as PUBLISHED
from trainer.config import Method

Strategy = Literal["frozen", "finetuned", "scratch"]


@dataclass(frozen=True)
class Row:
    """One line of a results file."""

    name: str
    method: Method | None = None  # None: the backbone without exits
    strategy: Strategy = "frozen"
    threshold: float | None = None  # as published; None: no early exit, or a policy
    published: dict[str, float] = field(default_factory=dict)
    policy: str | None = None  # as on the command line, or one of BASELINE_KINDS
    record: Literal["exit", "full"] = "exit"
    uems: int | None = None  # number of UEMs, spread evenly over the layers; None: one per layer


# Alternatives that cost no more than the last row with a threshold before them: see `baselines.py`.
BASELINE_KINDS = ("fewer steps", "smaller", "dual", "fixed", "static", "budget", "excess", "stopping", "oracle")


def _published(key: tuple[str, str, str, str] | None) -> dict[str, float]:
    """Values of a row of the published tables; None: the full network."""
    line = FULL_PUBLISHED if key is None else PUBLISHED[key]
    return {"fid": line.fid, "layer_reduction_pct": line.layer_reduction, "gflops_without_attention": line.gflops}


def _row(name: str, method: Method, strategy: Strategy, threshold: float, losses: int = 3) -> Row:
    """A row of the published tables, with its values."""
    uem = f"{method.uem} per {method.scope.replace('_', ' and ')}"
    return Row(name, method, strategy, threshold, _published((uem, strategy, str(losses), str(threshold))))


MLP, ATTENTION = Method(), Method(uem="attention")
TIMESTEP, BOTH = Method(scope="timestep"), Method(scope="layer_timestep")
FULL = Row("U-ViT", published=_published(None))
MLP_FROZEN = _row("MLP per layer, frozen", MLP, "frozen", 0.075)
MLP_TUNED = _row("MLP per layer, fine-tuned", MLP, "finetuned", 0.075)
ATTENTION_FROZEN = _row("attention per layer, frozen", ATTENTION, "frozen", 0.075)
ATTENTION_TUNED = _row("attention per layer, fine-tuned", ATTENTION, "finetuned", 0.075)

TABLE1 = [
    FULL,
    MLP_FROZEN,
    MLP_TUNED,
    _row("MLP per layer, scratch", MLP, "scratch", 0.075),
    _row("MLP per timestep, frozen", TIMESTEP, "frozen", 0.075),
    _row("MLP per timestep, fine-tuned", TIMESTEP, "finetuned", 0.075),
    _row("MLP per layer and timestep, frozen", BOTH, "frozen", 0.075),
    _row("MLP per layer and timestep, fine-tuned", BOTH, "finetuned", 0.075),
    ATTENTION_FROZEN,
    ATTENTION_TUNED,
    _row("attention per layer, scratch", ATTENTION, "scratch", 0.075),
]
TABLE3 = [
    FULL,
    MLP_TUNED,
    _row("MLP, 4 losses, fine-tuned", replace(MLP, layer_weight=1.0), "finetuned", 0.075, losses=4),
    ATTENTION_TUNED,
    _row("attention, 4 losses, fine-tuned", replace(ATTENTION, layer_weight=1.0), "finetuned", 0.075, losses=4),
]
TABLE4 = [
    FULL,
    _row("MLP per layer, frozen, τ = 0.05", MLP, "frozen", 0.05),
    MLP_FROZEN,
    _row("attention per layer, frozen, τ = 0.05", ATTENTION, "frozen", 0.05),
    ATTENTION_FROZEN,
    *(replace(row, name=f"{row.name}, τ = 0.1", threshold=0.1, published={}) for row in (MLP_FROZEN, ATTENTION_FROZEN)),
]
TRENDS = [  # full records: Figure 9, and any threshold by what-if
    replace(row, threshold=None, policy="never", record="full", published={})
    for row in (MLP_FROZEN, MLP_TUNED, TABLE1[3], TABLE3[2], ATTENTION_FROZEN, ATTENTION_TUNED, TABLE3[4])
]
BASELINES = [
    FULL,
    MLP_FROZEN,  # its cost is the budget of the rows below
    Row("threshold found for the budget", MLP, policy="budget"),
    Row("excess over the deepest layer's u", MLP, policy="excess"),
    Row("optimal stopping", MLP, policy="stopping"),
    Row("best static schedule", MLP, policy="static"),
    Row("oracle exits", MLP, policy="oracle"),
    Row("one exit for all", MLP, policy="fixed"),
    Row("fewer steps", policy="fewer steps"),
    Row("dual backbone", policy="dual"),
    Row("a smaller network", policy="smaller"),
    Row("ASE's schedule", MLP, policy="schedule:ase"),  # its cost is not the budget
]

# The errors of the public code, one by one and together. The published values were measured with all of them.
ERRORS = {
    "L_u summed over the batch": {"sum_over_batch": True},
    "target not detached": {"detach_target": False},
    "L_UAL weighted with its target": {"weight_by_target": True},
}
ALL_ERRORS = {name: value for error in ERRORS.values() for name, value in error.items()}


def _quirks(right: Row, timestep: Row) -> list[Row]:
    """Rows without errors, with each of them and with all; then those of the error of UEMs per timestep."""

    def wrong(row: Row, name: str, published: dict[str, float], **errors: Any) -> Row:
        assert row.method is not None
        return replace(row, name=f"{row.name}: {name}", method=replace(row.method, **errors), published=published)

    rows = [replace(right, published={})]
    rows += [wrong(right, name, {}, **error) for name, error in ERRORS.items()]
    rows += [wrong(right, "all of these", right.published, **ALL_ERRORS)]
    rows += [replace(timestep, published={})]
    rows += [wrong(timestep, "the first sample's timestep for the whole batch", {}, first_timestep=True)]
    return [*rows, wrong(timestep, "all errors", timestep.published, first_timestep=True, **ALL_ERRORS)]


QUIRKS = [FULL, *_quirks(MLP_FROZEN, TABLE1[4]), *_quirks(MLP_TUNED, TABLE1[5])]
FEWER_UEMS = [FULL] + [
    Row(f"{count or 'all'} UEMs, τ = {threshold:g}", MLP, "frozen", threshold, uems=count)
    for threshold in (0.05, 0.075)
    for count in (2, 4, 7, None)
]

DESCRIPTIONS = {
    "table1": "Kinds of UEM, with frozen and trained backbones",
    "table2": "GFLOPs of UEMs and output heads",
    "table3": "The fourth loss (Eq. 10)",
    "table4": "The two published thresholds, and the higher one of the text",
    "trends": "Mean u at every layer and timestep (Figure 9), and any threshold by what-if",
    "baselines": "Alternatives of the same GFLOPs: other policies, fewer steps, other networks",
    "quirks": "The errors of public code, one by one",
    "fewer_uems": "2, 4 or 7 UEMs instead of one per layer",
}
SUITES: dict[str, list[Row]] = {
    "table1": TABLE1,
    "table2": [],  # counted, not run
    "table3": TABLE3,
    "table4": TABLE4,
    "trends": TRENDS,
    "baselines": BASELINES,
    "quirks": QUIRKS,
    "fewer_uems": FEWER_UEMS,
}
