"""Checks of published claims: comparisons of measured numbers by a rule, with the numbers as text.

Two qualities with overlapping 95 % intervals leave a check undecided.
"""

from __future__ import annotations

from collections.abc import Callable

from trainer.suites.results import TOLERANCE, NotMeasured, SuiteResults, Verdict, all_of
from trainer.suites.tables import SUITES

SAME = 3.0  # layer reductions count as equal if they differ by less, in percentage points
EQUAL_COST = 1.05  # a cost counts as no higher than another one up to this factor

Check = Callable[[SuiteResults], tuple[Verdict, str]]

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


def early_first_steps(r: SuiteResults) -> tuple[Verdict, str]:
    """Exits are early in the first third of the steps, and almost absent in the last."""
    (first, middle, last), blocks = r[FROZEN]["mean_exit_layer"], r[FROZEN]["num_blocks"]
    numbers = f"mean exit layer {first:.1f}, {middle:.1f} and {last:.1f} of {blocks} by thirds of the steps"
    return first < last / 2 and last > 0.95 * blocks, numbers


def rises_after_middle(name: str, expected: bool) -> Check:
    """Mean u rises (or does not rise) after the middle block, in every third of the steps."""

    def check(r: SuiteResults) -> tuple[Verdict, str]:
        rises, texts = [], []
        for u in r.uncertainty(name):
            middle = len(u) // 2  # the middle block
            low, high = min(u[: middle + 1]), max(u[middle + 1 :])
            rises.append(high > (1 + TOLERANCE) * low)
            texts.append(f"{low:.3f} → {high:.3f} ({100 * (high / low - 1):+.1f} %)")
        numbers = f"by thirds of the steps {', '.join(texts)}"
        return all(rises) if expected else not any(rises), numbers

    return check


def layer_0_at_highest_threshold(r: SuiteResults) -> tuple[Verdict, str]:
    """Layer 0 is an exit at the highest threshold only."""
    low, middle, high = (r[name]["layer_0_pct"] for name in (LOW, FROZEN, HIGH))
    return max(low, middle) < 0.5 <= high, f"{low:.2f}, {middle:.2f} and {high:.2f} % of the decisions"


def low_threshold_keeps_quality(r: SuiteResults) -> tuple[Verdict, str]:
    """The quality is kept at the low threshold, and lost at the higher one."""
    full, low, high = (r.quality(name) for name in (FULL, LOW, FROZEN))
    changes = high.near(full)
    numbers = f"quality {full} in full, {low} at 0.05, {high} at 0.075"
    return all_of(low.near(full), None if changes is None else not changes), numbers


def finetuned_exit_earlier(r: SuiteResults) -> tuple[Verdict, str]:
    """Fine-tuned backbones save more layers, and their quality is worse."""
    verdicts: list[Verdict] = []
    texts = []
    for tuned, frozen in r.measured_pairs((TUNED, FROZEN), (ATT_TUNED, ATT_FROZEN)):
        verdicts += [r[tuned]["layer_reduction_pct"] > r[frozen]["layer_reduction_pct"]]
        verdicts += [r.quality(tuned).worse_than(r.quality(frozen))]
        texts.append(
            f"{_kind(tuned)}: {r.saved_text(tuned)} against {r.saved_text(frozen)}, {r.quality_text(tuned, frozen)}"
        )
    return all_of(*verdicts), "; ".join(texts)


def scratch_is_worst(r: SuiteResults) -> tuple[Verdict, str]:
    """The quality after training from scratch is worse than after fine-tuning."""
    pairs = r.measured_pairs((SCRATCH, TUNED), (ATT_SCRATCH, ATT_TUNED))
    texts = [f"{_kind(a)}: {r.quality_text(a, b)} fine-tuned" for a, b in pairs]
    return all_of(*(r.quality(a).worse_than(r.quality(b)) for a, b in pairs)), "; ".join(texts)


def never_exits(name: str, with_error: str | None = None) -> Check:
    """Less than 1 % of the layers are saved."""

    def check(r: SuiteResults) -> tuple[Verdict, str]:
        numbers = r.saved_text(name)
        if with_error is not None and with_error in r:
            numbers += f"; {r.saved_text(with_error)} when trained with the first sample's timestep for the whole batch"
        return r[name]["layer_reduction_pct"] < 1, numbers

    return check


