"""The training losses of DeeDiff/AdaDiff (arXiv 2309.17074).

Every ‖·‖² is a mean over pixels and channels and a mean over the batch; exits are summed. K is the
number of exits that have a UEM. `noise` below is the target of the prediction: ε, or x_0 or v.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossOptions:
    """Weights of the terms, and the variants of public code (off by default)."""

    lambda_u: float = 1.0  # λ of Eq. 9
    beta_ual: float = 1.0  # β of Eq. 9
    layer_weight: float = 0.0  # coefficient of Eq. 10; the literature's fourth loss uses 1
    sum_over_batch: bool = False  # L_u of the blog's code
    detach_target: bool = True  # False: L_u of the blog's code
    weight_by_target: bool = False  # L_UAL of the blog's code: weighted with û and its gradient instead of u
    share_weights: bool = False  # L_UAL of AdaDiff's code: see `certainty_shares`


STANDARD = LossOptions()


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


def uncertainty_map(predictions: Tensor, noise: Tensor, detach: bool = True) -> Tensor:
    """Eq. 6 before the mean: tanh|g_i − ε|. (K,B,C,H,W), (B,C,H,W) → (K,B,C,H,W).

    Without gradient by default. The blog's code keeps it, so that L_u trains the heads as well.
    """
    target = (predictions - noise).abs().tanh()
    return target.detach() if detach else target


def uncertainty_target(predictions: Tensor, noise: Tensor) -> Tensor:
    """Eq. 6: û_i = mean tanh|g_i − ε|, without gradient. (K,B,C,H,W), (B,C,H,W) → (K,B)."""
    return uncertainty_map(predictions, noise).mean(dim=(-3, -2, -1))


def uncertainty_loss(u: Tensor, target: Tensor, sum_over_batch: bool = False) -> Tensor:
    """Eq. 7: L_u = Σ_i ‖u_i − û_i‖². (K,B,…) twice → scalar; the blog's code sums over the batch as well."""
    per_sample = (u - target).square().flatten(2).mean(dim=2) if u.ndim > 2 else (u - target).square()
    return per_sample.sum() if sum_over_batch else per_sample.mean(dim=1).sum()


def uncertainty_aware_layer_loss(u: Tensor, error: Tensor) -> Tensor:
    """Eq. 8: L_UAL = Σ_i (1 − u_i) ‖g_i − ε‖². Weights (K,B), errors (K,B) → scalar."""
    return ((1 - u) * error).mean(dim=-1).sum()


def certainty_shares(u: Tensor) -> Tensor:
    """The weights of L_UAL in AdaDiff's code, with gradient: (K,B) → (K,1), sum 1.

    Each exit's share of the certainty 1 − u, averaged over the batch.
    """
    certainty = (1 - u).mean(dim=1, keepdim=True)
    return certainty / certainty.sum()


def layer_loss(error: Tensor) -> Tensor:
    """Eq. 10: L_L = Σ_i ‖g_i − ε‖². (K,B) → scalar."""
    return error.mean(dim=-1).sum()


def early_exit_loss(
    predictions: Tensor,  # (K+1, B, C, H, W), the last one the backbone's own
    u: Tensor,  # (K, B)
    noise: Tensor,  # (B, C, H, W)
    options: LossOptions = STANDARD,
    *,
    maps: Tensor | None = None,  # (K, B, C, H, W): u before pooling, if it is a map (AdaDiff)
) -> LossTerms:
    """Eq. 9 plus Eq. 10: L = L_simple + λ L_u + β L_UAL + c L_L."""
    error = squared_error(predictions[:-1], noise)  # (K, B)
    simple = simple_loss(predictions[-1], noise)
    target = uncertainty_map(predictions[:-1], noise, options.detach_target)  # (K, B, C, H, W)
    mean_target = target.mean(dim=(-3, -2, -1))  # (K, B)
    pair = (u, mean_target) if maps is None else (maps, target)
    uncertainty = uncertainty_loss(*pair, options.sum_over_batch)
    weight = u.detach()
    if options.weight_by_target:
        weight = mean_target
    if options.share_weights:
        weight = 1 - certainty_shares(u)
    ual = uncertainty_aware_layer_loss(weight, error)
    layer = layer_loss(error)
    total = simple + options.lambda_u * uncertainty + options.beta_ual * ual + options.layer_weight * layer
    return LossTerms(simple, uncertainty, ual, layer, total)
