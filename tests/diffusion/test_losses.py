"""Losses of other sources: the errors of the blog's code, and maps compared value by value."""

from __future__ import annotations

import torch

from deediff.diffusion.losses import LossOptions, early_exit_loss


def loss_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    return torch.randn(4, 2, 1, 4, 4, requires_grad=True), torch.rand(3, 2, requires_grad=True), torch.randn(2, 1, 4, 4)


def test_the_blogs_errors_do_what_its_code_did() -> None:
    """Summed L_u, a target with gradient, and L_UAL weighted with that target."""
    predictions, u, noise = loss_inputs()
    target = (predictions[:-1] - noise).abs().tanh().mean((2, 3, 4))
    error = (predictions[:-1] - noise).square().mean((2, 3, 4))
    options = LossOptions(sum_over_batch=True, detach_target=False, weight_by_target=True, layer_weight=0.0)
    terms = early_exit_loss(predictions, u, noise, options)
    expected = ((u - target) ** 2).sum() + ((1 - target) * error).mean(1).sum()
    torch.testing.assert_close(terms.total - terms.simple, expected)
    ours, theirs = (torch.autograd.grad(loss, predictions)[0] for loss in (terms.total - terms.simple, expected))
    torch.testing.assert_close(ours, theirs)
    only_u = early_exit_loss(predictions, u, noise, LossOptions(beta_ual=0, detach_target=False))
    assert torch.autograd.grad(only_u.uncertainty, predictions)[0][:3].any()


def test_a_maps_loss_compares_value_by_value() -> None:
    predictions, _, noise = loss_inputs()
    maps = torch.rand(predictions[:-1].shape)
    target = (predictions[:-1] - noise).abs().tanh()
    expected = sum((maps[i] - target[i]).square().mean() for i in range(3))
    terms = early_exit_loss(predictions, maps.mean((2, 3, 4)), noise, maps=maps)
    torch.testing.assert_close(terms.uncertainty, expected)
