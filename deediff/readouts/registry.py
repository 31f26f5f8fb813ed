"""All readouts by name. To add one: its file, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deediff.errors import UserError
from deediff.readouts.base import Readout
from deediff.readouts.gaussian import GaussianReadout, Teleport
from deediff.readouts.identity import Input
from deediff.readouts.output import read_output


@dataclass(frozen=True)
class ReadoutEntry:
    """How a readout is written, what it does, and how it is read from the text after its name."""

    usage: str
    help: str
    read: Callable[[str], Readout] | None  # None: the network itself


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
        "output:o", "exit 0: the last predictions of ε, reused (o = 0) or extrapolated (o = 1, 2)", read_output
    ),
}


def make_readout(spec: str) -> Readout | None:
    """A readout from its text, for example 'output:0'; None for `head`. Raises UserError when it cannot be read."""
    name, _, argument = spec.partition(":")
    entry = READOUTS.get(name)
    if entry is None or (argument and ":" not in entry.usage):
        known = ", ".join(entry.usage for entry in READOUTS.values())
        raise UserError(f"unknown readout {spec!r}, expected one of: {known}")
    return None if entry.read is None else entry.read(argument)
