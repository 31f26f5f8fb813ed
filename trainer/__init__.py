"""Training in one process or many, and experiment suites: `python -m trainer.run`."""
