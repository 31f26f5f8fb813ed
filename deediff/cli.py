"""The `deediff` command."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deediff import __version__
from deediff.analysis.compare import comparison_table
from deediff.analysis.cost import model_cost
from deediff.analysis.trends import threshold_table
from deediff.bench.sampler import bench_sampler
from deediff.bench.trace import bench_trace
from deediff.checkpoints import load_checkpoint
from deediff.devices import DEVICES, choose_device
from deediff.diffusion.solvers import SOLVERS, SPACINGS
from deediff.errors import UserError
from deediff.importing import import_exit_layers, import_uvit
from deediff.models import PRESETS, EarlyExitModel, UViT
from deediff.models.uncertainty import UEMS
from deediff.sampling.registry import BOUNDS, POLICIES
from deediff.sampling.sampler import Step
from deediff.traces.reader import read_trace
from deediff.traces.writer import sample_to_trace

POLICY_HELP = "; ".join(f"{entry.usage}: {entry.help}" for entry in POLICIES.values()) + "; " + BOUNDS


def sample_command(args: argparse.Namespace) -> dict[str, Any]:
    """Sample into a trace."""
    with tqdm(unit="step", desc=args.policy, disable=None, mininterval=0.5) as bar:

        def on_step(step: Step) -> None:
            bar.total = step.total
            bar.set_postfix(samples=f"{step.samples.start}…{step.samples.stop - 1}", t=step.timestep, refresh=False)
            bar.update()

        folder = sample_to_trace(
            args.checkpoint, args.out, args.num_samples, args.policy, args.solver, args.steps, args.seed,
            args.batch_size, args.spacing, args.eta, args.record, args.deviations,
            args.device, on_step, classes=args.classes, guidance=args.guidance,
        )  # fmt: skip
    trace = read_trace(folder)
    keys = ("policy", "num_samples", "layer_ratio", "mean_gflops", "full_gflops", "wall_seconds", "complete")
    return {"trace": str(folder), **{key: trace.meta.get(key) for key in keys}}


def import_command(args: argparse.Namespace) -> dict[str, Any]:
    """Import a checkpoint or exit layers as a run."""
    if args.layout == "uvit":
        run = import_uvit(args.path, args.out, args.num_heads, args.normalize_timesteps, args.images_seen)
    else:
        run = import_exit_layers(args.path, args.out, args.model, args.uem)
    return {"run": str(run)}


def parse_thresholds(text: str) -> list[float]:
    """'0.01:0.2:0.01' (start:stop:step, both ends) or '0.05,0.1' → numbers. Raises UserError."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        start, stop, step = (float(part) for part in text.split(":"))
        if not (step > 0 and 0 <= start <= stop <= 1):
            raise ValueError
        return [round(start + i * step, 6) for i in range(math.floor((stop - start) / step + 1e-9) + 1)]
    except ValueError:
        raise UserError(
            f"thresholds {text!r}: expected start:stop:step or a comma-separated list, e.g. 0.01:0.2:0.01"
        ) from None


def trends_command(args: argparse.Namespace) -> dict[str, Any]:
    """What thresholds would do, from the summary alone."""
    trace = read_trace(args.trace)
    for problem in trace.problems:
        print(f"note: {problem}", file=sys.stderr)
    recorded = {key: trace.meta.get(key) for key in ("policy", "num_samples", "layer_ratio", "mean_gflops")}
    if args.thresholds is None and trace.what_if_limit is None:
        return {"measured": recorded, "thresholds": [], "note": trace.why_no_what_if}
    lowest = trace.what_if_limit[0] if trace.what_if_limit else 0.0
    wanted = (
        parse_thresholds(args.thresholds) if args.thresholds else [i / 100 for i in range(1, 21) if i / 100 >= lowest]
    )
    return {"measured": recorded, "thresholds": threshold_table(trace, wanted).to_dict("records")}


def compare_command(args: argparse.Namespace) -> dict[str, Any]:
    """Cost, promised and measured, and distance from the full network's images."""
    traces = [read_trace(path) for path in args.traces]
    table = comparison_table(traces)
    device = {str(trace.meta.get("device", "unknown")) for trace in traces}
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return {"device": "; ".join(sorted(device)), "traces": rows}


