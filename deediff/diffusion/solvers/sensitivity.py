"""The effect of an error in one step's predicted noise on the final image.

The update of a solver is linear in the prediction. Let x_{s+1} = A_s x_s + B_s ε_s (plus noise) be step s, and hold
the predictions of all other steps fixed. Then an error e in ε_s reaches the image as (Π_{r>s} A_r) B_s e, whose
factor is the weight w_s of that step. For DDIM with η = 0, A_s = √(ᾱ′/ᾱ) and B_s = √(1−ᾱ′) − √(ᾱ′(1−ᾱ)/ᾱ), with
ᾱ′ of the next timestep (1 after the last). The A telescope to 1/√ᾱ′, so

    w_s = |√((1−ᾱ′)/ᾱ′) − √((1−ᾱ)/ᾱ)| = σ_s − σ_{s+1},   σ = √((1−ᾱ)/ᾱ) the noise-to-signal ratio:

the weight of a step is the noise that it removes. The real effect tends to be smaller: the later predictions depend
on x and correct part of an early error.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from deediff.diffusion.solvers.base import Solver


def x0_weights(solver: Solver) -> NDArray[np.float64]:
    """w_s of each step: (S,).

    Computed by running the solver on S images at once, the s-th with ε = 1 at step s and ε = 0 at all others.
    """
    steps = len(solver.timesteps)
    x, previous = torch.zeros(steps, 1, 1, 1, dtype=torch.float64), None
    for s in range(steps):
        eps = torch.zeros_like(x)
        eps[s] = 1
        x0 = solver.predict_x0(s, x, eps)
        x, previous = solver.step(s, x, eps, torch.zeros_like(x), previous), x0
    return x.abs().flatten().numpy()
