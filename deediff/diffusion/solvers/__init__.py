"""Solvers: one denoising step each, from x_t to x at the next (smaller) timestep."""

from deediff.diffusion.solvers.base import Solver
from deediff.diffusion.solvers.ddim import DDIM
from deediff.diffusion.solvers.ddpm import DDPM
from deediff.diffusion.solvers.dpm_solver import DPMSolver
from deediff.diffusion.solvers.registry import SOLVERS, make_solver
from deediff.diffusion.timesteps import SPACINGS, spaced_timesteps

__all__ = ["DDIM", "DDPM", "SOLVERS", "SPACINGS", "DPMSolver", "Solver", "make_solver", "spaced_timesteps"]
