"""What measures: `deediff bench sampler`, `trace`, `train` and `app`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from deediff.bench.app import PARTS, ROOT, bench_app
from deediff.bench.sampler import bench_sampler
from deediff.bench.trace import bench_trace
from deediff.bench.train import bench_train
from deediff.cli.command import DEVICE, Result, argument, command, open_model, open_schedule, positive
from deediff.devices import choose_device

MODEL = argument("checkpoint", nargs="?", default="uvit_tiny", help="a run, a checkpoint, or a preset (random weights)")


@command(
    "bench sampler",
    "real exits in seconds beside their promise in FLOPs",
    MODEL,
    argument("--batch-sizes", type=positive, nargs="+", default=None, help="default: 1 16 64, and 512 on CUDA"),
    argument("--steps", type=positive, default=4, help="denoising steps, spread evenly over all timesteps"),
    argument("--repeats", type=positive, default=15, help="rounds at most; medians are printed"),
    argument("--minutes", type=float, default=8.0, help="for all batch sizes together; each gets one round"),
    argument(
        "--profile",
        default=None,
        metavar="FILE[:NAME]",
        help="exit layers of a real run to replay: an .npz of (1000, samples), or a trace; default: an imitation",
    ),
    DEVICE,
    argument("--cpu-time", action="store_true", help="count this process's CPU time, for a machine that is busy"),
)
def sampler(args: argparse.Namespace) -> Result:
    """Real exits beside the full network."""
    return bench_sampler(
        open_model(args.checkpoint, "mlp").eval(), choose_device(args.device),
        args.batch_sizes, args.steps, args.repeats, args.minutes, args.profile, args.cpu_time,
        open_schedule(args.checkpoint),
    )  # fmt: skip


@command(
    "bench trace",
    "logging's share of the sampling time, and the speed of a trace",
    MODEL,
    argument("--policy", default="threshold:0.1", help="the policy to log, beside replayed exits at half depth"),
    argument("--num-samples", type=positive, default=64, help="images"),
    argument("--batch-size", type=positive, default=64, help="images at a time, and per part of the trace"),
    argument("--steps", type=positive, default=20, help="denoising steps (DDIM)"),
    argument("--repeats", type=positive, default=3, help="rounds; medians are printed"),
    DEVICE,
)
def trace(args: argparse.Namespace) -> Result:
    """Logging beside sampling."""
    with tempfile.TemporaryDirectory() as folder:
        return bench_trace(
            open_model(args.checkpoint, "mlp").eval(), choose_device(args.device), Path(folder),
            args.num_samples, args.batch_size, args.steps, args.policy, args.repeats, open_schedule(args.checkpoint),
        )  # fmt: skip


@command(
    "bench train",
    "images per second with a frozen backbone beside fine-tuning",
    MODEL,
    argument("--batch-size", type=positive, default=64, help="images per step"),
    argument("--repeats", type=positive, default=7, help="rounds; medians are printed"),
    DEVICE,
)
def train(args: argparse.Namespace) -> Result:
    """Frozen beside fine-tuned."""
    return bench_train(open_model(args.checkpoint, "mlp"), choose_device(args.device), args.batch_size, args.repeats)


@command(
    "bench app",
    "the explorer's speed and memory, in a real browser; needs Playwright and Chromium",
    argument("run", nargs="?", type=Path, default=ROOT / "runs" / "mnist_tiny", help="a run with a full recording"),
    argument("--repeats", type=positive, default=5, help="of every measure; medians are printed"),
    argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these measures alone; memory always"),
)
def app(args: argparse.Namespace) -> Result:
    """The explorer from outside."""
    with tempfile.TemporaryDirectory() as folder:
        return bench_app(args.run, Path(folder), args.repeats, only=args.only)
