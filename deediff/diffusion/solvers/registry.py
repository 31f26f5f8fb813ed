"""All solvers by name. To add a solver: its file, and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers.base import Solver
from deediff.diffusion.solvers.ddim import DDIM
from deediff.diffusion.solvers.ddpm import DDPM
from deediff.diffusion.solvers.diffusers import PREFIX, DiffusersSolver
from deediff.diffusion.solvers.dpm_solver import DPMSolver
from deediff.errors import UserError

SOLVERS: dict[str, type[Solver]] = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "dpm-solver++": DPMSolver,
}


def make_solver(
    name: str,
    schedule: Schedule,
    steps: int | Sequence[int],  # a number, or the timesteps themselves, descending
    spacing: str = "trailing",  # of a number of steps
    eta: float = 0.0,
) -> Solver:
    """A solver by name. Raises UserError for an unknown name or a setting out of range."""
    if name.startswith(PREFIX) and not eta:
        return DiffusersSolver(name.removeprefix(PREFIX), schedule, steps, spacing)
    if name not in SOLVERS and not name.startswith(PREFIX):
        raise UserError(f"unknown solver {name!r}, expected one of: {', '.join(SOLVERS)}, {PREFIX}NAME")
    cls = SOLVERS.get(name, DiffusersSolver)
    if cls.has_eta:
        return cls(schedule, steps, spacing, eta=eta)  # type: ignore[call-arg]
    if eta:
        with_eta = ", ".join(known for known, solver in SOLVERS.items() if solver.has_eta)
        raise UserError(f"eta is {eta}, but only {with_eta} has one: leave it out with {name}")
    return cls(schedule, steps, spacing)
