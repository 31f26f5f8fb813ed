"""`python -m trainer.run claims`: what was claimed about early exit, held against the suites' results files.

Source of the claims: Gallo et al. (blog, see `deediff.analysis.published`), AdaDiff (arXiv 2309.17074) and DuoDiff
(arXiv 2410.09633). A verdict is a comparison of measured numbers, written out beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deediff.errors import UserError
from trainer.results import Fields, read_results
from trainer.tables import SUITES

NEAR = 0.1  # numbers that differ by less than this share are called nearly equal
SAME = 3.0  # so are layer reductions, in percentage points


class NotMeasured(Exception):
    """A row that a claim needs is in no results file."""


class Results:
    """The results files of one folder. Raises UserError where there is none, one is damaged, or scales are mixed."""

    def __init__(self, folder: Path):
        self._rows: dict[str, Fields] = {}
        self._trends: dict[str, Fields] = {}  # the same names, recorded in full and without exits
        found = [(name, file) for name in SUITES if (file := folder / f"suite-{name}.json").exists()]
        if not found:
            raise UserError(f"{folder} holds no results of suites: python -m trainer.run suite:table1 --out {folder}")
        results = {name: read_results(file) for name, file in found}
        if len(scales := {content.get("scale") for content, _ in results.values()}) > 1:
            raise UserError(
                f"{folder} holds results of several scales ({', '.join(map(str, scales))}): give one --out each"
            )
        for name, (_, rows) in results.items():
            measured = {row: fields.fields("measured") for row, fields in rows.items()}
            (self._trends if name == "trends" else self._rows).update(measured)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> Fields:
        """What was measured for a row."""
        return _get(self._rows, name)

    def uncertainty(self, name: str) -> list[list[float]]:
        """Mean u by layer, in the first, second and last third of the steps."""
        return list(_get(self._trends, name)["mean_uncertainty"])

    def quality(self, name: str) -> float:
        """Of a row's images, by the first metric of its scale; lower is better."""
        for key, value in self[name].items():
            if isinstance(value, dict) and "floor" in value:
                return float(self[name].fields(key)["value"])
        raise NotMeasured(f"the quality of “{name}”")

    def saved(self, name: str) -> str:
        """A row's layer reduction, in words."""
        return f"−{self[name]['layer_reduction_pct']:.1f} % layers"

    def qualities(self, name: str, other: str) -> str:
        """Of two rows, in words."""
        return f"quality {self.quality(name):.4g} against {self.quality(other):.4g}"


def _get(rows: dict[str, Fields], name: str) -> Fields:
    if name not in rows:
        raise NotMeasured(f"“{name}”")
    return rows[name]


Check = Callable[[Results], tuple[bool, str]]


@dataclass(frozen=True)
class Claim:
    """What was said, by whom, and how it is held against results."""

    text: str
    source: str
    suite: str  # that measures it
    check: Check  # whether it holds, and the numbers


FULL = "U-ViT"
FROZEN, TUNED, SCRATCH = (f"MLP per layer, {strategy}" for strategy in ("frozen", "fine-tuned", "scratch"))
LOW = "MLP per layer, frozen, τ = 0.05"
ATTENTION = "attention per layer, frozen"
FOUR = "MLP, 4 losses, fine-tuned"
PER_TIMESTEP = "MLP per timestep, frozen"
WRONG_TIMESTEP = f"{PER_TIMESTEP}: the first sample's timestep for the whole batch"
DUAL = "dual backbone"


def _early(r: Results) -> tuple[bool, str]:
    (first, _, last), blocks = r[FROZEN]["mean_exit_layer"], r[FROZEN]["num_blocks"]
    shares = f"mean exit layer {first:.1f} in the first third of the steps, {last:.1f} in the last"
    return first < last / 2 and last > 0.95 * blocks, f"{shares}, of {blocks}"


def _rises(name: str, expected: bool) -> Check:
    """Whether mean u rises again after the middle block: by more than a tenth of its least value before."""

    def check(r: Results) -> tuple[bool, str]:
        rises, texts = [], []
        for third, u in zip(("first", "second", "last"), r.uncertainty(name), strict=True):
            middle = len(u) // 2  # the block between the halves
            low, high = min(u[: middle + 1]), max(u[middle + 1 :])
            rises.append(high > (1 + NEAR) * low)
            texts.append(f"{low:.3f} → {high:.3f} ({third} third)")
        return all(rises) if expected else not any(rises), "least u up to the middle, most after: " + ", ".join(texts)

    return check


def _layer_0(r: Results) -> tuple[bool, str]:
    shares = [r[name]["layer_0_pct"] for name in (LOW, FROZEN)]
    return max(shares) < 0.5, f"{shares[0]:.2f} % of the decisions at 0.05, {shares[1]:.2f} % at 0.075"


