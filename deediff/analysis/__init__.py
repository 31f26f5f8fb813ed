"""Statistics of finished traces: trends, variance, static schedules, comparisons, origins and published results."""
