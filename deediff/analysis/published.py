"""Published results for configurations of U-ViT-S/2 on CIFAR-10 that this package can train and sample.

Source: Gallo et al., "DeeDiff: Dynamic Uncertainty-Aware Early Exiting" (blog post), Tables 1, 3 and 4: DDPM,
1 000 steps, 1 024 images. Their GFLOPs exclude the attention products. Their FIDs use 1 024 real
images in a wrong range of values, so they are comparable with each other only.
"""

from __future__ import annotations

from dataclasses import dataclass

from deediff.analysis.origin import Origin
from deediff.traces.reader import Trace

NOTE = (
    "published: the DeeDiff blog, Tables 1, 3 and 4; its GFLOPs leave the attention products out, and its FIDs, of "
    "1024 images against 1024 real ones in a wrong range of values, can be compared with each other only"
)


@dataclass(frozen=True)
class Published:
    """One row of a table."""

    table: str
    fid: float
    layer_reduction: float  # per cent
    gflops: float  # mean per image and step, without the attention products

    @property
    def layer_ratio(self) -> float:
        """mean exit layer / N."""
        return 1 - self.layer_reduction / 100


STEPS = 1000  # of one image
FULL = Published("Table 1", 79.34, 0.0, 22.75)
# By UEM, strategy of the backbone, number of losses, and τ
TABLES: dict[tuple[str, str, str, str], Published] = {
    ("mlp per layer", "frozen", "3", "0.075"): Published("Table 1", 86.57, 31.1, 15.58),
    ("mlp per layer", "finetuned", "3", "0.075"): Published("Table 1", 116.49, 42.3, 13.05),
    ("mlp per layer", "scratch", "3", "0.075"): Published("Table 1", 125.15, 39.32, 13.74),
    ("mlp per timestep", "frozen", "3", "0.075"): Published("Table 1", 79.13, 0.1, 22.74),
    ("mlp per timestep", "finetuned", "3", "0.075"): Published("Table 1", 173.05, 35.0, 14.67),
    ("mlp per layer and timestep", "frozen", "3", "0.075"): Published("Table 1", 79.13, 0.0, 22.75),
    ("mlp per layer and timestep", "finetuned", "3", "0.075"): Published("Table 1", 133.35, 35.3, 14.68),
    ("attention per layer", "frozen", "3", "0.075"): Published("Table 1", 85.48, 32.0, 17.84),
    ("attention per layer", "finetuned", "3", "0.075"): Published("Table 1", 109.83, 40.0, 15.77),
    ("attention per layer", "scratch", "3", "0.075"): Published("Table 1", 114.62, 40.0, 15.80),
    ("mlp per layer", "finetuned", "4", "0.075"): Published("Table 3", 107.34, 42.3, 13.07),
    ("attention per layer", "finetuned", "4", "0.075"): Published("Table 3", 108.30, 42.5, 15.13),
    ("mlp per layer", "frozen", "3", "0.05"): Published("Table 4", 79.71, 16.54, 18.90),
    ("attention per layer", "frozen", "3", "0.05"): Published("Table 4", 80.08, 16.29, 21.91),
}

SECONDS_NOTE = "published: DuoDiff (arXiv 2410.09633), CIFAR-10, seconds on its authors' GPU"
# By the same authors: (FID, seconds per image), from no early exit to the most early exits
SECONDS: dict[str, tuple[tuple[float, float], ...]] = {
    "full network": ((17.89, 1.88),),
    "AdaDiff": ((17.89, 1.93), (17.55, 1.63), (24.60, 1.32)),
    "DuoDiff": ((17.89, 1.88), (17.81, 1.45), (17.95, 1.30), (18.67, 1.16)),
}


def published_for(trace: Trace, origin: Origin) -> Published | None:
    """The row of exactly this configuration, or None."""
    meta = trace.meta
    plain = meta.guidance is None and meta.recalibration_sha256 is None
    cifar = origin.dataset == "cifar10" or (origin.dataset is None and origin.imported)
    if origin.model != "uvit_small" or not (plain and cifar and meta.solver == "ddpm" and len(meta.timesteps) == STEPS):
        return None
    if meta.is_full:
        return FULL if origin.strategy in (None, "frozen") else None  # a frozen backbone is the plain network
    threshold = "0.075" if meta.imported else str(meta.policy).removeprefix("threshold:")
    return TABLES.get((str(origin.uem), str(origin.strategy), str(origin.losses), threshold))
