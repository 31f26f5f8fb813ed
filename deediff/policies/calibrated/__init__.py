"""Policies with thresholds per timestep, derived from the calibration of the checkpoint."""

from deediff.policies.calibrated.excess import Excess
from deediff.policies.calibrated.stopping import OptimalStopping
from deediff.policies.calibrated.table import CalibratedThresholds

__all__ = ["CalibratedThresholds", "Excess", "OptimalStopping"]
