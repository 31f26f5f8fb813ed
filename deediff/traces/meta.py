"""trace.json as a typed record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from deediff.cost.cost import Cost
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.plans.plan import Plan
from deediff.settings import PolicySpec, Record, SamplingSettings
from deediff.storage import AnyPath
from deediff.traces.schema import FORMAT_VERSION

REQUIRED = (
    "num_blocks",
    "num_samples",
    "timesteps",
    "policy",
    "record",
    "has_uncertainty",
    "policy_needs_uncertainty",
    "cost",
)


@dataclass(frozen=True)
class TraceMeta:
    """A trace's settings and machine, and the means over its samples once it is complete."""

    policy: PolicySpec
    num_samples: int
    num_blocks: int  # N
    timesteps: list[int]  # (S,) diffusion t of each step
    record: Record
    has_uncertainty: bool  # whether the rows hold u
    has_deviations: bool  # whether they hold RMS(g_i − ε_full)
    policy_needs_uncertainty: bool  # whether the policy evaluates UEMs, which its GFLOPs then include
    cost: Cost  # of one image and one step
    settings: SamplingSettings | None = None  # None: imported, so it cannot be sampled again
    solver: str | None = None
    batch_size: int | None = None  # samples per part
    policy_content: Any = None  # of the file that the policy names
    plan_content: Mapping[str, str] | None = None  # SHA-256 of each file that the plan names
    recalibration_sha256: str | None = None  # of the calibration that corrects u, if one does
    has_memory: bool = False  # whether the rows hold the policy's signal and the steps since the last full evaluation
    signal_exit: int | None = None  # the exit layer of a policy that compares a signal with δ; None: another policy
    uem_clamps: bool = False  # whether its UEMs lack a sigmoid, so that u was clamped to [0, 1]
    device: str | None = None
    threads: int | None = None
    dtype: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    imported: bool = False
    uem: str | None = None  # of an imported trace
    source: str | None = None  # file name that a trace was imported from
    complete: bool = False
    wall_seconds: float | None = None
    layer_ratio: float | None = None
    mean_gflops: float | None = None  # per image and step
    full_gflops: float | None = None  # of the full network, per image and step
    clamped: Mapping[str, int] | None = None  # values of u that were clamped: `count`, and `of` how many
    raw: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)  # trace.json as it was read

    @property
    def is_full(self) -> bool:
        """Whether every sample took the full network."""
        return self.policy.is_full and (self.plan is None or self.plan.is_full)

    @property
    def plan(self) -> Plan | None:
        """The plan that was followed; None without."""
        return None if self.settings is None else self.settings.plan

    @property
    def title(self) -> str:
        """The policy, or the plan and, where it decides exits, the policy."""
        chosen = "head" if self.settings is None else self.settings.readout
        readout = "" if chosen == "head" else f", readout {chosen}"
        if self.plan is None:
            return f"{self.policy}{readout}"
        name = f"plan {self.plan.name or self.plan}"
        return f"{name}, {self.policy}{readout}" if self.plan.uses_policy else name

    @property
    def seed(self) -> int | None:
        """Seed of the noise; None where the trace was imported."""
        return None if self.settings is None else self.settings.seed

    @property
    def guidance(self) -> float | None:
        """Scale of classifier-free guidance; None without."""
        return None if self.settings is None else self.settings.guidance

    @property
    def checkpoint_sha256(self) -> str | None:
        """Of the weights; None where the trace was imported."""
        return None if self.settings is None else self.settings.checkpoint_sha256

    @property
    def seconds_per_image(self) -> float | None:
        """Wall seconds / samples; None where they were not measured."""
        return self.wall_seconds / self.num_samples if self.wall_seconds else None

    def to_json(self) -> dict[str, Any]:
        """For trace.json. Fields that are None are left out, except settings."""
        known = {name: getattr(self, name) for name in _PLAIN if getattr(self, name) is not None}
        return {
            "format_version": FORMAT_VERSION,
            **known,
            **({} if self.settings is None else self.settings.to_json()),
            "timesteps": self.timesteps,
            "policy": str(self.policy),
            "deviations": self.has_deviations,
            "policy_content": self.policy_content,
            "recalibration_sha256": self.recalibration_sha256,
            "cost": self.cost.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TraceMeta:
        """From trace.json, of earlier versions too. Raises ValueError, TypeError or UserError when it is damaged."""
        blocks, timesteps = content["num_blocks"], content["timesteps"]
        sound = isinstance(blocks, int) and blocks > 0 and isinstance(timesteps, list) and bool(timesteps)
        sound = sound and all(isinstance(t, int) for t in timesteps)
        sound = sound and isinstance(content["num_samples"], int) and content["num_samples"] > 0
        sound = sound and isinstance(content.get("wall_seconds"), int | float | None)
        cost, policy = Cost.from_json(content["cost"]), PolicySpec.parse(str(content["policy"]))
        if not (sound and len(cost.blocks) == blocks and 0 <= (policy.threshold or 0.0) <= 1):
            raise ValueError("a field is out of range")
        size = content.get("batch_size")
        return cls(
            **{name: content[name] for name in _PLAIN if name in content}
            | {"batch_size": size if isinstance(size, int) and size > 0 else None},
            policy=policy,
            cost=cost,
            has_deviations=bool(content.get("deviations")),
            settings=_settings(content),
            raw=content,
        )


_COMPUTED = ("policy", "cost", "settings", "has_deviations", "raw")
_PLAIN = tuple(field.name for field in fields(TraceMeta) if field.name not in _COMPUTED)  # as trace.json spells them


def _settings(content: Mapping[str, Any]) -> SamplingSettings | None:
    """Settings that reproduce the trace; None where it was imported."""
    if content.get("imported") or not content.get("solver") or "seed" not in content:
        return None
    return SamplingSettings.from_json({key: value for key, value in content.items() if value is not None})


def read_meta(file: AnyPath) -> TraceMeta:
    """Read a trace.json. Raises UserError when it is missing, damaged or of another format."""
    content = read_json(file)
    if content.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{file}: format_version is {content.get('format_version')}, expected {FORMAT_VERSION}")
    if missing := [key for key in REQUIRED if key not in content]:
        raise UserError(f"{file} lacks {', '.join(missing)}: it is not a trace written by deediff")
    try:
        return TraceMeta.from_json(content)
    except (AttributeError, TypeError, ValueError, UserError):
        raise UserError(
            f"{file} is damaged: its blocks, timesteps, samples, policy, settings or cost are out of range"
        ) from None
