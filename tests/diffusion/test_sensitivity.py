"""The weight of each step: the effect of an error in its prediction on the final image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver, make_solver
from deediff.diffusion.solvers.sensitivity import x0_weights


@pytest.mark.parametrize(("name", "eta"), [("ddim", 0.0), ("ddim", 0.7), ("ddpm", 0.0), ("dpm-solver++", 0.0)])
def test_a_steps_weight_is_how_far_an_error_in_it_moves_the_image(name: str, eta: float) -> None:
    """Finite differences through the whole solver, on a toy network whose other predictions are held."""
    solver = make_solver(name, Schedule(), 12, eta=eta)
    rng = torch.Generator().manual_seed(0)
    start, *others = torch.randn(25, 1, 1, 2, 2, dtype=torch.float64, generator=rng)
    eps, noise = others[:12], others[12:]

    def image(wrong: int, by: float) -> Tensor:
        x, previous = start, None
        for s in range(12):
            answer = eps[s] + (by if s == wrong else 0.0)
            x0 = solver.predict_x0(s, x, answer)
            x, previous = solver.step(s, x, answer, noise[s], previous), x0
        return x

    moved = [float((image(s, 1e-3) - image(s, -1e-3)).abs().mean()) / 2e-3 for s in range(12)]
    np.testing.assert_allclose(x0_weights(solver), moved, rtol=1e-6)


def test_ddims_weights_are_the_noise_to_signal_that_each_step_removes() -> None:
    solver: Solver = make_solver("ddim", Schedule(), 7)
    a = np.array([solver.alpha_bar(s) for s in range(7)])
    sigma = np.append(np.sqrt((1 - a) / a), 0)
    np.testing.assert_allclose(x0_weights(solver), sigma[:-1] - sigma[1:])
