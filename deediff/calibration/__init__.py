"""Calibration: u against the measured error of each exit, and the maps that correct u."""
