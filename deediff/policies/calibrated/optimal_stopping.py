"""Early exit as optimal stopping: thresholds on u that spend a budget of GFLOPs where it reduces the error most.

At each step, an image that exits at layer i costs MSE_i plus λ times the cost of that exit. MSE_i is the squared
error of exit i in ε; every step counts alike. Backward from the last layer, the threshold on u_i is the best prefix of
the calibration's images in the order of u_i: the images for which the exit here costs less, in total, than the later
layers with their thresholds. λ is the price at which the mean cost meets the budget.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError

BINS = 16  # of equally many images; their edges are the candidate thresholds
PRICES = 2.0**40  # λ is searched between 1/PRICES and PRICES, in error per cost of the full network
Array = NDArray[np.float64]


class Stopping:
    """Thresholds for a calibration, at a price per full network or within a budget."""

    def __init__(
        self,
        u: NDArray[np.floating],  # (S, M, N); NaN at layers without an exit
        error: NDArray[np.floating],  # (S, M, N+1) squared
        cost: Array,  # (N+1,) GFLOPs of an exit at each layer
    ):
        self.u, self.error, self.cost = u, error, cost
        self._share = cost / cost[-1]  # of the full network: the thresholds do not depend on the unit of cost
        self.layers = [i for i in range(u.shape[2]) if not np.isnan(u[..., i]).any()]
        self._order = {i: np.argsort(u[..., i], axis=1) for i in self.layers}
        self._edges = np.unique(np.linspace(0, u.shape[1], min(BINS, u.shape[1]) + 1).round().astype(int))

    def at_price(self, price: float) -> tuple[NDArray[np.float32], float, float]:
        """Thresholds (S, N), mean GFLOPs and mean error on the calibration, for a λ per full network."""
        steps, images, layers = self.u.shape
        thresholds = np.full((steps, layers), -np.inf, np.float32)
        exit_at = np.full((steps, images), layers)  # by the thresholds of the layers from i on
        ahead = self.error[..., -1] + price * self._share[-1]  # (S, M) cost without an exit here
        for i in reversed(self.layers):
            here = self.error[..., i] + price * self._share[i]
            gains = np.take_along_axis(ahead - here, self._order[i], axis=1).cumsum(axis=1)
            at_edges = np.concatenate([np.zeros((steps, 1)), gains[:, self._edges[1:] - 1]], axis=1)
            count = self._edges[at_edges.argmax(axis=1)]  # (S,) images that exit here; the fewest among equal gains
            thresholds[:, i] = self._threshold(i, count)
            exits = self.u[..., i] <= thresholds[:, i, None]
            ahead, exit_at = np.where(exits, here, ahead), np.where(exits, i, exit_at)
        error = np.take_along_axis(self.error, exit_at[..., None], axis=2)
        return thresholds, float(self.cost[exit_at].mean()), float(error.mean())

    def _threshold(self, layer: int, count: NDArray[np.int64]) -> NDArray[np.float32]:
        """(S,) thresholds above the `count` (S,) smallest u, half way to the next one; −∞ for none, ∞ for all."""
        u = np.take_along_axis(self.u[..., layer], self._order[layer], axis=1)
        u = np.pad(u.astype(np.float64), ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
        below, above = (np.take_along_axis(u, k[:, None], axis=1)[:, 0] for k in (count, count + 1))
        return ((below + above) / 2).astype(np.float32)

    def within(self, gflops: float) -> tuple[NDArray[np.float32], float, float]:
        """As `at_price`, for the price at which the mean cost per image and step is at most `gflops`.

        Raises UserError when an exit at the first possible layer at every step costs more.
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
