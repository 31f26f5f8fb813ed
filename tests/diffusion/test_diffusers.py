"""Schedulers of diffusers as solvers: their own loop, and the laws of batch and resume."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import deediff
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.recording.recompute import recompute
from deediff.sampling import sample
from tests.conftest import comparable, make_model, make_run, record

STEPS, SCHEDULE = 6, Schedule()
COMMON: dict[str, Any] = {"trained_betas": SCHEDULE.betas.tolist(), "timestep_spacing": "trailing"}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "UniPC": (diffusers.UniPCMultistepScheduler, {}),
    "DPM-Solver++(3M)": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 3}),
    "DEISMultistep,solver_order:3": (diffusers.DEISMultistepScheduler, {"solver_order": 3}),
    "EulerDiscreteScheduler": (diffusers.EulerDiscreteScheduler, {}),
    "DDIM": (diffusers.DDIMScheduler, {"clip_sample": False}),
}


@pytest.mark.parametrize("name", KINDS)
def test_it_equals_the_loop_of_diffusers(name: str) -> None:
    model, (kind, options) = make_model(), KINDS[name]
    scheduler = kind(**COMMON, **options)
    scheduler.set_timesteps(STEPS)
    noise = sample_noise(0, range(3), 0, model.image_shape)
    first = scheduler.timesteps[0]
    x = noise / scheduler.scale_model_input(torch.ones(1), first)  # from x_T in the scheduler's own scale
    scheduler = kind(**COMMON, **options)
    scheduler.set_timesteps(STEPS)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            eps = model(scheduler.scale_model_input(x, t), torch.full((3,), int(t)))
            x = scheduler.step(eps, t, x).prev_sample
    *_, found = sample(model, num_samples=3, solver=f"diffusers:{name}", steps=STEPS)
    torch.testing.assert_close(found.x, x, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", ["UniPC", "DPM-Solver++(3M)"])
def test_batches_resume_and_recomputation_change_nothing(name: str, tmp_path: Path) -> None:
    run, fields = make_run(tmp_path / "run"), {"solver": f"diffusers:{name}", "steps": STEPS, "policy": "threshold:0.4"}
    model = deediff.load(run)
    together = list(sample(model, num_samples=5, batch_size=5, **fields))
    alone = list(sample(model, num_samples=5, batch_size=1, **fields))
    for s, step in enumerate(together):
        singles = torch.cat([alone[k * STEPS + s].x for k in range(5)])
        torch.testing.assert_close(step.x, singles, atol=2e-4, rtol=2e-4)
    trace = record(run, "t", **fields)
    assert trace.meta.solver == f"diffusers:{name}"
    before = comparable(trace)
    (trace.path / "part-00001.parquet").unlink()
    assert comparable(record(run, "t", **fields)) == before
    steps = list(recompute(trace, 5, model, Schedule()))
    assert [int(step.exit_layer[0]) for step in steps] == trace.exit_layers()[5].tolist()


def test_a_real_multistep_memory_of_a_batch_is_its_own() -> None:
    model, fields = make_model(), {"solver": "diffusers:UniPC", "steps": STEPS, "num_samples": 4, "batch_size": 2}
    *_, second = sample(model, **fields)
    *_, only = sample(model, parts=[range(2, 4)], **fields)
    assert torch.equal(second.x, only.x)


@pytest.mark.parametrize(
    ("name", "steps", "sentence"),
    [
        ("Magic", 4, r"has no scheduler 'Magic'; expected for example UniPC or DPM-Solver\+\+\(3M\)"),
        (
            "UniPCMultistep,order:3",
            4,
            "has the option 'order', expected some of: num_train_timesteps",
        ),
        ("DDPM", 4, "draws noise of its own, which could not be repeated: use ddpm"),
        ("EulerAncestralDiscrete", 4, "draws noise of its own"),
        ("HeunDiscrete", 4, "expected whole ones in descending order: choose a scheduler with one evaluation per step"),
        ("UniPC", (900, 10), "chooses its timesteps itself: give the number of steps instead"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(name: str, steps: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_solver(f"diffusers:{name}", SCHEDULE, steps)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"needs the package diffusers: pip install 'deediff\[diffusers\]'"):
        make_solver("diffusers:UniPC", SCHEDULE, 4)
    with pytest.raises(UserError, match="unknown solver 'unipc', expected one of: ddim, ddpm, dpm-solver"):
        make_solver("unipc", SCHEDULE, 4)
