"""The training losses of DeeDiff/AdaDiff (arXiv 2309.17074).

Every ‖·‖² is a mean over pixels and channels and a mean over the batch; exits are summed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossTerms:
    """The four terms, scalars, and their weighted sum (Eq. 9 with the added fourth term)."""

    simple: Tensor
    uncertainty: Tensor
    ual: Tensor
    layer: Tensor
    total: Tensor


def squared_error(prediction: Tensor, noise: Tensor) -> Tensor:
    """Per-sample mean over pixels and channels: (…,B,C,H,W), (B,C,H,W) → (…,B)."""
    return (prediction - noise).square().mean(dim=(-3, -2, -1))


def simple_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Eq. 4: L_simple = E‖ε − ε_θ(x_t, t)‖². (B,C,H,W) twice → scalar."""
    return squared_error(prediction, noise).mean()


def uncertainty_target(predictions: Tensor, noise: Tensor) -> Tensor:
    """Eq. 6: û_i = mean tanh|g_i − ε|, without gradient. (N,B,C,H,W), (B,C,H,W) → (N,B)."""
    return (predictions - noise).abs().tanh().mean(dim=(-3, -2, -1)).detach()


def uncertainty_loss(u: Tensor, target: Tensor) -> Tensor:
    """Eq. 7: L_u = Σ_i ‖u_i − û_i‖². (N,B) twice → scalar."""
    return (u - target).square().mean(dim=-1).sum()


def uncertainty_aware_layer_loss(u: Tensor, error: Tensor) -> Tensor:
    """Eq. 8: L_UAL = Σ_i (1 − u_i) ‖g_i − ε‖², the weight without gradient. (N,B) twice → scalar."""
    return ((1 - u.detach()) * error).mean(dim=-1).sum()


def layer_loss(error: Tensor) -> Tensor:
    """Eq. 10: L_L = Σ_i ‖g_i − ε‖². (N,B) → scalar."""
    return error.mean(dim=-1).sum()


def early_exit_loss(
    predictions: Tensor,  # (N+1, B, C, H, W), the last one the backbone's own
    u: Tensor,  # (N, B)
    noise: Tensor,  # (B, C, H, W)
    lambda_u: float = 1.0,  # λ of Eq. 9
    beta_ual: float = 1.0,  # β of Eq. 9
    layer_weight: float = 0.0,  # coefficient of Eq. 10; the literature's fourth loss uses 1
) -> LossTerms:
    """Eq. 9 plus Eq. 10: L = L_simple + λ L_u + β L_UAL + c L_L."""
    error = squared_error(predictions[:-1], noise)  # (N, B)
    simple = simple_loss(predictions[-1], noise)
    uncertainty = uncertainty_loss(u, uncertainty_target(predictions[:-1], noise))
    ual = uncertainty_aware_layer_loss(u, error)
    layer = layer_loss(error)
    total = simple + lambda_u * uncertainty + beta_ual * ual + layer_weight * layer
    return LossTerms(simple, uncertainty, ual, layer, total)
