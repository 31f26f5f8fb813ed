"""The settings of a sampling job: one frozen record for the command line, Python, the explorer and trace.json."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from deediff.errors import UserError
from deediff.plans.plan import Plan

PARTS = 100_000  # of a trace at most: their files are numbered with five digits
Record = Literal["exit", "full"]
DType = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class PolicySpec:
    """The text of an exit policy in parts: `name:argument,min:i,max:i`. `str` gives the text back."""

    name: str
    argument: str = ""
    lowest: int | None = None  # no exit before this layer
    highest: int | None = None  # every sample exits here at the latest

    @classmethod
    def parse(cls, text: str) -> PolicySpec:
        """Split the text; whether the name exists and the argument fits is checked by `make_policy`.

        Raises UserError when a bound is given twice.
        """
        plain, bounds = text, dict[str, int]()
        while match := re.fullmatch(r"(.*),(min|max):(\d{1,18})", plain, flags=re.DOTALL):
            plain, bound, layer = match.groups()
            if bound in bounds:
                raise UserError(f"policy {text!r} gives {bound} twice: leave one of them out")
            bounds[bound] = int(layer)
        name, _, argument = plain.partition(":")
        return cls(name, argument, bounds.get("min"), bounds.get("max"))

    def __str__(self) -> str:
        bounds = [f",min:{self.lowest}"] * (self.lowest is not None)
        bounds += [f",max:{self.highest}"] * (self.highest is not None)
        return self.name + (f":{self.argument}" if self.argument else "") + "".join(bounds)

    @property
    def is_full(self) -> bool:
        """Whether every sample takes the full network."""
        return self.name == "never"

    @property
    def threshold(self) -> float | None:
        """τ of a plain threshold; None for every other policy, bounded thresholds included.

        Raises ValueError when the argument is not a number.
        """
        plain = self.name == "threshold" and self.lowest is None and self.highest is None
        return float(self.argument) if plain else None


def check_spacing(given: Mapping[str, Any]) -> None:
    """Raises UserError when settings give timesteps one by one, and also their spacing."""
    if given.get("timesteps") is not None and "spacing" in given:
        raise UserError("timesteps are given one by one, so leave spacing out")


@dataclass(frozen=True)
class SamplingSettings:
    """Everything that decides which images a sampling job draws. Raises UserError for values out of range."""

    policy: str = "never"
    """Exit policy, for example threshold:0.075 (exit when the uncertainty is at most 0.075)."""
    solver: str = "ddim"
    """Solver of the reverse process."""
    steps: int = 50
    """Denoising steps."""
    spacing: str = "trailing"
    """Spacing of the timesteps."""
    timesteps: tuple[int, ...] | None = None
    """Timesteps one by one, in descending order, in place of steps and spacing."""
    clip_x0: bool = False
    """Clip the predicted clean image to [-1, 1] at every step."""
    dynamic_threshold: float | None = None
    """With clip_x0: percentile in (0, 1] of Imagen's dynamic thresholding, for example 0.995."""
    eta: float = 0.0
    """DDIM's η: 0 is deterministic, 1 is DDPM."""
    readout: str = "head"
    """How samples that exit get their prediction, for example memory:1."""
    num_samples: int = 64
    """Images to sample."""
    batch_size: int = 64
    """Images per batch, and per part of the trace."""
    seed: int = 0
    """Seed of the noise; sample k draws the same noise whatever the batch size."""
    record: Record = "exit"
    """exit: u up to the exit (fast); full: u at every layer."""
    deviations: bool = False
    """With record=full: also RMS(g_i − ε_full) of every exit."""
    classes: tuple[int, ...] | None = None
    """Classes of a class-conditional model, by number or name, drawn in turn; default: all of them."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 is none."""
    recalibrated: bool = False
    """Correct u by the calibration beside the checkpoint (`deediff calibrate`)."""
    dtype: DType = "auto"
    """Precision of the network; auto: bfloat16 on CUDA, float32 elsewhere."""
    plan: Plan | None = None
    """Timesteps, exits and readouts step by step, in place of solver, steps and timesteps."""
    checkpoint: str | None = None
    """File name of the weights; set when the checkpoint is loaded."""
    checkpoint_sha256: str | None = None
    """SHA-256 of the weights; set when the checkpoint is loaded."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise UserError(f"the number of samples is {self.num_samples}, expected 1 or more")
        if self.batch_size < 1:
            raise UserError(f"the batch size is {self.batch_size}, expected 1 or more")
        if self.num_samples > PARTS * self.batch_size:
            raise UserError(
                f"{self.num_samples} samples in batches of {self.batch_size} are more than {PARTS} parts: "
                "raise the batch size, or sample several traces"
            )
        if not 0 <= self.seed < 2**63:
            raise UserError(f"the seed is {self.seed}, expected 0 or more (and below 2^63)")
        if self.record not in ("exit", "full"):
            raise UserError(f"record is {self.record!r}, expected 'exit' or 'full'")
        if self.deviations and self.record != "full":
            raise UserError("deviations need record='full' and a model with output heads")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise UserError(f"the guidance scale is {self.guidance}, expected a number ≥ 0")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise UserError(f"dtype is {self.dtype!r}, expected 'auto', 'float32' or 'bfloat16'")
        if self.plan is not None:
            self._follow(self.plan)
        if self.dynamic_threshold is not None and not 0 < self.dynamic_threshold <= 1:
            raise UserError(f"dynamic_threshold is {self.dynamic_threshold}, expected a percentile in (0, 1]")
        if self.dynamic_threshold is not None and not self.clip_x0:
            raise UserError("dynamic_threshold clips the predicted image, which needs clip_x0")
        if self.timesteps is not None:
            object.__setattr__(self, "timesteps", tuple(self.timesteps))
            if self.steps not in (SamplingSettings.steps, len(self.timesteps)):
                raise UserError(f"{len(self.timesteps)} timesteps are given, but {self.steps} steps: leave steps out")
            object.__setattr__(self, "steps", len(self.timesteps))
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))

    def _follow(self, plan: Plan) -> None:
        """Take the fields that a plan decides from it. Raises UserError when one of them was given, too."""
        decided: dict[str, Any] = {"timesteps": plan.timesteps, "steps": len(plan.steps), "spacing": "trailing"}
        decided |= {name: getattr(plan, name) for name in ("solver", "eta", "clip_x0", "dynamic_threshold")}
        defaults = {field.name: field.default for field in fields(SamplingSettings)}
        for name, value in decided.items():
            given = getattr(self, name)
            given = tuple(given) if isinstance(given, list) else given
            if given not in (defaults[name], value):
                raise UserError(f"{name} is {given}, but the plan decides it ({value}): leave it out")
            object.__setattr__(self, name, value)

    @property
    def batches(self) -> list[range]:
        """Sample numbers 0 … num_samples − 1, cut into batches."""
        return [
            range(a, min(a + self.batch_size, self.num_samples)) for a in range(0, self.num_samples, self.batch_size)
        ]

    def to_json(self) -> dict[str, Any]:
        """For trace.json."""
        content = {field.name: getattr(self, field.name) for field in fields(SamplingSettings)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}
        return {**plain, "plan": None if self.plan is None else self.plan.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SamplingSettings:
        """From trace.json, traces of earlier versions included. Raises UserError for values out of range."""
        known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
        if known.get("plan") is not None:
            known["plan"] = Plan.from_json(known["plan"])
        known.setdefault("recalibrated", content.get("recalibration_sha256") is not None)
        return cls(**known)
