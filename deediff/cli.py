"""The `deediff` command."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deediff import __version__
from deediff.analysis.calibration import calibrate_checkpoint
from deediff.analysis.compare import comparison_table
from deediff.analysis.cost import model_cost
from deediff.analysis.static import fit_static, save_schedule
from deediff.analysis.trends import threshold_table
from deediff.analysis.variance import Estimate, VarianceSplit, exit_variance, uncertainty_variance
from deediff.bench.sampler import bench_sampler
from deediff.bench.trace import bench_trace
from deediff.bench.train import bench_train
from deediff.checkpoints import load_checkpoint
from deediff.devices import DEVICES, choose_device
from deediff.diffusion.solvers import SOLVERS, SPACINGS
from deediff.errors import UserError
from deediff.importing import LAYOUTS, import_checkpoint, import_exit_layers
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
            args.device, on_step, classes=args.classes, guidance=args.guidance, recalibrated=args.recalibrated,
        )  # fmt: skip
    trace = read_trace(folder)
    keys = ("policy", "num_samples", "layer_ratio", "mean_gflops", "full_gflops", "wall_seconds", "complete")
    return {"trace": str(folder), **{key: trace.meta.get(key) for key in keys}}


def import_command(args: argparse.Namespace) -> dict[str, Any]:
    """Import a checkpoint or exit layers as a run."""
    if args.layout in LAYOUTS:
        run = import_checkpoint(
            args.path, args.out, args.layout, args.num_heads, args.normalize_timesteps, args.images_seen
        )
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


def variance_command(args: argparse.Namespace) -> dict[str, Any]:
    """What the timestep explains, what the sample, and how near a static schedule comes."""
    rows, static, layers = [], [], []
    for trace in map(read_trace, args.traces):
        for problem in trace.problems:
            print(f"note: {problem}", file=sys.stderr)
        folder = trace.path.parent
        name = {"trace": f"{folder.parent.name}/{trace.path.name}" if folder.name == "traces" else trace.path.name}
        split = exit_variance(trace, args.draws, args.seed)
        rows.append({**name, "samples": split.samples, "steps": split.steps, **_shares(split)})
        if args.layers:
            splits = uncertainty_variance(trace, args.draws, args.seed)
            layers += [{**name, "layer": i, **_shares(split)} for i, split in enumerate(splits)]
        try:
            adaptive, same, nearest = fit_static(trace, imitate=True).held_out
        except UserError as error:
            print(f"note: no static schedule, because {error}", file=sys.stderr)
            continue
        row = {"layer_ratio": adaptive.layer_ratio, "gflops": adaptive.gflops}
        for key, held in (("static", same), ("nearest", nearest)):
            row[f"{key}_ratio"], row[f"{key}_gflops"] = held.layer_ratio, held.gflops
            row[f"{key}_agrees"], row[f"{key}_distance"] = held.agreement, held.layer_distance
        static.append({**name, **row})
    return {"exit_layer": rows, "uncertainty": layers, "static_schedule": static, "note": VARIANCE_NOTE}


VARIANCE_NOTE = (
    "timestep + sample + rest = 1 (shares of the total variance); with one value per sample and timestep, rest is "
    "interaction and noise, which cannot be told apart. stays_all, stays_next: of what is left within a timestep, "
    "what a sample keeps over all steps, and to the next step. In brackets: 95%, resampling samples. Static: one exit "
    "layer per timestep at the adaptive policy's GFLOPs (static) or nearest to its exits (nearest), fitted on the even "
    "samples, tested on the odd ones; agrees: share of equal decisions; distance: mean difference in layers."
)


def _shares(split: VarianceSplit) -> dict[str, Any]:
    estimates = ("total", "timestep", "sample", "rest", "stays_all", "stays_next")
    return {name: _number(getattr(split, name)) for name in estimates}


def _number(value: Any) -> Any:
    """A number, or an estimate as a dict; None for NaN, which JSON has not."""
    if isinstance(value, Estimate):
        return None if math.isnan(value.value) else {key: _number(x) for key, x in asdict(value).items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def static_command(args: argparse.Namespace) -> dict[str, Any]:
    """Fit a static schedule to half of a trace, test it on the other half, and write it."""
    trace = read_trace(args.trace)
    for problem in trace.problems:
        print(f"note: {problem}", file=sys.stderr)
    fit = fit_static(trace, args.budget)
    save_schedule(args.out, trace, fit.layers)
    rows = [{key: _number(getattr(held, key)) for key in vars(held)} for held in fit.held_out]
    return {
        "schedule": str(args.out),
        "sample_with": f"--policy schedule:{args.out}",
        "price": fit.price,
        "fitted_on": fit.fitted_on,
        "tested_on": fit.tested_on,
        "held_out": rows,
    }


def calibrate_command(args: argparse.Namespace) -> dict[str, Any]:
    """u against the real error; written beside the checkpoint."""
    with tqdm(unit="batch", desc="calibrate", disable=None, mininterval=0.5) as bar:

        def on_batch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        file, summary = calibrate_checkpoint(
            args.checkpoint, args.images, args.bins, args.dataset, args.data_root, args.device, args.seed, on_batch
        )
    keys = ("dataset", "split", "images", "seed", "monotone_timesteps", "largest_rise", "layers")
    return {
        "calibration": str(file),
        "timesteps": len(summary["tables"]["timesteps"]),
        **{key: summary[key] for key in keys},
        "note": CALIBRATION_NOTE,
    }


CALIBRATION_NOTE = (
    "u and error = mean tanh|error| are means over the timesteps; ece and rank (Spearman, over images at a fixed "
    "timestep) are taken per timestep and then averaged; ece_recalibrated is u through the isotonic maps; both ece are "
    "those of the images that the maps were not fitted on. mse: of the head, in the first, second and last third of a "
    "denoising; the last row is the full network. monotone_timesteps: where mean u never rises over the layers; "
    "largest_rise: above its lowest so far."
)


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


def bench_train_command(args: argparse.Namespace) -> dict[str, Any]:
    """Frozen beside fine-tuned."""
    return bench_train(_model(args.checkpoint, "mlp"), choose_device(args.device), args.batch_size, args.repeats)


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
    if isinstance(value, dict):  # a number and its interval
        return "{value:.4g} [{low:.4g}, {high:.4g}]".format(**value)
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
    p.add_argument("--recalibrated", action="store_true", help="u corrected by the maps of 'deediff calibrate'")
    p.add_argument("--device", default="auto", choices=DEVICES, help="auto: CUDA (in bf16), else MPS, else the CPU")
    p.add_argument("--out", required=True, help="the trace's folder, e.g. runs/RUN/traces/NAME, or any fsspec URL")

    p = command(
        "import", import_command, "turn a U-ViT, AdaDiff or DuoDiff .pth, or exit layers of others' runs, into a run"
    )
    p.add_argument("path", type=Path, help="a .pth; or for exit layers a folder of .pt files or an .npz")
    p.add_argument("--layout", required=True, choices=[*LAYOUTS, "duodiff-indices"])
    p.add_argument("--out", type=Path, required=True, help="the run folder to write")
    p.add_argument(
        "--num-heads", type=int, default=None, help="of a .pth: attention heads, if no preset has this shape"
    )
    p.add_argument("--normalize-timesteps", action="store_true", help="of a .pth: the network was trained on t/1000")
    p.add_argument(
        "--images-seen", type=int, default=0, help="of a .pth: training images behind the weights, for the record"
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

    p = command("variance", variance_command, "is it the sample or the timestep? Where the exits' variance comes from")
    p.add_argument("traces", nargs="+", help="trace folders or URLs, imported exit layers included")
    p.add_argument("--layers", action="store_true", help="also of u, per layer; for traces recorded in full")
    p.add_argument("--draws", type=positive, default=1000, help="resamplings of the samples, for the intervals")
    p.add_argument("--seed", type=int, default=0, help="of the resampling")

    p = command("static", static_command, "the best static schedule of the same cost, as a file for schedule:FILE")
    p.add_argument("trace", help="a trace folder, or its URL; with --record full --deviations it can tell best")
    p.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    p.add_argument(
        "--budget", type=float, default=None, help="mean GFLOPs per image and step; default: the adaptive policy's"
    )

    p = command("calibrate", calibrate_command, "u against the real error on held-out images; and maps that correct u")
    p.add_argument("checkpoint", type=Path, help="a run folder or a .safetensors file; the calibration goes beside it")
    p.add_argument("--images", type=positive, default=256, help="of the test split, spread evenly over it")
    p.add_argument("--bins", type=positive, default=20, help="timesteps, spread evenly")
    p.add_argument("--dataset", default=None, help="cifar10, mnist or a folder; default: what the run was trained on")
    p.add_argument("--data-root", type=Path, default=None, help="where torchvision's data sets lie; default: a cache")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument("--device", default="auto", choices=DEVICES, help="auto: CUDA (in bf16), else MPS, else the CPU")

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

    p = command("train", bench_train_command, "images per second with a frozen backbone beside fine-tuning", benches)
    p.add_argument("checkpoint", nargs="?", default="uvit_tiny", help=model_help)
    p.add_argument("--batch-size", type=positive, default=64, help="images per step")
    p.add_argument("--repeats", type=positive, default=7, help="rounds; medians are printed")
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
