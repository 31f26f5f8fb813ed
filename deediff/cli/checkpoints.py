"""What asks checkpoints: `deediff calibrate` and `flops`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from tqdm import tqdm

from deediff.analysis.calibration import calibrate_checkpoint
from deediff.analysis.cost import model_cost
from deediff.cli.command import DEVICE, Result, argument, command, open_model, positive
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


@command(
    "flops",
    "GFLOPs of every component and of leaving at every exit",
    argument("checkpoint", help="a run folder, a .safetensors file, or a preset: " + ", ".join(PRESETS)),
    argument("--uem", default="mlp", choices=list(UEMS), help="the UEM to put on a preset"),
)
def flops(args: argparse.Namespace) -> Result:
    """The component table."""
    model = open_model(args.checkpoint, args.uem)
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
