"""What this project claims about plans, compared with the validated fronts that `deediff search` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deediff.errors import UserError
from deediff.json_files import read_json

ROOM = 0.02  # relative difference up to which two distances count as equal: 0.1 of fd-mnist 5


@dataclass(frozen=True)
class PlanClaim:
    """A saving of plans with exits against a rival of equal quality."""

    run: str
    kind: str  # of the rival's search, in front.json
    rival: str  # in words
    saving: float

    @property
    def text(self) -> str:
        """The claim."""
        return f"timesteps and exits chosen together cost {self.saving:.0%} less than {self.rival} ({self.run})"


UNIFORM, ENDS = "12 uniform steps", "the best searched plan that exits at its ends only"
CLAIMS = [
    PlanClaim(run, kind, rival, saving)
    for run in ("mnist_tiny", "uvit_tiny")
    for kind, rival, saving in (("uniform", UNIFORM, 0.7), ("ends", ENDS, 0.4))
]
RULE = (
    "the cheapest plan whose distance is at most 2 % above the rival's, sampled at equal noise that was not used for "
    "choosing, costs so much less"
)


def plan_verdicts(folder: Path) -> Iterator[dict[str, str]]:
    """A row per claim whose front is in a folder of runs. Raises UserError when a front is damaged."""
    for claim in CLAIMS:
        file = folder / claim.run / "front.json"
        if file.exists():
            try:
                verdict, measured = _judge(claim, file)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise UserError(f"{file} is damaged ({error!r}): run 'deediff search {file.parent}' again") from None
            command = f"deediff search runs/{claim.run}"
            yield dict(zip(COLUMNS, (claim.text, verdict, measured, RULE, command), strict=True))


COLUMNS = ("claim", "verdict", "measured", "holds when", "command")


def _judge(claim: PlanClaim, file: Path) -> tuple[str, str]:
    """Verdict, and the numbers."""
    front = read_json(file)
    metric = front["metric"]
    if "all" not in front or claim.kind not in front:
        return "not measured", f"no search over {claim.kind if 'all' in front else 'all'}"
    rivals = front[claim.kind]["points"]
    best = min(rivals, key=lambda point: point["metrics"][metric]["value"]) if claim.kind == "ends" else rivals[-1]
    limit = (1 + ROOM) * best["metrics"][metric]["value"]
    equal = [point for point in front["all"]["points"] if point["metrics"][metric]["value"] <= limit]
    against = f"{metric} {best['metrics'][metric]['value']:.2f} at {best['evaluations']:.2f} evaluations"
    if not equal:
        return "does not hold", f"no plan is within 2 % of {against}"
    plan = min(equal, key=lambda point: point["evaluations"])
    row = next((row for row in plan["compared_with"] if row["plan"] == best["plan"]), None)
    if row is None:  # validated before its rival
        return "not measured", f"{plan['plan']} was not compared with {best['plan']}: search with --validate-only"
    change = row["differences"][metric]
    numbers = (
        f"{row['saving']:.0%} less: {plan['evaluations']:.2f} evaluations against {against}, paired difference "
        f"{change['value']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}], N = {front['images']:,}"
    )
    return ("holds" if row["saving"] >= claim.saving else "does not hold"), numbers
