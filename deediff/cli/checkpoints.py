"""What asks checkpoints: `deediff calibrate` and `flops`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from deediff.bench.components import time_components
from deediff.calibration.checkpoint import calibrate_checkpoint
from deediff.cli.command import DEVICE, Result, argument, command, open_model, positive
from deediff.cost.table import component_table, exit_cost_table
from deediff.devices import choose_device, device_name
from deediff.models import PRESETS
from deediff.models.uncertainty import UEMS


@command(
    "calibrate",
    "u against the real error on held-out images; and maps that correct u",
    argument("checkpoint", type=Path, help="a run folder or a .safetensors file; the calibration goes beside it"),
    argument("--images", type=positive, default=256, help="of the test split, spread evenly over it"),
    argument("--bins", type=positive, default=20, help="timesteps, spread evenly"),
    argument("--dataset", default=None, help="cifar10, mnist or a folder; default: what the run was trained on"),
    argument("--data-root", type=Path, default=None, help="where torchvision's data sets lie; default: a cache"),
    argument("--seed", type=int, default=0, help="of the noise"),
    DEVICE,
)
def calibrate(args: argparse.Namespace) -> Result:
    """u against the real error; written beside the checkpoint."""
    with tqdm(unit="batch", desc="calibrate", disable=None, mininterval=0.5) as bar:

        def on_batch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        file, summary = calibrate_checkpoint(
            args.checkpoint, args.images, args.bins, args.dataset, args.data_root, args.device, args.seed, on_batch
        )
    keys = ("dataset", "split", "label_source", "images", "seed", "monotone_timesteps", "largest_rise", "layers")
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


@command(
    "flops",
    "parameters, GMACs, GFLOPs and milliseconds of every component, and of every exit",
    argument("checkpoint", help="a run folder, a .safetensors file, or a preset: " + ", ".join(PRESETS)),
    argument("--uem", default="mlp", choices=list(UEMS), help="the UEM to put on a preset"),
    argument("--batch-size", type=positive, default=4, help="images at a time, for the milliseconds"),
    argument("--repeats", type=positive, default=3, help="rounds; the medians of the milliseconds are printed"),
    DEVICE,
)
def flops(args: argparse.Namespace) -> Result:
    """What is counted, beside what is measured here."""
    model, device = open_model(args.checkpoint, args.uem).eval(), choose_device(args.device)
    seconds = time_components(model, device, args.batch_size, args.repeats)
    components = component_table(model, seconds)
    names = ("gmacs_without_attention", "gmacs", "gflops_without_attention", "gflops")
    return {
        "backbone_parameters": components[-1]["parameters"],
        "parameters": sum(p.numel() for p in model.parameters()),
        **{f"full_{name}": components[-1][name] for name in names},
        "measured_on": f"{device_name(device)}, {torch.get_num_threads()} threads, batches of {args.batch_size}",
        "components": components,
        "exits": exit_cost_table(model, seconds),
        "note": FLOPS_NOTE,
    }


FLOPS_NOTE = (
    "All for one image and one step. GMACs are multiply-accumulates of linear maps, convolutions and matrix products; "
    "GFLOPs are 2 × GMACs. attention: the products q kᵀ and with v, which published tables often leave out. Norms (5 "
    "operations per element, as fvcore estimates) and other elementwise work (one per element, 5 in a softmax) are in "
    "neither. Exit i runs i blocks, one head and the UEMs 0 … i; exit N is no early exit, with all N UEMs "
    "evaluated. Parameters are those that a component uses; shared ones count for each of them."
)
