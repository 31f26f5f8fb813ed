"""When two traces may be compared sample by sample, and when their seconds may be compared.

All pairings in the library and in the explorer use these two rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deediff.settings import SamplingSettings
from deediff.traces.meta import TraceMeta
from deediff.traces.reader import Trace

NOISE = ("seed", "solver", "timesteps", "clipping", "eta", "classes", "guidance", "checkpoint_sha256")
MACHINE = ("batch_size", "device", "threads", "dtype")


def noise_key(meta: TraceMeta) -> tuple[object, ...]:
    """The values that `same_noise` compares, in the order of NOISE; None where they are unknown."""
    if meta.settings is None:
        return (None, meta.solver, tuple(meta.timesteps), None, None, None, None, None)
    return _key(meta.settings, meta.timesteps)


def _key(settings: SamplingSettings, timesteps: Sequence[int]) -> tuple[object, ...]:
    return (
        settings.seed,
        settings.solver,
        tuple(timesteps),
        (settings.clip_x0, settings.dynamic_threshold),
        settings.eta,
        settings.classes,
        settings.guidance,
        settings.checkpoint_sha256,
    )


def noise_differences(a: TraceMeta, b: TraceMeta) -> list[str]:
    """The names in NOISE in which two traces differ."""
    return [name for name, x, y in zip(NOISE, noise_key(a), noise_key(b), strict=True) if x != y]


def settings_differences(trace: TraceMeta, settings: SamplingSettings) -> list[str]:
    """The names in NOISE in which a job (settings with all timesteps) differs from a trace; weights if both are known.

    Empty for an imported trace.
    """
    if trace.settings is None or settings.timesteps is None:
        return []
    pairs = zip(NOISE, noise_key(trace), _key(settings, settings.timesteps), strict=True)
    return [name for name, x, y in pairs if x != y and not (name == "checkpoint_sha256" and None in (x, y))]


def same_noise(a: TraceMeta, b: TraceMeta) -> bool:
    """Whether sample k of both was drawn from the same noise by the same network, so that only exits differ.

    False for an imported trace: its seed and weights are unknown.
    """
    return a.settings is not None and not noise_differences(a, b)


def same_machine(a: TraceMeta, b: TraceMeta) -> bool:
    """Whether both were sampled in equal batches and precision on equal hardware, so that seconds compare.

    False where one of these is unknown.
    """
    values = [(getattr(a, name), getattr(b, name)) for name in MACHINE]
    return all(x is not None and x == y for x, y in values)


def full_twin(trace: Trace, candidates: Iterable[Trace]) -> Trace | None:
    """The full network's trace of the same noise, if one is among the candidates; one that evaluated no UEM first."""
    found = [other for other in candidates if other.meta.is_full and same_noise(other.meta, trace.meta)]
    return min(found, key=lambda other: other.meta.record != "exit", default=None)


def speed_up(trace: Trace, candidates: Iterable[Trace]) -> tuple[float, Trace] | None:
    """Seconds of the full network / seconds of `trace`, and the full network's trace; None where there is none.

    Only a trace of the same noise, timed on the same machine, is a full network to compare with.
    """
    timed = [c for c in candidates if c.meta.seconds_per_image and same_machine(c.meta, trace.meta)]
    full, seconds = full_twin(trace, timed), trace.meta.seconds_per_image
    if full is None or full.meta.seconds_per_image is None or seconds is None:
        return None
    return full.meta.seconds_per_image / seconds, full