def flops_command(args: argparse.Namespace) -> dict[str, Any]:
    """The component table."""
    model = _model(args.checkpoint, args.uem)
    cost = model_cost(model)
    exits = cost.at_exit(with_uem=True)
    parameters = sum(p.numel() for p in model.backbone.parameters())
    return {
        "backbone_parameters": parameters,
        "full_gflops": cost.full,
        "full_gmacs": cost.full / 2,
        "embed_gflops": cost.embed,
        "decode_gflops": cost.decode,
        "layers": [
            {
                "layer": i,
                "block_gflops": cost.blocks[i],
                "uem_gflops": cost.uems[i] if cost.uems else None,
                "head_gflops": cost.heads[i] if cost.heads else None,
                "exit_here_gflops": None if math.isnan(exits[i]) else float(exits[i]),
            }
            for i in range(model.num_blocks)
        ],
        "no_exit_gflops": float(exits[-1]),
        "counted": "2 × multiply-accumulates of linear maps, convolutions and matrix products, attention included",
    }


def bench_sampler_command(args: argparse.Namespace) -> dict[str, Any]:
    """Real exits beside the full network."""
    return bench_sampler(
        _model(args.checkpoint, "mlp").eval(), choose_device(args.device),
        args.batch_sizes, args.steps, args.repeats, args.minutes, args.profile, args.cpu_time,
    )  # fmt: skip


def bench_trace_command(args: argparse.Namespace) -> dict[str, Any]:
    """Logging beside sampling."""
    with tempfile.TemporaryDirectory() as folder:
        return bench_trace(
            _model(args.checkpoint, "mlp").eval(), choose_device(args.device), Path(folder),
            args.num_samples, args.batch_size, args.steps, args.policy, args.repeats,
        )  # fmt: skip


def _model(name: str, uem: str) -> EarlyExitModel:
    """A checkpoint's model, or a preset with random weights and exits."""
    if name in PRESETS:
        return EarlyExitModel(UViT(PRESETS[name])).add_exits({"name": uem, "scope": "layer"})
    return load_checkpoint(Path(name))[0]


def show(result: dict[str, Any]) -> None:
    """Print a result for people: scalars as lines, lists of rows as tables."""
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            cells = [list(value[0])] + [[_format(cell) for cell in row.values()] for row in value]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            print()
            for line in cells:
                print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        elif isinstance(value, dict):
            print(f"{key}: " + ", ".join(f"{name} {_format(cell)}" for name, cell in value.items()))
        elif value not in (None, []):
            print(f"{key}: {_format(value)}")


