"""`deediff bench sampler`, `trace`, `train` and `app`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from deediff.bench.app import PARTS, ROOT, bench_app
from deediff.bench.sampler import SamplerBench, bench_sampler
from deediff.bench.trace import TraceBench, bench_trace
from deediff.bench.train import bench_train
from deediff.cli.checkpoints import model_argument, schedule_argument
from deediff.cli.command import Command, Count, Flag, Result, defaults_to, one_of
from deediff.devices import choose_device
from deediff.settings import Device

Parts = Annotated[tuple[Annotated[str, one_of(PARTS)], ...], defaults_to("all", f"{{{','.join(PARTS)}}} [...]")]


@dataclass(frozen=True, kw_only=True)
class BenchSampler(Command):
    """The speed-up of real exits, beside the FLOPs that they save."""

    checkpoint: Positional[str] = "uvit_tiny"
    """A run folder, a .safetensors file, or a preset (random weights)."""
    batch_sizes: Annotated[tuple[Count, ...] | None, defaults_to("1 16 64, and 512 on CUDA", "INT [INT ...]")] = None
    """Images per batch."""
    steps: Count = 4
    """Denoising steps, spread evenly over all timesteps."""
    repeats: Count = 15
    """Largest number of rounds; medians are printed."""
    minutes: float = 8.0
    """Time for all batch sizes together; each gets at least one round."""
    profile: Annotated[str | None, defaults_to("synthetic exits like the published ones")] = None
    """FILE[:NAME] of recorded exit layers to replay: an .npz file of (1000, samples), or a trace."""
    device: Device = "auto"
    """auto: CUDA (in bf16) if available, else MPS, else the CPU."""
    cpu_time: Flag = False
    """Measure this process's CPU time instead of wall-clock time, for a busy machine."""

    def run(self) -> Result:
        """A row per batch size and variant."""
        bench = SamplerBench(
            self.batch_sizes, self.steps, self.repeats, self.minutes, self.profile, cpu_time=self.cpu_time
        )
        model, device = model_argument(self.checkpoint).eval(), choose_device(self.device)
        return bench_sampler(model, device, bench, schedule_argument(self.checkpoint))


@dataclass(frozen=True, kw_only=True)
class BenchTrace(Command):
    """The share of logging in the sampling time, and the speed of reading traces."""

    checkpoint: Positional[str] = "uvit_tiny"
    """A run folder, a .safetensors file, or a preset (random weights)."""
    policy: str = "threshold:0.1"
    """The policy to log, beside replayed exits at half depth."""
    num_samples: Count = 64
    """Number of images."""
    batch_size: Count = 64
    """Images per batch, and per part of the trace."""
    steps: Count = 20
    """Denoising steps (DDIM)."""
    repeats: Count = 3
    """Rounds; medians are printed."""
    device: Device = "auto"
    """auto: CUDA (in bf16) if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """Seconds with and without logging."""
        bench = TraceBench(self.policy, self.num_samples, self.batch_size, self.steps, self.repeats)
        model, device = model_argument(self.checkpoint).eval(), choose_device(self.device)
        with tempfile.TemporaryDirectory() as folder:
            return bench_trace(model, device, Path(folder), bench, schedule_argument(self.checkpoint))


@dataclass(frozen=True, kw_only=True)
class BenchTrain(Command):
    """Training images per second with a frozen backbone, beside fine-tuning."""

    checkpoint: Positional[str] = "uvit_tiny"
    """A run folder, a .safetensors file, or a preset (random weights)."""
    batch_size: Count = 64
    """Images per step."""
    repeats: Count = 7
    """Rounds; medians are printed."""
    device: Device = "auto"
    """auto: CUDA (in bf16) if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """A row per strategy and precision."""
        return bench_train(model_argument(self.checkpoint), choose_device(self.device), self.batch_size, self.repeats)


@dataclass(frozen=True, kw_only=True)
class BenchApp(Command):
    """Speed and memory of the explorer in a real browser. Needs Playwright and Chromium."""

    folder: Annotated[Positional[Path], defaults_to("runs/mnist_tiny", "[RUN]")] = ROOT / "runs" / "mnist_tiny"
    """A run with a trace recorded with --record full."""
    repeats: Count = 5
    """Repetitions of every measurement; medians are printed."""
    only: Parts = PARTS
    """Only these measurements; memory is always measured."""
    people: Count = 10
    """Browser contexts that move their sliders at once."""

    def run(self) -> Result:
        """A row per measurement, beside its limit."""
        with tempfile.TemporaryDirectory() as folder:
            return bench_app(self.folder, Path(folder), self.repeats, only=self.only, people=self.people)
