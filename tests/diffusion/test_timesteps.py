"""Timesteps descend, and are spread as their source says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from deediff.diffusion.clipping import clip_image
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import SOLVERS, SPACINGS, make_solver, spaced_timesteps
from deediff.errors import UserError


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50, 333, 1000])
def test_timesteps_descend_from_the_last_one(spacing: str, steps: int) -> None:
    t = spaced_timesteps(Schedule(), steps, spacing)
    assert len(t) == steps
    assert t[0] == 999
    assert all(a > b >= 0 for a, b in pairwise(t))


def test_quadratic_timesteps_are_even_in_their_root() -> None:
    t = np.array(spaced_timesteps(Schedule(), 10, "quadratic"))
    np.testing.assert_allclose(t, np.linspace(999**0.5, 0, 10) ** 2, atol=0.5)
    assert t[-1] == 0


def test_log_snr_timesteps_are_even_in_log_snr() -> None:
    t = spaced_timesteps(Schedule(), 8, "log-snr")
    a = Schedule().alphas_bar.numpy()
    log_snr = np.log(a / (1 - a))
    even = np.linspace(log_snr[999], log_snr[0], 8)
    nearest = [int(np.abs(log_snr - value).argmin()) for value in even]
    assert np.abs(np.array(t) - nearest).max() <= 1
    assert (t[0], t[-1]) == (999, 0)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_timesteps_given_one_by_one_are_the_same_solver(name: str, spacing: str) -> None:
    spaced = make_solver(name, Schedule(), 6, spacing)
    given = make_solver(name, Schedule(), spaced.timesteps)
    assert given.timesteps == spaced.timesteps
    torch.manual_seed(0)
    x, eps, noise, before = torch.randn(4, 2, 3, 4, 4)
    for s in range(6):
        previous = before if s else None
        assert torch.equal(spaced.step(s, x, eps, noise, previous), given.step(s, x, eps, noise, previous))


@pytest.mark.parametrize(
    ("timesteps", "sentence"),
    [
        ([], "no timesteps"),
        ([1000, 3], r"timestep 1000 is out of range, expected 0 … 999"),
        ([5, -1], "timestep -1 is out of range"),
        ([5, 5], "timestep 5 follows 5: give each timestep once"),
        ([3, 7], "timestep 7 follows 3: .* descending"),
    ],
)
def test_bad_timesteps_are_a_sentence(timesteps: list[int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_solver("ddim", Schedule(), timesteps)


def test_a_clipped_image_and_its_noise_agree() -> None:
    torch.manual_seed(0)
    x, eps = torch.randn(2, 3, 3, 4, 4)
    solver = make_solver("ddim", Schedule(), 10)
    for s in range(10):
        assert torch.allclose(solver.to_epsilon(s, x, solver.predict_x0(s, x, eps)), eps, atol=1e-3)
    clipped = clip_image(3 * x)
    assert clipped.abs().max() == 1
    assert torch.equal(clipped[x.abs() < 1 / 3], (3 * x)[x.abs() < 1 / 3])


def test_dynamic_thresholding_scales_each_image_by_its_own_percentile() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 1, 16, 16) * torch.tensor([0.1, 2.0, 5.0])[:, None, None, None]
    together = clip_image(images, 0.9)
    alone = torch.cat([clip_image(one[None], 0.9) for one in images])
    assert torch.equal(together, alone)
    assert torch.equal(together[0], images[0])  # within [−1, 1]: unchanged
    s = torch.quantile(images[1].abs().flatten(), 0.9)
    torch.testing.assert_close(together[1], images[1].clamp(-s, s) / s)
