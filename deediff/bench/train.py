"""`deediff bench train`: images per second with a frozen backbone and with bfloat16, beside full fine-tuning."""

from __future__ import annotations

import statistics
from itertools import product
from typing import Any

import torch

from deediff.bench.clock import make_clock
from deediff.devices import device_name, keep_freed_memory, training_precision
from deediff.models import EarlyExitModel
from deediff.models.objectives import ExitsObjective

SLOWEST = ("fine-tuned", "float32")  # the baseline


def bench_train(model: EarlyExitModel, device: torch.device, batch_size: int = 64, repeats: int = 7) -> dict[str, Any]:
    """Images/s of one AdamW step on the exits alone (frozen) and on the whole model (fine-tuned); medians.

    In float32 and in bfloat16, for which some CPUs have units. The variants take turns.
    """
    keep_freed_memory()
    model, clock = model.to(device).train(), make_clock(device)
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(batch_size, *model.image_shape, generator=generator).to(device) for _ in range(2))
    t = torch.randint(0, 1000, (batch_size,), generator=generator).to(device)
    classes = model.backbone.num_classes
    y = torch.arange(batch_size, device=device) % classes if classes else None
    ways = list(product(("frozen", "fine-tuned"), ("float32", "bfloat16")))
    seconds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for (strategy, precision), times in seconds.items():
            model.requires_grad_(True)
            objective = ExitsObjective(model, frozen=strategy == "frozen")
            optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-5)
            start = clock()
            with training_precision(device, precision):
                total = objective(x, t, noise, y)["total"]
            total.backward()
            optimizer.step()
            if repeat:  # the first round is the warm-up
                times.append(clock() - start)
            model.zero_grad(set_to_none=True)
    rate = {way: batch_size / statistics.median(times) for way, times in seconds.items()}
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "rounds": repeats,
        "rows": [
            {"strategy": way[0], "precision": way[1], "images_per_s": value, "speed_up": value / rate[SLOWEST]}
            for way, value in rate.items()
        ],
    }
