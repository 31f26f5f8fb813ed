"""Leaving the network as optimal stopping: thresholds on u that spend a budget of GFLOPs where it matters.

What a step is worth: the solver's updates are linear in the predictions. Let x_{s+1} = A_s x_s + B_s ε_s (plus
noise) be step s, and hold the predictions of all other steps fixed. Then an error e in ε_s reaches the image as
(Π_{r>s} A_r) B_s e, the weight w_s of that step. For DDIM with η = 0, A_s = √(ᾱ′/ᾱ) and B_s = √(1−ᾱ′) −
√(ᾱ′(1−ᾱ)/ᾱ), with ᾱ′ the next step's ᾱ (1 after the last). The A telescope to 1/√ᾱ′, so

    w_s = |√((1−ᾱ′)/ᾱ′) − √((1−ᾱ)/ᾱ)| = σ_s − σ_{s+1},   σ = √((1−ᾱ)/ᾱ) the noise-to-signal ratio:

a step weighs what it removes of the noise. It is an upper end: the later predictions are not fixed, they
answer to x and undo part of what an early error did.

What stopping is worth: at each step, an image that leaves at layer i costs w_s² MSE_i (its squared error in the
image) plus λ times the GFLOPs of leaving at i. Backward from the last layer, a threshold on u_i is the best
prefix of the calibration's images, ordered by u_i: those for which leaving here is cheaper, together, than what
the layers behind will do with them. λ is the price of a GFLOP at which the mean cost meets the budget.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deediff.diffusion.solvers import Solver
from deediff.errors import UserError

BINS = 16  # of equally many images, whose edges are the thresholds to choose from
PRICES = 2.0**40  # λ is looked for between 1/PRICES and PRICES, in units of error per GFLOP
Array = NDArray[np.float64]


def x0_weights(solver: Solver) -> Array:
    """How far an error in the ε of each step moves the final image, other predictions held fixed: (S,).

    The solver itself is asked: it takes S images at once, the s-th with a unit ε at step s and none elsewhere.
    """
    steps = len(solver.timesteps)
    x, previous = torch.zeros(steps, 1, 1, 1, dtype=torch.float64), None
    for s in range(steps):
        eps = torch.zeros_like(x)
        eps[s] = 1
        x0 = solver.predict_x0(s, x, eps)
        x, previous = solver.step(s, x, eps, torch.zeros_like(x), previous), x0
    return x.abs().flatten().numpy()


class Stopping:
    """Thresholds for a calibration whose errors are weighted already; asked for one price, or one budget."""

    def __init__(
        self,
        u: NDArray[np.floating],  # (S, M, N); NaN at layers without an exit
        error: NDArray[np.floating],  # (S, M, N+1) weighted
        cost: Array,  # (N+1,) GFLOPs of leaving at each layer
    ):
        self.u, self.error, self.cost = u, error, cost
        self.layers = [i for i in range(u.shape[2]) if not np.isnan(u[..., i]).any()]
        self._order = {i: np.argsort(u[..., i], axis=1) for i in self.layers}
        self._edges = np.unique(np.linspace(0, u.shape[1], min(BINS, u.shape[1]) + 1).round().astype(int))

    def at_price(self, price: float) -> tuple[NDArray[np.float32], float, float]:
        """Thresholds (S, N), mean GFLOPs and mean weighted error on the calibration, for a λ per GFLOP."""
        steps, images, layers = self.u.shape
        thresholds = np.full((steps, layers), -np.inf, np.float32)
        exit_at = np.full((steps, images), layers)  # by the thresholds of the layers that are done
        ahead = self.error[..., -1] + price * self.cost[-1]  # (S, M) what going on costs
        for i in reversed(self.layers):
            here = self.error[..., i] + price * self.cost[i]
            gains = np.take_along_axis(ahead - here, self._order[i], axis=1).cumsum(axis=1)
            at_edges = np.concatenate([np.zeros((steps, 1)), gains[:, self._edges[1:] - 1]], axis=1)
            leaving = self._edges[at_edges.argmax(axis=1)]  # (S,) how many leave; among equals the fewest
            thresholds[:, i] = self._cut(i, leaving)
            leaves = self.u[..., i] <= thresholds[:, i, None]
            ahead, exit_at = np.where(leaves, here, ahead), np.where(leaves, i, exit_at)
        error = np.take_along_axis(self.error, exit_at[..., None], axis=2)
        return thresholds, float(self.cost[exit_at].mean()), float(error.mean())

    def _cut(self, layer: int, leaving: NDArray[np.int64]) -> NDArray[np.float32]:
        """The threshold that the `leaving` (S,) lowest u are under: half way to the next one; none or all: ∓∞."""
        u = np.take_along_axis(self.u[..., layer], self._order[layer], axis=1)
        u = np.pad(u.astype(np.float64), ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
        below, above = (np.take_along_axis(u, k[:, None], axis=1)[:, 0] for k in (leaving, leaving + 1))
        return ((below + above) / 2).astype(np.float32)

    def within(self, gflops: float) -> tuple[NDArray[np.float32], float, float]:
        """As `at_price`, for the price at which the mean cost per image and step is at most `gflops`.

        Raises UserError when even leaving everywhere at the first exit costs more.
        """
        best = self.at_price(0.0)
        if best[1] <= gflops:
            return best
        best = self.at_price(PRICES)
        if best[1] > gflops:
            raise UserError(f"no threshold costs {gflops:g} GFLOPs or less: the cheapest exits cost {best[1]:.4g}")
        low, high = -np.log2(PRICES), np.log2(PRICES)
        for _ in range(25):
            middle = (low + high) / 2
            found = self.at_price(2.0**middle)
            if found[1] > gflops:
                low = middle
                continue
            high = middle
            if found[1] >= best[1]:  # the cost is a step function of the price, and not strictly monotone
                best = found
        return best
