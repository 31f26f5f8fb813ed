"""Readouts against what they are defined by: exact Gaussians, exact polynomials, longer steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deediff.calibration.gaussian import ImageGaussian, fit_gaussian
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDIM
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.readouts import ReadoutState, make_readout
from deediff.readouts.gaussian import GaussianReadout
from deediff.sampling import sample
from tests.conftest import make_model

SHAPE = (2, 3, 3)
D = 18
SCHEDULE = Schedule()


def gaussian_data(count: int = 4000, rank: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of a Gaussian of low rank plus 0.01 I, its mean and its covariance."""
    g = torch.Generator().manual_seed(0)
    mean, mix = torch.randn(D, generator=g) * 0.3, torch.randn(D, rank, generator=g) * 0.4
    x = mean + torch.randn(count, rank, generator=g) @ mix.T + 0.1 * torch.randn(count, D, generator=g)
    return x.view(-1, *SHAPE), mean, mix @ mix.T + 0.01 * torch.eye(D)


def exact(rank: int = 5) -> tuple[ImageGaussian, torch.Tensor, torch.Tensor]:
    """The Gaussian itself, without estimation: axes of its covariance."""
    _, mean, covariance = gaussian_data(2, rank)
    variances, axes = torch.linalg.eigh(covariance)
    return ImageGaussian(mean.view(SHAPE), axes[:, -rank:].T, variances[-rank:], 0.01), mean, covariance


def test_the_fit_finds_mean_and_covariance() -> None:
    x, mean, covariance = gaussian_data(200_000)
    fitted = fit_gaussian(x.split(999), rank=5)
    found = fitted.axes.T @ torch.diag(fitted.variances - fitted.rest) @ fitted.axes + fitted.rest * torch.eye(D)
    torch.testing.assert_close(fitted.mean.flatten(), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(found, covariance, atol=0.02, rtol=0)
    torch.testing.assert_close(fitted.axes @ fitted.axes.T, torch.eye(5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("timestep", [999, 500, 20])
def test_the_prediction_is_the_conditional_expectation(timestep: int) -> None:
    gaussian, mean, covariance = exact()
    a = float(SCHEDULE.alphas_bar[timestep])
    x = torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(1))
    marginal = a * covariance + (1 - a) * torch.eye(D)  # of x_t
    noise = (1 - a) ** 0.5 * torch.linalg.solve(marginal, (x.flatten(1) - a**0.5 * mean).T).T  # Cov(ε, x_t) Σ⁻¹ …
    readout = GaussianReadout()
    readout.gaussian = gaussian
    torch.testing.assert_close(
        readout.epsilon(ReadoutState(x, a, 1.0, 0.0, [])).flatten(1), noise, atol=2e-4, rtol=1e-3
    )


def test_the_teleport_is_the_limit_of_many_steps() -> None:
    gaussian, _, _ = exact()
    readout = GaussianReadout()
    readout.gaussian = gaussian
    solver = DDIM(SCHEDULE, list(range(999, 199, -1)))
    start = x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(2))
    for s in range(len(solver.timesteps) - 1):
        x = solver.step(s, x, readout.epsilon(ReadoutState(x, solver.alpha_bar(s), 1.0, 0.0, [])))
    jump = gaussian.teleport(start, solver.alpha_bar(0), solver.alpha_bar(len(solver.timesteps) - 1))
    torch.testing.assert_close(jump, x, atol=0.02, rtol=0)
    assert float((jump - start).abs().mean()) > 0.3


def test_a_teleport_keeps_the_distribution() -> None:
    x, mean, covariance = gaussian_data(50_000)
    gaussian, _, _ = exact()
    a, b = 0.05, 0.6
    noised = a**0.5 * x + (1 - a) ** 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    moved = gaussian.teleport(noised, a, b).flatten(1)
    torch.testing.assert_close(moved.mean(dim=0), b**0.5 * mean, atol=0.02, rtol=0)
    torch.testing.assert_close(moved.T.cov(), b * covariance + (1 - b) * torch.eye(D), atol=0.03, rtol=0)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_extrapolation_is_exact_for_polynomials_of_its_order(order: int) -> None:
    def value(at: float) -> torch.Tensor:
        return torch.full((2, 1, 1, 1), sum((power + 1) * at**power for power in range(order + 1)))

    points = [(at, value(at)) for at in (-3.0, -1.5, -1.0)]
    readout = make_readout(f"output:{order}")
    assert readout is not None
    found = readout.epsilon(ReadoutState(points[0][1], 0.5, 0.6, 0.25, points))
    torch.testing.assert_close(found, value(0.25) if order else value(-1.0))


def test_reusing_epsilon_in_ddim_is_one_longer_step() -> None:
    model = make_model()
    reused = Plan((PlanStep(900), PlanStep(600), PlanStep(300, 0, "output:0")), 13, solver="ddim")
    longer = Plan((PlanStep(900), PlanStep(600)), 13, solver="ddim")
    (*_, a), (*_, b) = sample(model, num_samples=3, plan=reused), sample(model, num_samples=3, plan=longer)
    torch.testing.assert_close(a.x, b.x, atol=1e-4, rtol=1e-4)


def test_the_input_readout_repeats_the_noise() -> None:
    model = make_model()
    first, _ = sample(model, num_samples=3, seed=4, plan=Plan((PlanStep(999, 0, "input"), PlanStep(9)), 13))
    noise, a = sample_noise(4, range(3), 0, model.image_shape), float(SCHEDULE.alphas_bar[999])
    torch.testing.assert_close(first.x0, noise * (1 - (1 - a) ** 0.5) / a**0.5, atol=1e-4, rtol=0)


def test_a_gaussian_survives_its_file_and_a_damaged_one_is_a_sentence(tmp_path: Path) -> None:
    x, _, _ = gaussian_data()
    fitted, file = fit_gaussian([x], 5, {"source": "data"}), tmp_path / "g.npz"
    fitted.save(file)
    again = ImageGaussian.load(file)
    assert (again.rest, again.info["source"], again.info["images"]) == (fitted.rest, "data", 4000)
    torch.testing.assert_close(again.axes, fitted.axes, atol=1e-3, rtol=0)
    file.write_bytes(file.read_bytes()[:-40])
    for bad, sentence in ((file, "not a readable Gaussian"), (tmp_path / "none.npz", "does not exist")):
        with pytest.raises(UserError, match=sentence):
            ImageGaussian.load(bad)
    for images, rank, sentence in (([x[:1]], 5, "two images or more"), ([x], 0, "rank of a Gaussian is 0")):
        with pytest.raises(UserError, match=sentence):
            fit_gaussian(images, rank)
