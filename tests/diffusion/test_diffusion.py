"""Eq. 1–10 on cases small enough to compute by hand."""

from __future__ import annotations

import math

import pytest
import torch

from deediff.diffusion.losses import (
    LossOptions,
    early_exit_loss,
    layer_loss,
    simple_loss,
    squared_error,
    uncertainty_aware_layer_loss,
    uncertainty_loss,
    uncertainty_target,
)
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDPM


def images(*values: float) -> torch.Tensor:
    """One 1×1×2 image per pair of values."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 2)


def test_eq1_forward_process() -> None:
    schedule = Schedule(num_timesteps=2, beta_start=0.1, beta_end=0.2)
    torch.testing.assert_close(schedule.alphas_bar, torch.tensor([0.9, 0.9 * 0.8], dtype=torch.float64))
    x = schedule.add_noise(images(1, 2), torch.tensor([1]), images(3, -1))
    a = 0.72
    torch.testing.assert_close(x, images(a**0.5 + 3 * (1 - a) ** 0.5, 2 * a**0.5 - (1 - a) ** 0.5))


def test_eq2_and_3_ancestral_step() -> None:
    """Three timesteps by hand; the paper's t counts from 1, ours from 0."""
    schedule = Schedule(num_timesteps=3, beta_start=0.1, beta_end=0.3)
    solver = DDPM(schedule, 3)
    x, eps, z = images(1, 2), images(0.5, -1), images(2, 1)
    beta, a_bar, a_bar_prev = 0.3, 0.9 * 0.8 * 0.7, 0.9 * 0.8
    mean = (x - beta / math.sqrt(1 - a_bar) * eps) / math.sqrt(1 - beta)
    variance = (1 - a_bar_prev) / (1 - a_bar) * beta
    torch.testing.assert_close(solver.step(0, x, eps, z), mean + math.sqrt(variance) * z)
    assert not solver.needs_noise(2)
    torch.testing.assert_close(solver.step(2, x, eps), (x - 0.1 / math.sqrt(0.1) * eps) / math.sqrt(0.9))


def test_eq4_simple_loss() -> None:
    assert simple_loss(images(1, 2, 0, 0), images(0, 0, 0, 2)).item() == pytest.approx(((1 + 4) / 2 + 4 / 2) / 2)


def test_eq6_target_is_the_mean_of_tanh_of_the_absolute_error() -> None:
    predictions = torch.stack([images(1, -1), images(0, 3)])
    target = uncertainty_target(predictions, images(0, 0))
    expected = torch.tensor([[math.tanh(1)], [math.tanh(3) / 2]])
    torch.testing.assert_close(target, expected)


def test_eq7_8_10_sum_over_exits_and_average_over_the_batch() -> None:
    u, target = torch.tensor([[0.5, 0.1], [0.2, 0.4]]), torch.tensor([[0.3, 0.1], [0.0, 0.1]])
    error = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert uncertainty_loss(u, target).item() == pytest.approx(0.04 / 2 + (0.04 + 0.09) / 2)
    ual = (0.5 * 1 + 0.9 * 2) / 2 + (0.8 * 3 + 0.6 * 4) / 2
    assert uncertainty_aware_layer_loss(u, error).item() == pytest.approx(ual)
    assert layer_loss(error).item() == pytest.approx(1.5 + 3.5)


def test_eq9_weights_the_terms() -> None:
    torch.manual_seed(0)
    predictions, noise, u = torch.randn(4, 2, 1, 3, 3), torch.randn(2, 1, 3, 3), torch.rand(3, 2)
    terms = early_exit_loss(predictions, u, noise, LossOptions(lambda_u=2, beta_ual=3, layer_weight=5))
    assert terms.total.item() == pytest.approx(
        (terms.simple + 2 * terms.uncertainty + 3 * terms.ual + 5 * terms.layer).item(), rel=1e-6
    )
    error = squared_error(predictions[:3], noise)
    assert error.shape == (3, 2)
    assert terms.layer.item() == pytest.approx(layer_loss(error).item())


def test_adadiffs_weights_are_shares_of_the_certainty_and_learn() -> None:
    torch.manual_seed(0)
    predictions, noise = torch.randn(4, 5, 1, 2, 2), torch.randn(5, 1, 2, 2)
    u = torch.rand(3, 5, requires_grad=True)
    terms = early_exit_loss(predictions, u, noise, LossOptions(share_weights=True))
    error = (predictions[:-1] - noise).square().mean((2, 3, 4))
    certainty = [float((1 - u[i]).mean().detach()) for i in range(3)]
    expected = sum(certainty[i] / sum(certainty) * float(error[i].mean()) for i in range(3))
    assert float(terms.ual.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(terms.ual, u)
    worst = int(error.mean(dim=1).argmax())
    assert (gradient[worst] < 0).all()  # less certainty at the worst exit would lower the loss


def test_no_gradient_flows_through_the_target_or_the_weight() -> None:
    noise = torch.randn(2, 1, 3, 3)
    predictions = torch.randn(4, 2, 1, 3, 3, requires_grad=True)
    u = torch.rand(3, 2, requires_grad=True)
    only_u = early_exit_loss(predictions, u, noise, LossOptions(lambda_u=1, beta_ual=0))
    (only_u.total - only_u.simple).backward()
    assert not predictions.grad[:3].any()  # Eq. 6's target is detached
    assert u.grad.abs().sum() > 0
    u.grad = None
    only_ual = early_exit_loss(predictions, u, noise, LossOptions(lambda_u=0, beta_ual=1))
    only_ual.total.backward()
    assert not u.grad.any()  # Eq. 8's weight is detached
