"""All readouts by name. To add one: its file, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deediff.digits import whole_number
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.readouts.base import Readout
from deediff.readouts.extrapolation import ORDERS
from deediff.readouts.gaussian import GaussianReadout, Teleport
from deediff.readouts.identity import Input
from deediff.readouts.memory import Deep, Memory, StateReadout
from deediff.readouts.output import Output
from deediff.readouts.skip import Skip


@dataclass(frozen=True)
class ReadoutEntry:
    """How a readout is written, what it does, and how it is read from the text after its name."""

    usage: str
    help: str
    read: Callable[[str], Readout | StateReadout] | None  # None: the network itself


READOUTS: dict[str, ReadoutEntry] = {
    "head": ReadoutEntry("head", "the output head of the exit layer", None),
    "gaussian": ReadoutEntry(
        "gaussian", "exit 0: E[ε | x_t] of a Gaussian with the data's mean and covariance", lambda _: GaussianReadout()
    ),
    "teleport": ReadoutEntry(
        "teleport", "exit 0: that Gaussian's probability-flow ODE, solved up to the next timestep", lambda _: Teleport()
    ),
    "input": ReadoutEntry("input", "exit 0: ε = x_t", lambda _: Input()),
    "output": ReadoutEntry(
        "output:o",
        "exit 0: the last predictions of ε, reused (o = 0) or extrapolated (o = 1, 2)",
        lambda argument: Output(_whole("output", argument)),
    ),
    "skip": ReadoutEntry(
        "skip", "exit 0: nothing; the solver step goes on to the next timestep (every:k, drift:δ)", lambda _: Skip()
    ),
    "memory": ReadoutEntry(
        "memory:o",
        "any exit i: h_i plus what the later blocks added at the last full evaluations, reused or extrapolated",
        lambda argument: Memory(_whole("memory", argument)),
    ),
    "deep": ReadoutEntry(
        "deep:j",
        "exit j: the first and last j blocks, with the state between them of the last full evaluation (DeepCache)",
        lambda argument: Deep(_whole("deep", argument)),
    ),
}


def make_readout(spec: str) -> Readout | StateReadout | None:
    """A readout from its text, for example 'output:0'; None for `head`. Raises UserError when it cannot be read."""
    name, _, argument = spec.partition(":")
    entry = READOUTS.get(name)
    if entry is None or (argument and ":" not in entry.usage):
        known = ", ".join(entry.usage for entry in READOUTS.values())
        raise UserError(f"unknown readout {spec!r}, expected one of: {known}")
    return None if entry.read is None else entry.read(argument)


def exit_readouts(model: EarlyExitModel) -> list[str]:
    """The readouts that exits may have: heads, memory, and those for which this model has the files."""
    found = ["head"]
    blocks = model.num_blocks
    joined = sum(model.backbone.skip_source(i) is not None for i in range(blocks))
    for name, entry in READOUTS.items():
        numbers = range(1, joined + 1) if name == "deep" else ORDERS
        for spec in [f"{name}:{number}" for number in numbers] if ":" in entry.usage else [name]:
            readout = make_readout(spec)
            try:
                if isinstance(readout, Readout):
                    readout.prepared(model)
            except UserError:
                continue
            found += [spec] if readout is not None else []
    return found


def _whole(name: str, argument: str) -> int:
    if (number := whole_number(argument)) is None:
        raise UserError(f"readout {name}:{argument} has {argument!r}, expected a whole number: {READOUTS[name].usage}")
    return number
