"""Any deterministic scheduler of the package diffusers, as a solver (`pip install 'deediff[diffusers]'`)."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers.base import Solver
from deediff.errors import UserError

PREFIX = "diffusers:"
SHORT = {"UniPC": "UniPCMultistep", "DPM-Solver++(3M)": "DPMSolverMultistep,solver_order:3"}
FIXED = {"clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0, "final_sigmas_type": "zero"}


class DiffusersSolver(Solver):
    """A scheduler by its class, with options: `UniPCMultistep`, `DPMSolverMultistep,solver_order:3`.

    It is given ε, whatever the network predicts, and x as the network sees it, that is x_t of the noise schedule. It
    keeps predictions of earlier steps, so every batch has a scheduler of its own: `fresh`.
    """

    stochastic = False

    def __init__(self, name: str, schedule: Schedule, steps: int | Sequence[int], spacing: str = "trailing"):
        self.name, self._schedulers = name, _Maker(name, schedule, steps, spacing)
        self._scheduler = self._schedulers.make()
        found = [float(t) for t in self._scheduler.timesteps]
        if any(not t.is_integer() for t in found) or any(a <= b for a, b in pairwise(found)):
            raise UserError(
                f"solver {PREFIX}{name} evaluates at timesteps {', '.join(f'{t:g}' for t in found[:4])} …, expected "
                "whole ones in descending order: choose a scheduler with one evaluation per step"
            )
        if not isinstance(steps, int) and [int(t) for t in found] != list(steps):
            raise UserError(f"solver {PREFIX}{name} chooses its timesteps itself: give the number of steps instead")
        super().__init__(schedule, [int(t) for t in found])
        self._check_noise()

    def fresh(self) -> DiffusersSolver:
        other = copy.copy(self)
        other._scheduler = self._schedulers.make()
        return other

    def step(
        self, s: int, x: Tensor, eps: Tensor, noise: Tensor | None = None, previous_x0: Tensor | None = None
    ) -> Tensor:
        scheduler, last = self._scheduler, s == len(self.timesteps) - 1
        t = scheduler.timesteps[s]
        moved: Tensor = scheduler.step(eps, t, x / self._scale(scheduler, t), return_dict=False)[0]
        return moved if last else moved * self._scale(scheduler, scheduler.timesteps[s + 1])

    def between(self, steps: Sequence[int]) -> Solver:
        raise UserError(f"solver {PREFIX}{self.name} cannot take steps of different lengths within a batch: use ddim")

    @staticmethod
    def _scale(scheduler: Any, t: Tensor) -> float:
        """By how much the scheduler scales its sample for the network at a timestep; 1 where both are equal."""
        another = copy.copy(scheduler)  # some note that they have scaled an input
        return float(another.scale_model_input(torch.ones(1), t))

    def _check_noise(self) -> None:
        """Raises UserError when the scheduler draws noise: it would not depend on seed, sample and step only."""
        results = []
        for seed in (0, 1):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                solver, x = self.fresh(), torch.ones(1, 1, 4, 4)
                for s in range(min(2, len(self.timesteps))):
                    x = solver.step(s, x, 0.5 * x)
                results.append(x)
        if not torch.equal(*results):
            raise UserError(f"solver {PREFIX}{self.name} draws noise of its own, which could not be repeated: use ddpm")


class _Maker:
    """Makes equal schedulers. Raises UserError when diffusers is missing or has no such scheduler or option."""

    def __init__(self, name: str, schedule: Schedule, steps: int | Sequence[int], spacing: str):
        try:
            import diffusers
        except ImportError:
            raise UserError(
                f"solver {PREFIX}{name} needs the package diffusers: pip install 'deediff[diffusers]'"
            ) from None
        kind, *options = SHORT.get(name, name).split(",")
        self._class: Any = getattr(diffusers, f"{kind.removesuffix('Scheduler')}Scheduler", None)
        if self._class is None or not hasattr(self._class, "step"):
            raise UserError(
                f"solver {PREFIX}{name}: diffusers {diffusers.__version__} has no scheduler {kind!r}; expected for "
                f"example {' or '.join(SHORT)}, or a class such as DEISMultistep"
            )
        known = [key for key in inspect.signature(self._class.__init__).parameters if key != "self"]
        given = dict(option.partition(":")[::2] for option in options)
        if unknown := [key for key in given if key not in known]:
            raise UserError(
                f"solver {PREFIX}{name} has the option {unknown[0]!r}, expected some of: {', '.join(known)}"
            )
        if spacing not in ("trailing", "linspace") and isinstance(steps, int):
            raise UserError(f"solver {PREFIX}{name} has the spacings trailing and linspace, not {spacing}")
        config = {"num_train_timesteps": schedule.num_timesteps, "prediction_type": "epsilon", **FIXED}
        config |= {"timestep_spacing": spacing, "trained_betas": schedule.betas.tolist()}
        self._config = {key: value for key, value in config.items() if key in known} | {
            key: _value(value) for key, value in given.items()
        }
        self._steps: dict[str, Any] = {"num_inference_steps": steps if isinstance(steps, int) else len(steps)}
        if not isinstance(steps, int) and "timesteps" in inspect.signature(self._class.set_timesteps).parameters:
            self._steps = {"timesteps": list(steps)}
        self._name = name

    def make(self) -> Any:
        try:
            scheduler = self._class(**self._config)
            scheduler.set_timesteps(**self._steps)
        except (TypeError, ValueError, NotImplementedError, ImportError) as error:
            raise UserError(f"solver {PREFIX}{self._name} cannot be used with these settings ({error})") from None
        return scheduler


def _value(text: str) -> Any:
    """An option's text as a number or a truth value, where it is one."""
    if text in ("true", "True", "false", "False"):
        return text in ("true", "True")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