def attention_costs_more(r: SuiteResults) -> tuple[Verdict, str]:
    """Attention UEMs save as many layers as MLPs, for more GFLOPs."""
    verdicts, texts = [], []
    for ours, mlp in r.measured_pairs((ATT_FROZEN, FROZEN), (ATT_TUNED, TUNED)):
        a, b = r[ours], r[mlp]
        verdicts += [abs(a["layer_reduction_pct"] - b["layer_reduction_pct"]) < SAME, a["gflops"] > b["gflops"]]
        costs = f"{a['gflops']:.3g} GFLOPs against {b['gflops']:.3g}"
        texts.append(f"{ours.rpartition(', ')[2]}: {r.saved_text(ours)} against {r.saved_text(mlp)}, {costs}")
    return all_of(*verdicts), "; ".join(texts)


def fourth_loss_helps(r: SuiteResults) -> tuple[Verdict, str]:
    """The fourth loss improves the quality at the same layer reduction."""
    verdicts: list[Verdict] = []
    texts = []
    for four, three in r.measured_pairs((FOUR, TUNED), (ATT_FOUR, ATT_TUNED)):
        verdicts += [abs(r[four]["layer_reduction_pct"] - r[three]["layer_reduction_pct"]) < SAME]
        verdicts += [r.quality(three).worse_than(r.quality(four))]
        texts.append(
            f"{_kind(four)}: {r.saved_text(four)} against {r.saved_text(three)}, {r.quality_text(four, three)}"
        )
    return all_of(*verdicts), "; ".join(texts)


def forty_percent(r: SuiteResults) -> tuple[Verdict, str]:
    """The best method that saves 40 % of the layers keeps the quality."""
    full = r.quality(FULL)
    saved = {name: r[name]["layer_reduction_pct"] for name in EARLY if name in r}
    bold = [name for name, percent in saved.items() if percent >= 40]
    if not bold:
        r[FROZEN]  # raises NotMeasured without results
        return False, f"at most −{max(saved.values()):.1f} % layers"
    best = min(bold, key=lambda name: r.quality(name).value)
    numbers = f"best of {len(bold)}: {best}, {r.saved_text(best)}, quality {r.quality(best)} against {full} in full"
    return r.quality(best).near(full), numbers


def beats(name: str, other: str) -> Check:
    """The first row has the better quality, at no higher cost than the second."""

    def check(r: SuiteResults) -> tuple[Verdict, str]:
        ours, theirs = (r[row]["gflops_per_image"] for row in (name, other))
        numbers = f"{r.quality_text(name, other)}, for {ours:.3g} and {theirs:.3g} GFLOPs per image"
        return all_of(r.quality(other).worse_than(r.quality(name)), ours < EQUAL_COST * theirs), numbers

    return check


def ase_saves(r: SuiteResults) -> tuple[Verdict, str]:
    """ASE's schedule saves 20 % of the GFLOPs and keeps the quality."""
    saved = 100 * (1 - r[ASE]["gflops_per_image"] / r[FULL]["gflops_per_image"])
    numbers = f"−{saved:.0f} % GFLOPs, {r.quality_text(ASE, FULL)} in full, without training for the schedule"
    return all_of(saved >= 20, r.quality(ASE).near(r.quality(FULL))), numbers


def timestep_decides(r: SuiteResults) -> tuple[Verdict, str]:
    """The timestep explains more than 90 % of the exit layer's variance."""
    shares = {name: r[name]["timestep_share"] for name in AT_TAU if name in r}
    shares = {name: share for name, share in shares.items() if share is not None}  # None: all exits are at one layer
    if not shares:
        raise NotMeasured(f"“{FROZEN}”")
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    numbers = f"{100 * shares[least]:.0f} % ({least}) to {100 * shares[most]:.0f} % ({most})"
    return shares[least] > 1 - TOLERANCE, numbers


def _kind(name: str) -> str:
    """The UEM of a row: MLP or attention."""
    return name.split(" ")[0].rstrip(",")