def _format(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "–" if value is None else str(value)


def positive(text: str) -> int:
    """A whole number ≥ 1, for argparse."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="deediff", description="Early exit for diffusion models: sample, import, look."
    )
    parser.add_argument("--version", action="version", version=f"deediff {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, help: str, group: Any = commands) -> argparse.ArgumentParser:
        sub = group.add_parser(
            name, help=help, description=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.set_defaults(function=function)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        return sub

    p = command("sample", sample_command, "sample images into a trace; run it again to resume")
    p.add_argument("checkpoint", type=Path, help="a run folder or a .safetensors file")
    p.add_argument("--policy", default="never", help=POLICY_HELP)
    p.add_argument("--solver", default="ddim", choices=list(SOLVERS))
    p.add_argument("--steps", type=int, default=50, help="denoising steps")
    p.add_argument("--spacing", default="trailing", choices=SPACINGS, help="how the timesteps are spread")
    p.add_argument("--eta", type=float, default=0.0, help="DDIM's η: 0 is deterministic, 1 is DDPM")
    p.add_argument("--num-samples", type=int, default=64, help="images")
    p.add_argument("--batch-size", type=int, default=64, help="images at a time, and per part of the trace")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--record",
        default="exit",
        choices=["exit", "full"],
        help="exit: stop at the exit (fast); full: u at every layer",
    )
    p.add_argument("--deviations", action="store_true", help="with --record full: also RMS(g_i − ε_full) per layer")
    p.add_argument("--classes", type=int, nargs="+", default=None, help="class-conditional models: drawn in turn")
    p.add_argument("--guidance", type=float, default=None, help="scale of classifier-free guidance; 1 is none")
    p.add_argument("--device", default="auto", choices=DEVICES, help="auto: CUDA (in bf16), else MPS, else the CPU")
    p.add_argument("--out", required=True, help="the trace's folder, e.g. runs/RUN/traces/NAME, or any fsspec URL")

    p = command("import", import_command, "turn an official U-ViT .pth, or exit layers of others' runs, into a run")
    p.add_argument("path", type=Path, help="a .pth; or for exit layers a folder of .pt files or an .npz")
    p.add_argument("--layout", required=True, choices=["uvit", "duodiff-indices"])
    p.add_argument("--out", type=Path, required=True, help="the run folder to write")
    p.add_argument("--num-heads", type=int, default=None, help="uvit: attention heads, if no preset has this shape")
    p.add_argument("--normalize-timesteps", action="store_true", help="uvit: the network was trained on t/1000")
    p.add_argument(
        "--images-seen", type=int, default=0, help="uvit: training images behind the weights, for the record"
    )
    p.add_argument(
        "--model", default="uvit_small", choices=list(PRESETS), help="duodiff-indices: the model that was sampled"
    )
    p.add_argument(
        "--uem", default="auto", choices=["auto", *UEMS], help="duodiff-indices: its UEM; auto: from the name"
    )

    p = command("trends", trends_command, "layer ratio, GFLOPs and exits per threshold, without sampling")
    p.add_argument("trace", help="a trace folder, or its URL")
    p.add_argument("--thresholds", default=None, help="start:stop:step or a comma-separated list, rounded to 0.005")

    p = command("compare", compare_command, "traces beside each other: GFLOPs, seconds, change of the images")
    p.add_argument(
        "traces", nargs="+", help="trace folders or URLs; a `never` one among them is what others are held against"
    )

    p = command("flops", flops_command, "GFLOPs of every component and of leaving at every exit")
    p.add_argument("checkpoint", help="a run folder, a .safetensors file, or a preset: " + ", ".join(PRESETS))
    p.add_argument("--uem", default="mlp", choices=list(UEMS), help="the UEM to put on a preset")

    help = "what exits are worth in seconds, and what a trace costs"
    benches = commands.add_parser("bench", help=help, description=help).add_subparsers(required=True, metavar="WHAT")
    model_help = "a run, a checkpoint, or a preset (random weights)"

    p = command("sampler", bench_sampler_command, "real exits in seconds beside their promise in FLOPs", benches)
    p.add_argument("checkpoint", nargs="?", default="uvit_tiny", help=model_help)
    p.add_argument("--batch-sizes", type=positive, nargs="+", default=None, help="default: 1 16 64, and 512 on CUDA")
    p.add_argument("--steps", type=positive, default=4, help="denoising steps, spread evenly over all timesteps")
    p.add_argument("--repeats", type=positive, default=15, help="rounds at most; medians are printed")
    p.add_argument("--minutes", type=float, default=8.0, help="for all batch sizes together; each gets one round")
    p.add_argument(
        "--profile",
        default=None,
        metavar="FILE[:NAME]",
        help="exit layers of a real run to replay: an .npz of (1000, samples), or a trace; default: an imitation",
    )
    p.add_argument("--device", default="auto", choices=DEVICES, help="auto: CUDA (in bf16), else MPS, else the CPU")
    p.add_argument("--cpu-time", action="store_true", help="count this process's CPU time, for a machine that is busy")

    p = command("trace", bench_trace_command, "logging's share of the sampling time, and the speed of a trace", benches)
    p.add_argument("checkpoint", nargs="?", default="uvit_tiny", help=model_help)
    p.add_argument("--policy", default="threshold:0.1", help="the policy to log, beside replayed exits at half depth")
    p.add_argument("--num-samples", type=positive, default=64, help="images")
    p.add_argument("--batch-size", type=positive, default=64, help="images at a time, and per part of the trace")
    p.add_argument("--steps", type=positive, default=20, help="denoising steps (DDIM)")
    p.add_argument("--repeats", type=positive, default=3, help="rounds; medians are printed")
    p.add_argument("--device", default="auto", choices=DEVICES, help="auto: CUDA (in bf16), else MPS, else the CPU")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for bad input (one sentence on stderr)."""
    args = build_parser().parse_args(argv)
    try:
        result = args.function(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # the last resort: a sentence, and the traceback for those who ask
        if os.environ.get("DEEDIFF_DEBUG"):
            raise
        reason = " ".join(str(error).split())
        print(
            f"error: {type(error).__name__} ({reason}): a damaged file, or a bug; DEEDIFF_DEBUG=1 shows where",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped: what was complete is kept; run the same command again to go on", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
