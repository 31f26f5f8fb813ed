"""`python -m trainer.run claims`: published claims about early exit, compared with the suites' results.

Sources of the claims: Gallo et al. (blog, see `deediff.analysis.published`), AdaDiff (arXiv 2309.17074), DuoDiff
(arXiv 2410.09633) and ASE (Moon et al., ICML 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainer.suites.checks import (
    DUAL,
    FEWER,
    FOUR,
    FROZEN,
    PER_BOTH,
    PER_TIMESTEP,
    SCRATCH,
    SMALLER,
    STATIC,
    TUNED,
    WRONG_TIMESTEP,
    Check,
    ase_saves,
    attention_costs_more,
    beats,
    early_first_steps,
    finetuned_exit_earlier,
    forty_percent,
    fourth_loss_helps,
    layer_0_at_highest_threshold,
    low_threshold_keeps_quality,
    never_exits,
    rises_after_middle,
    scratch_is_worst,
    timestep_decides,
)
from trainer.suites.plan_claims import plan_verdicts
from trainer.suites.results import NotMeasured, SuiteResults, Verdict

VERDICTS: dict[Verdict, str] = {True: "holds", False: "does not hold", None: "inside the noise"}


@dataclass(frozen=True)
class Claim:
    """A published claim, and its check."""

    text: str
    source: str
    suite: str  # the suite that measures it
    rule: str  # the check in words
    check: Check


RISES = "after the middle block, mean u exceeds 1.1 times its least value up to there, in every third of the steps"
FLAT = "after the middle block, mean u stays below 1.1 times its least value up to there, in every third of the steps"
BEATS = "it costs no more than 1.05 times as much, and its quality is better beyond both intervals"
CLAIMS = [
    Claim(
        "exits are very early in the first steps, and there are almost none in the last",
        "blog",
        "table1",
        "the mean exit layer of the first third is below half of the last third's, which is above 95 % of the blocks",
        early_first_steps,
    ),
    Claim(
        "with a frozen backbone u rises again after the middle block",
        "blog",
        "trends",
        RISES,
        rises_after_middle(FROZEN, expected=True),
    ),
    Claim("fine-tuning makes u monotone", "blog", "trends", FLAT, rises_after_middle(TUNED, expected=False)),
    Claim(
        "training from scratch makes u monotone", "blog", "trends", FLAT, rises_after_middle(SCRATCH, expected=False)
    ),
    Claim("the fourth loss makes u monotone", "blog", "trends", FLAT, rises_after_middle(FOUR, expected=False)),
    Claim(
        "layer 0 is chosen only at the highest threshold, 0.1",
        "blog",
        "table4",
        "its share of the decisions is 0.5 % or more at 0.1, and less at 0.05 and 0.075",
        layer_0_at_highest_threshold,
    ),
    Claim(
        "τ ≤ 0.05 hardly changes the images, a higher one does",
        "blog",
        "table4",
        "the quality is worse than the full network's by less than a tenth at 0.05, and by more at 0.075",
        low_threshold_keeps_quality,
    ),
    Claim(
        "fine-tuned backbones exit earlier than frozen ones, and their images are worse",
        "blog",
        "table1",
        "more layers are saved, and the quality is worse beyond both intervals; also for attention UEMs",
        finetuned_exit_earlier,
    ),
    Claim(
        "training from scratch gives the worst images",
        "blog",
        "table1",
        "the quality is worse than fine-tuned beyond both intervals; also for attention UEMs",
        scratch_is_worst,
    ),
    Claim(
        "with UEMs per timestep a frozen backbone never exits",
        "blog",
        "table1",
        "less than 1 % of the layers saved",
        never_exits(PER_TIMESTEP, WRONG_TIMESTEP),
    ),
    Claim(
        "with UEMs per layer and timestep a frozen backbone never exits",
        "blog",
        "table1",
        "less than 1 % of the layers saved",
        never_exits(PER_BOTH),
    ),
    Claim(
        "attention UEMs save as many layers as MLPs, for more GFLOPs",
        "blog",
        "table1",
        "the layers saved differ by less than 3 points, and the GFLOPs are higher; also fine-tuned",
        attention_costs_more,
    ),
    Claim(
        "the fourth loss gives better images at the same exits",
        "blog",
        "table3",
        "the layers saved differ by less than 3 points, and the quality is better beyond both intervals; also for "
        "attention UEMs",
        fourth_loss_helps,
    ),
    Claim(
        "40 % fewer layers at nearly equal quality",
        "AdaDiff",
        "table1",
        "the best of all methods that save 40 % is worse than the full network by less than a tenth",
        forty_percent,
    ),
    Claim(
        "early exit beats a static schedule of the same cost",
        "question of AdaDiff's reviewers",
        "baselines",
        BEATS,
        beats(FROZEN, STATIC),
    ),
    Claim(
        "early exit beats fewer steps at the same cost",
        "question of AdaDiff's reviewers",
        "baselines",
        BEATS,
        beats(FROZEN, FEWER),
    ),
    Claim(
        "early exit beats a smaller network of the same cost",
        "question of AdaDiff's reviewers",
        "baselines",
        BEATS,
        beats(FROZEN, SMALLER),
    ),
    Claim(
        "a shallow network for the first steps beats early exit at equal cost",
        "DuoDiff",
        "baselines",
        BEATS,
        beats(DUAL, FROZEN),
    ),
    Claim(
        "the timestep determines the exit layer",
        "DuoDiff",
        "table1",
        "it explains more than 90 % of the exit layer's variance with every UEM and strategy at 0.075",
        timestep_decides,
    ),
    Claim(
        "a fixed exit layer per block of timesteps saves 20 % or more at nearly equal quality",
        "ASE",
        "baselines",
        "20 % of the GFLOPs are saved, and the quality is worse than the full network's by less than a tenth",
        ase_saves,
    ),
]


def verdicts(folder: Path) -> list[dict[str, str]]:
    """A row per claim: the claim, its verdict, the numbers, the rule, and the command that measures them.

    Published claims first, then those about plans whose fronts are in the folder.
    """
    results, lines = SuiteResults(folder), []
    for claim in CLAIMS:
        try:
            holds, numbers = claim.check(results)
            verdict = VERDICTS[holds]
        except NotMeasured as missing:
            verdict, numbers = "not measured", f"no row {missing}"
        claimed, command = f"{claim.text} ({claim.source})", f"python -m trainer.run suite:{claim.suite}"
        line = {"claim": claimed, "verdict": verdict, "measured": numbers, "holds when": claim.rule, "command": command}
        lines.append(line)
    return [*lines, *plan_verdicts(folder)]


def as_markdown(lines: list[dict[str, str]]) -> str:
    """The verdicts as a Markdown table."""
    rows = [list(lines[0]), ["---"] * len(lines[0]), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
