"""The diffusion process: schedule, losses, solvers."""
