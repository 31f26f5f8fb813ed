"""`python -m trainer.run claims`: what was claimed about early exit, held against the suites' results files.

Source of the claims: Gallo et al. (blog, see `deediff.analysis.published`), AdaDiff (arXiv 2309.17074), DuoDiff
(arXiv 2410.09633) and ASE (Moon et al., ICML 2024). A verdict is a comparison of measured numbers by a rule; both are
written out beside it. Two qualities whose 95 % intervals overlap are not told apart: "inside the noise".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.suites.measured import NEAR, Answer, NotMeasured, Results, every
from trainer.suites.tables import SUITES

SAME = 3.0  # layer reductions that differ by less than so many percentage points are the same
ALIKE = 1.05  # costs below so many times another one are not dearer
VERDICTS: dict[Answer, str] = {True: "holds", False: "does not hold", None: "inside the noise"}

Check = Callable[[Results], tuple[Answer, str]]


@dataclass(frozen=True)
class Claim:
    """What was said, by whom, and how it is held against results."""

    text: str
    source: str
    suite: str  # that measures it
    rule: str  # when it holds, in words
    check: Check  # whether it holds, and the numbers


FULL = "U-ViT"
FROZEN, TUNED, SCRATCH = (f"MLP per layer, {strategy}" for strategy in ("frozen", "fine-tuned", "scratch"))
ATT_FROZEN, ATT_TUNED, ATT_SCRATCH = (
    f"attention per layer, {strategy}" for strategy in ("frozen", "fine-tuned", "scratch")
)
LOW, HIGH = f"{FROZEN}, τ = 0.05", f"{FROZEN}, τ = 0.1"
FOUR, ATT_FOUR = "MLP, 4 losses, fine-tuned", "attention, 4 losses, fine-tuned"
PER_TIMESTEP, PER_BOTH = "MLP per timestep, frozen", "MLP per layer and timestep, frozen"
WRONG_TIMESTEP = f"{PER_TIMESTEP}: the first sample's timestep for the whole batch"
STATIC, FEWER, SMALLER, DUAL = "best static schedule", "fewer steps", "a smaller network", "dual backbone"
ASE = "ASE's schedule"
EARLY = {
    row.name: row for table in ("table1", "table3", "table4") for row in SUITES[table] if row.threshold is not None
}
AT_TAU = [name for name, row in EARLY.items() if row.threshold == 0.075]


def _early(r: Results) -> tuple[Answer, str]:
    (first, middle, last), blocks = r[FROZEN]["mean_exit_layer"], r[FROZEN]["num_blocks"]
    numbers = f"mean exit layer {first:.1f}, {middle:.1f} and {last:.1f} of {blocks} by thirds of the steps"
    return first < last / 2 and last > 0.95 * blocks, numbers


def _rises(name: str, expected: bool) -> Check:
    def check(r: Results) -> tuple[Answer, str]:
        rises, texts = [], []
        for u in r.uncertainty(name):
            middle = len(u) // 2  # the block between the halves
            low, high = min(u[: middle + 1]), max(u[middle + 1 :])
            rises.append(high > (1 + NEAR) * low)
            texts.append(f"{low:.3f} → {high:.3f} ({100 * (high / low - 1):+.1f} %)")
        numbers = f"by thirds of the steps {', '.join(texts)}"
        return all(rises) if expected else not any(rises), numbers

    return check


def _layer_0(r: Results) -> tuple[Answer, str]:
    low, middle, high = (r[name]["layer_0_pct"] for name in (LOW, FROZEN, HIGH))
    return max(low, middle) < 0.5 <= high, f"{low:.2f}, {middle:.2f} and {high:.2f} % of the decisions"


def _thresholds(r: Results) -> tuple[Answer, str]:
    full, low, high = (r.quality(name) for name in (FULL, LOW, FROZEN))
    changes = high.near(full)
    numbers = f"quality {full} in full, {low} at 0.05, {high} at 0.075"
    return every(low.near(full), None if changes is None else not changes), numbers


def _tuned(r: Results) -> tuple[Answer, str]:
    answers: list[Answer] = []
    texts = []
    for tuned, frozen in r.pairs((TUNED, FROZEN), (ATT_TUNED, ATT_FROZEN)):
        answers += [r[tuned]["layer_reduction_pct"] > r[frozen]["layer_reduction_pct"]]
        answers += [r.quality(tuned).worse_than(r.quality(frozen))]
        texts.append(f"{_kind(tuned)}: {r.saved(tuned)} against {r.saved(frozen)}, {r.qualities(tuned, frozen)}")
    return every(*answers), "; ".join(texts)


def _scratch(r: Results) -> tuple[Answer, str]:
    pairs = r.pairs((SCRATCH, TUNED), (ATT_SCRATCH, ATT_TUNED))
    texts = [f"{_kind(a)}: {r.qualities(a, b)} fine-tuned" for a, b in pairs]
    return every(*(r.quality(a).worse_than(r.quality(b)) for a, b in pairs)), "; ".join(texts)


def _never(name: str, with_error: str | None = None) -> Check:
    def check(r: Results) -> tuple[Answer, str]:
        numbers = r.saved(name)
        if with_error is not None and with_error in r:
            numbers += f"; {r.saved(with_error)} when trained with the first sample's timestep for the whole batch"
        return r[name]["layer_reduction_pct"] < 1, numbers

    return check


def _attention(r: Results) -> tuple[Answer, str]:
    answers, texts = [], []
    for ours, mlp in r.pairs((ATT_FROZEN, FROZEN), (ATT_TUNED, TUNED)):
        a, b = r[ours], r[mlp]
        answers += [abs(a["layer_reduction_pct"] - b["layer_reduction_pct"]) < SAME, a["gflops"] > b["gflops"]]
        costs = f"{a['gflops']:.3g} GFLOPs against {b['gflops']:.3g}"
        texts.append(f"{ours.rpartition(', ')[2]}: {r.saved(ours)} against {r.saved(mlp)}, {costs}")
    return every(*answers), "; ".join(texts)


def _four_losses(r: Results) -> tuple[Answer, str]:
    answers: list[Answer] = []
    texts = []
    for four, three in r.pairs((FOUR, TUNED), (ATT_FOUR, ATT_TUNED)):
        answers += [abs(r[four]["layer_reduction_pct"] - r[three]["layer_reduction_pct"]) < SAME]
        answers += [r.quality(three).worse_than(r.quality(four))]
        texts.append(f"{_kind(four)}: {r.saved(four)} against {r.saved(three)}, {r.qualities(four, three)}")
    return every(*answers), "; ".join(texts)


def _headline(r: Results) -> tuple[Answer, str]:
    full = r.quality(FULL)
    saved = {name: r[name]["layer_reduction_pct"] for name in EARLY if name in r}
    bold = [name for name, percent in saved.items() if percent >= 40]
    if not bold:
        r[FROZEN]  # else nothing was measured at all
        return False, f"at most −{max(saved.values()):.1f} % layers"
    best = min(bold, key=lambda name: r.quality(name).value)
    numbers = f"best of {len(bold)}: {best}, {r.saved(best)}, quality {r.quality(best)} against {full} in full"
    return r.quality(best).near(full), numbers


def _beats(name: str, other: str) -> Check:
    """At equal cost: the first may not be dearer."""

    def check(r: Results) -> tuple[Answer, str]:
        ours, theirs = (r[row]["gflops_per_image"] for row in (name, other))
        numbers = f"{r.qualities(name, other)}, for {ours:.3g} and {theirs:.3g} GFLOPs per image"
        return every(r.quality(other).worse_than(r.quality(name)), ours < ALIKE * theirs), numbers

    return check


def _ase(r: Results) -> tuple[Answer, str]:
    saved = 100 * (1 - r[ASE]["gflops_per_image"] / r[FULL]["gflops_per_image"])
    numbers = f"−{saved:.0f} % GFLOPs, {r.qualities(ASE, FULL)} in full, without training for the schedule"
    return every(saved >= 20, r.quality(ASE).near(r.quality(FULL))), numbers


def _timestep(r: Results) -> tuple[Answer, str]:
    shares = {name: r[name]["timestep_share"] for name in AT_TAU if name in r}
    shares = {name: share for name, share in shares.items() if share is not None}  # None: all leave at one layer
    if not shares:
        raise NotMeasured(f"“{FROZEN}”")
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    numbers = f"{100 * shares[least]:.0f} % ({least}) to {100 * shares[most]:.0f} % ({most})"
    return shares[least] > 1 - NEAR, numbers


def _kind(name: str) -> str:
    """Of UEM: MLP or attention."""
    return name.split(" ")[0].rstrip(",")


RISES = "after the middle block, mean u exceeds 1.1 times its least value up to there, in every third of the steps"
FLAT = "after the middle block, mean u stays below 1.1 times its least value up to there, in every third of the steps"
BEATS = "it costs no more than 1.05 times as much, and its quality is better beyond both intervals"
CLAIMS = [
    Claim("exits are very early in the first steps, and there are almost none in the last", "blog", "table1",
          "the mean exit layer in the first third is below half of the last third's, and that above 95 % of the blocks",
          _early),
    Claim("with a frozen backbone u rises again after the middle block", "blog", "trends", RISES,
          _rises(FROZEN, expected=True)),
    Claim("fine-tuning makes u monotone", "blog", "trends", FLAT, _rises(TUNED, expected=False)),
    Claim("so does training from scratch", "blog", "trends", FLAT, _rises(SCRATCH, expected=False)),
    Claim("so does the fourth loss", "blog", "trends", FLAT, _rises(FOUR, expected=False)),
    Claim("layer 0 is chosen only at the highest threshold, 0.1", "blog", "table4",
          "it takes 0.5 % of the decisions at 0.1, and less at 0.05 and 0.075", _layer_0),
    Claim("τ ≤ 0.05 hardly changes the images, a higher one does", "blog", "table4",
          "the quality is worse than in full by less than a tenth at 0.05, and by more at 0.075", _thresholds),
    Claim("fine-tuned backbones exit earlier than frozen ones, and their images are worse", "blog", "table1",
          "more layers are saved, and the quality is worse beyond both intervals; so for attention UEMs", _tuned),
    Claim("training from scratch gives the worst images", "blog", "table1",
          "the quality is worse than fine-tuned beyond both intervals; so for attention UEMs", _scratch),
    Claim("with UEMs per timestep a frozen backbone never exits", "blog", "table1", "less than 1 % of the layers saved",
          _never(PER_TIMESTEP, WRONG_TIMESTEP)),
    Claim("nor with UEMs per layer and timestep", "blog", "table1", "less than 1 % of the layers saved",
          _never(PER_BOTH)),
    Claim("attention UEMs save as many layers as MLPs, for more GFLOPs", "blog", "table1",
          "the layers saved differ by less than 3 points, and the GFLOPs are more; so fine-tuned", _attention),
    Claim("the fourth loss gives better images at the same exits", "blog", "table3",
          "the layers saved differ by less than 3 points, and the quality is better beyond both intervals; so for "
          "attention UEMs", _four_losses),
    Claim("40 % fewer layers at nearly equal quality", "AdaDiff", "table1",
          "the best of all UEMs, strategies and thresholds that save 40 % is worse than in full by less than a tenth",
          _headline),
    Claim("early exit beats a static schedule of the same cost", "asked by AdaDiff's reviewers", "baselines", BEATS,
          _beats(FROZEN, STATIC)),
    Claim("early exit beats fewer steps at the same cost", "asked by AdaDiff's reviewers", "baselines", BEATS,
          _beats(FROZEN, FEWER)),
    Claim("early exit beats a smaller network of the same cost", "asked by AdaDiff's reviewers", "baselines", BEATS,
          _beats(FROZEN, SMALLER)),
    Claim("a shallow network for the first steps beats early exit at equal cost", "DuoDiff", "baselines", BEATS,
          _beats(DUAL, FROZEN)),
    Claim("the timestep decides where samples leave", "DuoDiff", "table1",
          "it explains more than 90 % of the exit layer's variance with every UEM and strategy at 0.075", _timestep),
    Claim("a fixed exit layer per block of timesteps saves 20 % or more at nearly equal quality", "ASE", "baselines",
          "so many GFLOPs saved, and the quality is worse than in full by less than a tenth", _ase),
]  # fmt: skip


def verdicts(folder: Path) -> list[dict[str, str]]:
    """A line per claim: what was said, whether it holds here and by what rule, the numbers, the command for them."""
    results, lines = Results(folder), []
    for claim in CLAIMS:
        try:
            holds, numbers = claim.check(results)
            verdict = VERDICTS[holds]
        except NotMeasured as missing:
            verdict, numbers = "not measured", f"no row {missing}"
        said, command = f"{claim.text} ({claim.source})", f"python -m trainer.run suite:{claim.suite}"
        line = {"claim": said, "verdict": verdict, "measured": numbers, "holds when": claim.rule, "command": command}
        lines.append(line)
    return lines


def as_markdown(lines: list[dict[str, str]]) -> str:
    """The verdicts as a table."""
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
