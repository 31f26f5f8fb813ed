"""Training, one process or many: `python -m trainer.run PRESET`."""
