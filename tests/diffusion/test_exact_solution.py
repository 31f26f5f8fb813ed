"""Every solver and spacing against the exact solution: Gaussian data, for which the best denoiser is known.

For x_0 ~ N(0, s²) and a(t) = ᾱ_t, E[ε | x_t] = √(1−a) x_t / (a s² + 1−a); the probability flow maps x_T to
s x_T / √(a_T s² + 1−a_T). A linear denoiser keeps all distributions Gaussian, so means over x_T are closed forms.
"""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import SOLVERS, SPACINGS, Solver, make_solver

DATA = 0.5  # s
STEPS = (1, 2, 5, 10, 20, 50)
EXPECTED = {  # mean |x − exact| over x_T ~ N(0, 1), by solver and spacing
    ("ddim", "trailing"): (0.3977, 0.3419, 0.1895, 0.1038, 0.0548, 0.0228),
    ("ddim", "linspace"): (0.3977, 0.3897, 0.2194, 0.1104, 0.0555, 0.0224),
    ("ddim", "quadratic"): (0.3977, 0.3897, 0.1341, 0.0667, 0.0331, 0.0132),
    ("ddim", "log-snr"): (0.3977, 0.3897, 0.1915, 0.0939, 0.0477, 0.0193),
    ("dpm-solver++", "trailing"): (0.3977, 0.3419, 0.1825, 0.0760, 0.0174, 0.0004),
    ("dpm-solver++", "linspace"): (0.3977, 0.3422, 0.1832, 0.0770, 0.0184, 0.0002),
    ("dpm-solver++", "quadratic"): (0.3977, 0.3897, 0.0377, 0.0424, 0.0092, 0.0010),
    ("dpm-solver++", "log-snr"): (0.3977, 0.3897, 0.0800, 0.0126, 0.0058, 0.0009),
}


def update(solver: Solver, s: int, x: float, noise: float, before: Tensor | None = None) -> tuple[float, Tensor]:
    """One step with the exact denoiser: the next x, and the predicted x_0."""
    a, state = solver.alpha_bar(s), torch.tensor([x], dtype=torch.float64)
    eps = (1 - a) ** 0.5 * state / (a * DATA**2 + 1 - a)
    after = solver.step(s, state, eps, torch.full_like(state, noise), before)
    return float(after), solver.predict_x0(s, state, eps)


def mean_error(solver: Solver) -> float:
    """Mean |x − exact|: the update is linear in x_T."""
    a, x, before = solver.alpha_bar(0), 1.0, None
    exact = DATA / (a * DATA**2 + 1 - a) ** 0.5
    for s in range(len(solver.timesteps)):
        x, before = update(solver, s, x, 0.0, before)
    return abs(x - exact) * math.sqrt(2 / math.pi)


def spread(solver: Solver) -> float:
    """Standard deviation of x_0 over x_T and the noise of all steps, for a solver that reads one step only."""
    variance = 1.0
    for s in range(len(solver.timesteps)):
        factor, noise = update(solver, s, 1.0, 0.0)[0], update(solver, s, 0.0, 1.0)[0]
        variance = factor**2 * variance + noise**2
    return variance**0.5


@pytest.mark.parametrize(("name", "spacing"), EXPECTED)
def test_deterministic_solvers_reach_the_exact_solution(name: str, spacing: str) -> None:
    errors = [mean_error(make_solver(name, Schedule(), steps, spacing)) for steps in STEPS]
    assert errors == pytest.approx(EXPECTED[name, spacing], abs=1e-4)


def test_all_deterministic_solvers_and_spacings_are_listed() -> None:
    deterministic = [name for name, solver in SOLVERS.items() if not getattr(solver, "stochastic", False)]
    assert set(product(deterministic, SPACINGS)) == set(EXPECTED)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [20, 50, 200])
def test_the_second_order_solver_is_nearer_than_the_first_order_one(spacing: str, steps: int) -> None:
    second, first = (mean_error(make_solver(name, Schedule(), steps, spacing)) for name in ("dpm-solver++", "ddim"))
    assert second < first / 2


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 1.0), ("ddim", 0.5)])
def test_the_spread_of_stochastic_solvers_grows_to_that_of_the_data(name: str, eta: float, spacing: str) -> None:
    """The posterior variance β̃_t is that of a known x_0, so few steps spread too little; many are exact."""
    spreads = [spread(make_solver(name, Schedule(), steps, spacing, eta)) for steps in (*STEPS, 1000)]
    assert spreads == sorted(spreads)
    assert spreads[0] < 0.01
    assert spreads[-1] == pytest.approx(DATA, rel=0.02)
