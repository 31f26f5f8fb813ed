"""What makes traces and runs: `deediff sample`, `maps` and `import`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from deediff.cli.command import DEVICE, Result, argument, command, open_trace
from deediff.diffusion.solvers import SOLVERS, SPACINGS
from deediff.importing.checkpoint import import_checkpoint
from deediff.importing.exit_layers import import_exit_layers
from deediff.json_files import read_json
from deediff.models import PRESETS
from deediff.models.official import LAYOUTS
from deediff.models.uncertainty import UEMS
from deediff.policies.registry import BOUNDS, POLICIES
from deediff.recording.job import sample_to_trace
from deediff.recording.maps import checkpoint_of, write_maps
from deediff.sampling.sampler import Step
from deediff.settings import SamplingSettings
from deediff.traces.reader import read_trace


def sample_numbers(text: str) -> range:
    """'0:4' → samples 0 … 3, for argparse."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no range of samples, expected A:B, for example 0:4")
    return range(int(match[1]), int(match[2]))


POLICY_HELP = "; ".join(f"{entry.usage}: {entry.help}" for entry in POLICIES.values()) + "; " + BOUNDS


@command(
    "sample",
    "sample images into a trace; run it again to resume",
    argument("checkpoint", type=Path, help="a run folder or a .safetensors file"),
    argument("--policy", default="never", help=POLICY_HELP),
    argument("--solver", default="ddim", choices=list(SOLVERS)),
    argument("--steps", type=int, default=50, help="denoising steps"),
    argument("--spacing", default="trailing", choices=SPACINGS, help="how the timesteps are spread"),
    argument("--eta", type=float, default=0.0, help="DDIM's η: 0 is deterministic, 1 is DDPM"),
    argument("--num-samples", type=int, default=64, help="images"),
    argument("--batch-size", type=int, default=64, help="images at a time, and per part of the trace"),
    argument("--seed", type=int, default=0),
    argument(
        "--record",
        default="exit",
        choices=["exit", "full"],
        help="exit: stop at the exit (fast); full: u at every layer",
    ),
    argument("--deviations", action="store_true", help="with --record full: also RMS(g_i − ε_full) per layer"),
    argument("--classes", type=int, nargs="+", default=None, help="class-conditional models: drawn in turn"),
    argument("--guidance", type=float, default=None, help="scale of classifier-free guidance; 1 is none"),
    argument("--recalibrated", action="store_true", help="u corrected by the maps of 'deediff calibrate'"),
    argument(
        "--maps",
        type=sample_numbers,
        default=range(0),
        metavar="A:B",
        help="log maps of u over the image for samples A … B−1: computed again afterwards, nothing else changes",
    ),
    DEVICE,
    argument("--out", required=True, help="the trace's folder, e.g. runs/RUN/traces/NAME, or any fsspec URL"),
)
def sample(args: argparse.Namespace) -> Result:
    """Sample into a trace."""
    with _progress(args.policy) as on_step:
        names = {field.name for field in fields(SamplingSettings)}
        settings = SamplingSettings(
            **{name: value for name, value in vars(args).items() if name in names - {"checkpoint"}}
        )
        folder = sample_to_trace(
            args.checkpoint, args.out, settings, device=args.device, maps=args.maps, on_step=on_step
        )
    trace = read_trace(folder)
    keys = ("policy", "num_samples", "layer_ratio", "mean_gflops", "full_gflops", "wall_seconds", "complete")
    result = {"trace": str(folder), **{key: trace.meta.raw.get(key) for key in keys}}
    if cut := trace.meta.clamped:
        result["note"] = f"{cut['count']} of {cut['of']} uncertainties left [0, 1] and were cut to it"
    return result


@command(
    "maps",
    "maps of u over the image for some samples of a finished trace, computed again from the seed",
    argument("trace", help="a trace folder, or its URL; its rows may be missing"),
    argument("--samples", type=sample_numbers, default=range(4), metavar="A:B", help="samples A … B−1"),
    argument(
        "--checkpoint", type=Path, default=None, help="default: the one in the trace's run that it was drawn from"
    ),
    DEVICE,
)
def maps(args: argparse.Namespace) -> Result:
    """Add maps to a trace."""
    trace = open_trace(args.trace)
    with _progress("maps") as on_step:
        write_maps(trace, args.samples, args.checkpoint or checkpoint_of(trace), args.device, on_step)
    return {"trace": str(trace.path), "samples_with_maps": trace.map_samples}


@contextmanager
def _progress(what: str) -> Iterator[Callable[[Step], None]]:
    """A bar of denoising steps, on a terminal."""
    with tqdm(unit="step", desc=what, disable=None, mininterval=0.5) as bar:

        def on_step(step: Step) -> None:
            bar.total = step.total
            bar.set_postfix(samples=f"{step.samples.start}…{step.samples.stop - 1}", t=step.timestep, refresh=False)
            bar.update(step.done - bar.n)  # maps start anew for every sample

        yield on_step


@command(
    "import",
    "turn a U-ViT, AdaDiff or DuoDiff .pth, or exit layers of others' runs, into a run",
    argument("path", type=Path, help="a .pth; or for exit layers a folder of .pt files or an .npz"),
    argument("--layout", required=True, choices=[*LAYOUTS, "duodiff-indices"]),
    argument("--out", type=Path, required=True, help="the run folder to write"),
    argument("--num-heads", type=int, default=None, help="of a .pth: attention heads, if no preset has this shape"),
    argument("--normalize-timesteps", action="store_true", help="of a .pth: the network was trained on t/1000"),
    argument(
        "--images-seen", type=int, default=0, help="of a .pth: training images behind the weights, for the record"
    ),
    argument(
        "--model", default="uvit_small", choices=list(PRESETS), help="duodiff-indices: the model that was sampled"
    ),
    argument("--uem", default="auto", choices=["auto", *UEMS], help="duodiff-indices: its UEM; auto: from the name"),
)
def import_run(args: argparse.Namespace) -> Result:
    """Import a checkpoint or exit layers as a run."""
    if args.layout in LAYOUTS:
        run = import_checkpoint(
            args.path, args.out, args.layout, args.num_heads, args.normalize_timesteps, args.images_seen
        )
    else:
        run = import_exit_layers(args.path, args.out, args.model, args.uem)
    notes = read_json(run / "run.json").get("notes")
    return {"run": str(run), **({"note": "; ".join(notes)} if notes else {})}
