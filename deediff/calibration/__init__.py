"""u against the measured error of each exit: measure, store, recalibrate."""
