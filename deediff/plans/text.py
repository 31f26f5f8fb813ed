"""The steps of a plan as one line of text, for links: `999:gaussian,700:3,580,460@../small,100:output:0`.

Each step is TIMESTEP[:EXIT][:READOUT][@NETWORK]. EXIT is a layer or `policy`; without one, READOUT reads out exit 0, or
the full network runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

from deediff.digits import whole_number
from deediff.errors import UserError
from deediff.plans.plan import PlanStep


def steps_to_text(steps: Sequence[PlanStep]) -> str:
    """The inverse of `steps_from_text`. The exit layer 0 of readouts other than heads is left out."""
    return ",".join(map(_to_text, steps))


def _to_text(step: PlanStep) -> str:
    full = "full" if step.readout == "head" else 0  # what no exit stands for
    parts = [str(step.exit_layer)] * (step.exit_layer != full) + [step.readout] * (step.readout != "head")
    does = ":".join(parts)
    network = "" if step.network is None else f"@{quote(step.network, safe='/.')}"
    return f"{step.timestep}{does and ':' + does}{network}"


def steps_from_text(text: str) -> tuple[PlanStep, ...]:
    """Read the steps. Raises UserError, naming the step, when one is malformed."""
    return tuple(map(_from_text, text.split(",")))


def _from_text(text: str) -> PlanStep:
    body, _, network = text.partition("@")
    number, _, does = body.partition(":")
    first, _, readout = does.partition(":")
    timestep, layer = whole_number(number), whole_number(first)
    broken = timestep is None or (":" in body and not does) or ("@" in text and not network)
    if timestep is None or broken or (layer is None and first.isdecimal()):
        raise UserError(f"step {text[:60]!r} of a plan is malformed, expected TIMESTEP[:EXIT][:READOUT][@NETWORK]")
    name = unquote(network) or None
    if not does:
        return PlanStep(timestep, network=name)
    if layer is None and first != "policy":
        return PlanStep(timestep, 0, does)
    return PlanStep(timestep, "policy" if layer is None else layer, readout or "head", name)
