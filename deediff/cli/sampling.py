"""`deediff sample` and `maps`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes, Positional, Suppress, arg

from deediff.cli.command import Command, Flag, Result, defaults_to, from_text, one_of
from deediff.cli.traces import trace_argument
from deediff.diffusion.solvers import SOLVERS, SPACINGS
from deediff.plans import Plan
from deediff.plans.file import find_plan
from deediff.policies.registry import BOUNDS, POLICIES
from deediff.recording.job import missing_parts, sample_to_trace
from deediff.recording.maps import checkpoint_of, write_maps
from deediff.sampling.sampler import Step
from deediff.settings import Device, SamplingSettings, check_spacing
from deediff.traces.reader import read_trace


def parse_samples(text: str) -> range:
    """'0:4' → samples 0 … 3. Raises ValueError."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(f"{text!r} is not a range of samples, expected A:B, for example 0:4")
    return range(int(match[1]), int(match[2]))


def parse_timesteps(text: str) -> tuple[int, ...]:
    """'999,700,400' → timesteps. Raises ValueError."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"{text!r} is not a list of timesteps, expected for example 999,700,400")
    return tuple(map(int, text.split(",")))


def parse_solver(text: str) -> str:
    """A name of SOLVERS, or diffusers:NAME. Raises ValueError."""
    if text not in SOLVERS and not text.startswith("diffusers:"):
        known = ", ".join(map(repr, SOLVERS))
        raise ValueError(f"invalid choice {text!r}, expected {known} or 'diffusers:NAME'")
    return text


Samples = Annotated[range, from_text("A:B", parse_samples, lambda samples: f"{samples.start}:{samples.stop}")]
POLICY_HELP = "\n".join([*(f"{entry.usage}: {entry.help}" for entry in POLICIES.values()), BOUNDS])

SOLVER_HELP = (
    f"{', '.join(SOLVERS)}, or diffusers:NAME: a deterministic scheduler of that package, such as diffusers:UniPC or "
    "diffusers:DPM-Solver++(3M)"
)


@dataclass(frozen=True)
class Options(SamplingSettings):
    """The settings of a sampling job (`deediff.SamplingSettings`)."""

    policy: Annotated[str, arg(help=POLICY_HELP, metavar="POLICY")] = SamplingSettings.policy
    solver: Annotated[str, from_text("SOLVER", parse_solver, str), arg(help=SOLVER_HELP)] = SamplingSettings.solver
    spacing: Annotated[str, one_of(SPACINGS)] = SamplingSettings.spacing
    timesteps: Annotated[tuple[int, ...] | None, from_text("T,T,…", parse_timesteps, str), defaults_to("spaced")] = None
    clip_x0: Flag = SamplingSettings.clip_x0
    dynamic_threshold: Annotated[float | None, defaults_to("static clipping")] = None
    deviations: Flag = SamplingSettings.deviations
    classes: Annotated[tuple[str, ...] | None, defaults_to("all classes", "CLASS[,CLASS…]")] = None  # type: ignore[assignment]
    guidance: Annotated[float | None, defaults_to("no guidance")] = None
    recalibrated: Flag = SamplingSettings.recalibrated
    plan: Suppress[Plan | None] = None
    checkpoint: Suppress[str | None] = None
    checkpoint_sha256: Suppress[str | None] = None


@dataclass(frozen=True, kw_only=True)
class Sample(Command):
    """Sample images into a trace; run it again to resume."""

    checkpoint: Positional[Path]
    """A run folder or a .safetensors file."""
    out: str
    """Folder of the trace, for example runs/RUN/traces/NAME, or any fsspec URL."""
    settings: OmitArgPrefixes[Options] = field(default_factory=Options)
    plan: Annotated[str | None, defaults_to("solver, steps and policy", "FILE|NAME")] = None
    """Timesteps, exits and readouts step by step: a plan file, or the name of one in RUN/plans."""
    maps: Annotated[Samples, defaults_to("none")] = range(0)
    """Also log maps of u over the image for samples A … B−1. They are recomputed after the sampling."""
    device: Device = "auto"
    """auto: CUDA (in bf16) if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """Sample, and report exits and cost."""
        with progress(self.plan or self.settings.policy) as on_step:
            given = asdict(self.settings)
            check_spacing({name: value for name, value in given.items() if value != getattr(SamplingSettings, name)})
            settings = SamplingSettings(**given)
            if self.plan is not None:
                run = self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent.parent
                settings = replace(settings, plan=find_plan(self.plan, run))
            folder = sample_to_trace(
                self.checkpoint, self.out, settings, device=self.device, maps=self.maps, on_step=on_step
            )
        trace = read_trace(folder)
        keys = ("num_samples", "layer_ratio", "mean_gflops", "full_gflops", "wall_seconds", "complete")
        found = {key: getattr(trace.meta, key) for key in keys}
        result: Result = {"trace": str(folder), "policy": trace.meta.title, **found}
        if clamped := trace.meta.clamped:
            result["note"] = f"{clamped['count']} of {clamped['of']} uncertainties outside [0, 1] were clamped"
        if not trace.meta.complete:
            result["note"] = missing_parts(trace)
            print(f"note: {result['note']}", file=sys.stderr)
        return result


@dataclass(frozen=True, kw_only=True)
class Maps(Command):
    """Log maps of u over the image for some samples of a finished trace, recomputed from the seed."""

    trace: Positional[str]
    """A trace folder or its URL. Its rows may be missing."""
    samples: Samples = range(4)
    """The samples: numbers A … B−1."""
    checkpoint: Annotated[Path | None, defaults_to("the checkpoint in the trace's run that it was sampled from")] = None
    """A run folder or a .safetensors file."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """Add maps to the trace."""
        trace = trace_argument(self.trace)
        with progress("maps") as on_step:
            write_maps(trace, self.samples, self.checkpoint or checkpoint_of(trace), self.device, on_step)
        return {"trace": str(trace.path), "samples_with_maps": trace.map_samples}


@contextmanager
def progress(description: str) -> Iterator[Callable[[Step], None]]:
    """A progress bar of denoising steps, on a terminal."""
    with tqdm(unit="step", desc=description, disable=None, mininterval=0.5) as bar:

        def on_step(step: Step) -> None:
            bar.total = step.total
            bar.set_postfix(samples=f"{step.samples.start}…{step.samples.stop - 1}", t=step.timestep, refresh=False)
            bar.update(step.done - bar.n)  # negative at the next sample of maps: their count restarts

        yield on_step
