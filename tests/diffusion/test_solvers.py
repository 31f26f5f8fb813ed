"""The solvers: each step against the scheduler of that name in `diffusers`, and their timesteps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch

from deediff.diffusion.prediction import to_epsilon
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDIM, Solver, make_solver
from deediff.errors import UserError

TRAINED = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
THEIRS = {  # nothing is clipped, and the last step lands on x_0
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_small"}),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    "dpm-solver++": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero"},
    ),
}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}  # their names
CASES = [(steps, kind) for steps in (1, 2, 3, 7, 50) for kind in PREDICTIONS] + [(1000, "epsilon")]


def scheduler(name: str, ours: Solver, steps: int, spacing: str, kind: str) -> Any:
    """The scheduler of diffusers, set to our timesteps; they are its own where it has the same spacing."""
    cls, options = THEIRS[name]
    theirs = cls(**TRAINED, **options, timestep_spacing=spacing, prediction_type=PREDICTIONS[kind])
    theirs.set_timesteps(steps)
    if spacing == "linspace" and steps == (1000 if name == "dpm-solver++" else 1):
        # The only step of the others is t = 0, where ours is the noisiest; 1001 ends of 1000 steps round to equal t.
        assert theirs.timesteps.tolist() != ours.timesteps
    else:
        assert theirs.timesteps.tolist() == ours.timesteps
    if name != "ddim":  # which cannot be given any
        theirs.set_timesteps(timesteps=ours.timesteps)
    return theirs


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize(("steps", "kind"), CASES)
def test_ddim_equals_diffusers(steps: int, kind: str, spacing: str, eta: float) -> None:
    """diffusers takes the next timestep to be t − T // steps whatever the spacing, so T and steps are set for each."""
    ours = DDIM(Schedule(), steps, spacing, eta)
    theirs = scheduler("ddim", ours, steps, spacing, kind)
    theirs.num_inference_steps = 1
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    for s, (t, following) in enumerate(pairwise([*ours.timesteps, -1])):
        theirs.register_to_config(num_train_timesteps=t - following)
        output, z = torch.randn_like(x), torch.randn_like(x)
        noisy = {"eta": eta, "variance_noise": z} if eta and following >= 0 else {}  # the last step adds none here
        expected = theirs.step(output, t, x, **noisy).prev_sample
        x = ours.step(s, x, to_epsilon(kind, output, x, ours.alpha_bar(s)), z)
        torch.testing.assert_close(x, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "dpm-solver++"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
@pytest.mark.parametrize(("steps", "kind"), CASES)
def test_ddpm_and_dpm_solver_equal_diffusers(name: str, steps: int, kind: str, spacing: str) -> None:
    ours = make_solver(name, Schedule(), steps, spacing)
    theirs = scheduler(name, ours, steps, spacing, kind)
    torch.manual_seed(0)
    x, x0 = torch.randn(2, 3, 4, 4), None
    for s, t in enumerate(ours.timesteps):
        output = torch.randn_like(x)
        drawn = {"generator": torch.Generator().manual_seed(s)} if name == "ddpm" else {}
        expected = theirs.step(output, t, x, **drawn).prev_sample
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(s)) if ours.needs_noise(s) else None
        eps = to_epsilon(kind, output, x, ours.alpha_bar(s))
        previous_x0, x0 = x0, ours.predict_x0(s, x, eps)
        x = ours.step(s, x, eps, z, previous_x0)
        torch.testing.assert_close(x, expected, atol=2e-4, rtol=2e-4)


def test_a_perfect_network_is_denoised_exactly() -> None:
    """With the true noise as prediction, DDIM with any number of steps ends at x_0."""
    torch.manual_seed(0)
    x0, noise = torch.rand(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    solver = DDIM(Schedule(), 13)
    x = Schedule().add_noise(x0, torch.tensor([999]), noise)
    for s in range(13):
        torch.testing.assert_close(solver.predict_x0(s, x, noise), x0, atol=1e-3, rtol=1e-3)
        x = solver.step(s, x, noise)
    torch.testing.assert_close(x, x0, atol=1e-4, rtol=1e-4)


def test_bad_settings_are_sentences() -> None:
    with pytest.raises(UserError, match="unknown solver 'euler', expected one of: ddim, ddpm, dpm-solver"):
        make_solver("euler", Schedule(), 10)
    with pytest.raises(UserError, match="steps is 0, expected 1 … 1000"):
        make_solver("ddim", Schedule(), 0)
    with pytest.raises(UserError, match="eta is 2"):
        make_solver("ddim", Schedule(), 10, eta=2)
    with pytest.raises(UserError, match=r"eta is 0\.5, but only ddim has one"):
        make_solver("ddpm", Schedule(), 10, eta=0.5)
