"""A sampling plan as a record. It names exits, readouts and networks; a model is checked against it before sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

from deediff.errors import UserError

FORMAT_VERSION = 1
ExitLayer = int | Literal["full", "policy"]


@dataclass(frozen=True)
class PlanStep:
    """One denoising step."""

    timestep: int
    """Diffusion t."""
    exit_layer: ExitLayer = "full"
    """Exit layer of all samples; full: no exit; policy: the exit policy decides for each sample."""
    readout: str = "head"
    """How the prediction is obtained: a name in `deediff.readouts.READOUTS`, with its argument, e.g. output:0."""
    network: str | None = None
    """Run folder or checkpoint, relative to the run folder, of another network for this step; None: the model's own."""

    def to_json(self) -> dict[str, Any]:
        """For a plan file: defaults are left out, and null means the policy."""
        content: dict[str, Any] = {"timestep": self.timestep}
        if self.exit_layer != "full":
            content["exit_layer"] = None if self.exit_layer == "policy" else self.exit_layer
        if self.readout != "head":
            content["readout"] = self.readout
        if self.network is not None:
            content["network"] = self.network
        return content

    @classmethod
    def from_json(cls, content: Any) -> PlanStep:
        """Raises UserError when a key is unknown or missing, or a value is of another type."""
        if not isinstance(content, Mapping):
            raise UserError(f"a step is {content!r}, expected an object with a timestep")
        _check_keys(content, [known.name for known in fields(cls)], ["timestep"], "a step")
        layer = content.get("exit_layer", "full")
        return cls(
            _whole(content["timestep"], "timestep"),
            "policy" if layer is None else layer if layer == "full" else _whole(layer, "exit_layer"),
            _text(content.get("readout", "head"), "readout"),
            None if content.get("network") is None else _text(content["network"], "network"),
        )


@dataclass(frozen=True)
class Plan:
    """Solver, and the steps in order. Raises UserError when timesteps do not descend or a value is out of range."""

    steps: tuple[PlanStep, ...]
    num_blocks: int
    """N of the model that the plan is for."""
    num_timesteps: int = 1000
    """T of its noise schedule."""
    solver: str = "dpm-solver++"
    """Name of the solver."""
    eta: float = 0.0
    """DDIM's η."""
    clip_x0: bool = False
    """Clip the predicted clean image to [-1, 1] at every step."""
    dynamic_threshold: float | None = None
    """With clip_x0: percentile of dynamic thresholding."""
    name: str = field(default="", compare=False)
    """For display; by default the name of the plan's file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise UserError("a plan has no steps: give at least one")
        if self.num_timesteps < 1:
            raise UserError(f"num_timesteps is {self.num_timesteps}, expected 1 or more")
        last = self.num_timesteps - 1
        for t in self.timesteps:
            if not 0 <= t <= last:
                raise UserError(f"a plan has timestep {t}, expected 0 … {last}")
        for a, b in pairwise(self.timesteps):
            if a <= b:
                raise UserError(f"in a plan timestep {b} follows {a}: give each timestep once, in descending order")
        for step in self.steps:
            layer = step.exit_layer
            if isinstance(layer, int) and not 0 <= layer <= self.num_blocks:
                raise UserError(
                    f"a plan exits at layer {layer} at timestep {step.timestep}, expected 0 … {self.num_blocks}"
                )

    @property
    def timesteps(self) -> tuple[int, ...]:
        """(S,) diffusion t of each step."""
        return tuple(step.timestep for step in self.steps)

    @property
    def is_full(self) -> bool:
        """Whether every step runs the model's full network."""
        return all(
            step.exit_layer in ("full", self.num_blocks) and step.readout == "head" and step.network is None
            for step in self.steps
        )

    @property
    def uses_policy(self) -> bool:
        """Whether the policy decides the exits of a step."""
        return any(step.exit_layer == "policy" for step in self.steps)

    @property
    def policy_readouts(self) -> bool:
        """Whether every exit that the policy decides is read out by something other than an output head."""
        return self.uses_policy and all(step.readout != "head" for step in self.steps if step.exit_layer == "policy")

    def __str__(self) -> str:
        """In short, e.g. '4 gaussian, 4 full, 1 output:0'."""
        runs: list[tuple[str, int]] = []
        for step in self.steps:
            name = step_name(step)
            count = runs.pop()[1] if runs and runs[-1][0] == name else 0
            runs.append((name, count + 1))
        return ", ".join(f"{count} {name}" for name, count in runs)

    def to_json(self) -> dict[str, Any]:
        """For a plan file and trace.json."""
        content: dict[str, Any] = {"format_version": FORMAT_VERSION}
        content |= {"name": self.name} if self.name else {}
        content |= {"solver": self.solver}
        content |= {"eta": self.eta} if self.eta else {}
        content |= {"clip_x0": self.clip_x0, "num_timesteps": self.num_timesteps, "num_blocks": self.num_blocks}
        content |= {} if self.dynamic_threshold is None else {"dynamic_threshold": self.dynamic_threshold}
        return {**content, "steps": [step.to_json() for step in self.steps]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """From a plan file or trace.json. Raises UserError when it is not a valid plan."""
        known = ["format_version", *(known.name for known in fields(cls)), "validation"]
        _check_keys(content, known, ["format_version", "solver", "num_blocks", "steps"], "a plan")
        if content["format_version"] != FORMAT_VERSION:
            raise UserError(f"format_version is {content['format_version']!r}, expected {FORMAT_VERSION}")
        steps = content["steps"]
        if not isinstance(steps, Sequence) or isinstance(steps, str):
            raise UserError(f"steps is {steps!r}, expected a list")
        clip, percentile = content.get("clip_x0", False), content.get("dynamic_threshold")
        if not isinstance(clip, bool):
            raise UserError(f"clip_x0 is {clip!r}, expected true or false")
        return cls(
            tuple(PlanStep.from_json(step) for step in steps),
            _whole(content["num_blocks"], "num_blocks"),
            _whole(content.get("num_timesteps", 1000), "num_timesteps"),
            _text(content["solver"], "solver"),
            _number(content.get("eta", 0.0), "eta"),
            clip,
            None if percentile is None else _number(percentile, "dynamic_threshold"),
            _text(content.get("name", ""), "name"),
        )


def step_name(step: PlanStep) -> str:
    """What a step does: where samples exit and the readout, which alone says enough at exit 0, and another network."""
    if step.readout != "head":
        alone = step.exit_layer == 0 or step.readout == f"deep:{step.exit_layer}"
        return step.readout if alone else f"exit {step.exit_layer} {step.readout}".replace("exit policy", "policy")
    name = step.exit_layer if isinstance(step.exit_layer, str) else f"exit {step.exit_layer}"
    return name if step.network is None else f"{name} of {step.network.rsplit('/', 1)[-1]}"


def _check_keys(content: Mapping[str, Any], known: Sequence[str], required: Sequence[str], what: str) -> None:
    if unknown := [key for key in content if key not in known]:
        raise UserError(f"{what} has the unknown key {unknown[0]!r}, expected some of: {', '.join(known)}")
    if missing := [key for key in required if key not in content]:
        raise UserError(f"{what} lacks {', '.join(missing)}")


def _whole(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}, expected a whole number")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}, expected a number")
    return float(value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} is {value!r}, expected a string")
    return value
