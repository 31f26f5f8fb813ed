"""Readouts: how a step of a plan obtains its prediction, one file each.

`head` runs the network up to the exit, `memory` and `deep` as well, and take the rest from the sample's last full
evaluations. The others run no block.
"""

from deediff.readouts.base import Readout, ReadoutState
from deediff.readouts.memory import StateReadout
from deediff.readouts.registry import READOUTS, exit_readouts, make_readout

__all__ = ["READOUTS", "Readout", "ReadoutState", "StateReadout", "exit_readouts", "make_readout"]