def _thresholds(r: Results) -> tuple[bool, str]:
    full, low, high = (r.quality(name) for name in (FULL, LOW, FROZEN))
    numbers = f"quality {full:.4g} in full, {low:.4g} at 0.05, {high:.4g} at 0.075"
    return low < (1 + NEAR) * full < high, numbers


def _tuned(r: Results) -> tuple[bool, str]:
    earlier = r[TUNED]["layer_reduction_pct"] > r[FROZEN]["layer_reduction_pct"]
    numbers = f"{r.saved(TUNED)} against {r.saved(FROZEN)}, {r.qualities(TUNED, FROZEN)}"
    return earlier and r.quality(TUNED) > r.quality(FROZEN), numbers


def _scratch(r: Results) -> tuple[bool, str]:
    return r.quality(SCRATCH) > r.quality(TUNED), f"{r.qualities(SCRATCH, TUNED)} fine-tuned"


def _per_timestep(r: Results) -> tuple[bool, str]:
    numbers = r.saved(PER_TIMESTEP)
    if WRONG_TIMESTEP in r:
        numbers += f"; {r.saved(WRONG_TIMESTEP)} if trained with the first sample's timestep for all"
    return r[PER_TIMESTEP]["layer_reduction_pct"] < 1, numbers


def _attention(r: Results) -> tuple[bool, str]:
    ours, mlp = r[ATTENTION], r[FROZEN]
    same = abs(ours["layer_reduction_pct"] - mlp["layer_reduction_pct"]) < SAME
    costs = f"{ours['gflops']:.4g} GFLOPs against {mlp['gflops']:.4g}"
    return same and ours["gflops"] > mlp["gflops"], f"{r.saved(ATTENTION)} against {r.saved(FROZEN)}, {costs}"


def _four_losses(r: Results) -> tuple[bool, str]:
    same = abs(r[FOUR]["layer_reduction_pct"] - r[TUNED]["layer_reduction_pct"]) < SAME
    numbers = f"{r.saved(FOUR)} against {r.saved(TUNED)}, {r.qualities(FOUR, TUNED)}"
    return same and r.quality(FOUR) < r.quality(TUNED), numbers


def _headline(r: Results) -> tuple[bool, str]:
    near = r.quality(FROZEN) < (1 + NEAR) * r.quality(FULL)
    saves = r[FROZEN]["layer_reduction_pct"] >= 40
    return near and saves, f"{r.saved(FROZEN)}, {r.qualities(FROZEN, FULL)} in full"


def _dual(r: Results) -> tuple[bool, str]:
    costs = f"at {r[DUAL]['gflops']:.3g} and {r[FROZEN]['gflops']:.3g} GFLOPs"
    return r.quality(DUAL) < r.quality(FROZEN), f"{r.qualities(DUAL, FROZEN)}, {costs} per step"


CLAIMS = [
    Claim("exits are very early in the first steps, and there are almost none in the last", "blog", "table1", _early),
    Claim("with a frozen backbone u rises again after the middle block", "blog", "trends",
          _rises(FROZEN, expected=True)),
    Claim("fine-tuning makes u monotone", "blog", "trends", _rises(TUNED, expected=False)),
    Claim("so does the fourth loss", "blog", "trends", _rises(FOUR, expected=False)),
    Claim("layer 0 is chosen only at the highest threshold, 0.1", "blog", "table4", _layer_0),
    Claim("τ ≤ 0.05 hardly changes the images, a higher one does", "blog", "table4", _thresholds),
    Claim("fine-tuned backbones exit earlier than frozen ones, and their images are worse", "blog", "table1", _tuned),
    Claim("training from scratch gives the worst images", "blog", "table1", _scratch),
    Claim("with UEMs per timestep a frozen backbone never exits", "blog", "table1", _per_timestep),
    Claim("attention UEMs save as many layers as MLPs, for more GFLOPs", "blog", "table1", _attention),
    Claim("the fourth loss gives better images at the same exits", "blog", "table3", _four_losses),
    Claim("40 % fewer layers at nearly equal quality", "AdaDiff", "table1", _headline),
    Claim("a shallow network for the first steps beats early exit at equal cost", "DuoDiff", "baselines", _dual),
]  # fmt: skip


def verdicts(folder: Path) -> list[dict[str, str]]:
    """A line per claim: what was said, whether it holds here, the numbers, and the command that measures it."""
    results, lines = Results(folder), []
    for claim in CLAIMS:
        try:
            holds, numbers = claim.check(results)
            verdict = "holds" if holds else "does not hold"
        except NotMeasured as missing:
            verdict, numbers = "not measured", f"no row {missing}"
        said, command = f"{claim.text} ({claim.source})", f"python -m trainer.run suite:{claim.suite}"
        lines.append({"claim": said, "verdict": verdict, "measured": numbers, "command": command})
    return lines


def as_markdown(lines: list[dict[str, str]]) -> str:
    """The verdicts as a table."""
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
