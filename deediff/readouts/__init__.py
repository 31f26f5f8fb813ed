"""Readouts: how a step of a plan obtains its prediction, one file each.

`head` runs the network up to the exit. The others run no block.
"""

from deediff.readouts.base import Readout, ReadoutState
from deediff.readouts.registry import READOUTS, make_readout

__all__ = ["READOUTS", "Readout", "ReadoutState", "make_readout"]
