"""Experiment suites: the rows of tables, trained, sampled, evaluated and compared with published values."""
