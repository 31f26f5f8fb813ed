"""Prediction types: the noise ε, the clean image x_0, or the velocity v. Solvers take ε."""

from __future__ import annotations

from torch import Tensor

from deediff.errors import UserError

PREDICTIONS = ("epsilon", "x0", "v")


def check_prediction(kind: str) -> str:
    """Returns `kind`. Raises UserError when it is not one of PREDICTIONS."""
    if kind not in PREDICTIONS:
        raise UserError(f"the prediction type is {kind!r}, expected one of: {', '.join(PREDICTIONS)}")
    return kind


def training_target(kind: str, x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The target of the network's prediction: (B,C,H,W) twice, ᾱ (B,1,1,1) → (B,C,H,W).

    v = √ᾱ ε − √(1−ᾱ) x_0 (Salimans & Ho 2022, section 4).
    """
    if kind == "epsilon":
        return noise
    return x0 if kind == "x0" else alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x0


def to_epsilon(kind: str, output: Tensor, x: Tensor, alpha_bar: float) -> Tensor:
    """The noise ε equivalent to the network's output at x_t: (B,C,H,W) twice → (B,C,H,W).

    ε = (x_t − √ᾱ x_0) / √(1−ᾱ) = √ᾱ v + √(1−ᾱ) x_t (Salimans & Ho 2022, appendix D).
    """
    if kind == "epsilon":
        return output
    if kind == "x0":
        return (x - alpha_bar**0.5 * output) / (1 - alpha_bar) ** 0.5
    return alpha_bar**0.5 * output + (1 - alpha_bar) ** 0.5 * x


def epsilon_scale(kind: str, alpha_bar: float) -> float:
    """The factor from a difference of two predictions at the same x_t to the difference in ε."""
    return {"epsilon": 1.0, "x0": (alpha_bar / (1 - alpha_bar)) ** 0.5, "v": alpha_bar**0.5}[kind]
