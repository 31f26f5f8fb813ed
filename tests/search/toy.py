"""A search that takes seconds: the tests' tiny model, few images, and a metric of mean colours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from deediff.quality import metrics
from deediff.quality.extractors import Extractor, load_extractor
from deediff.quality.metrics import METRICS
from deediff.search import SearchSettings, search
from deediff.search import judge as judging

COUNTS = (4, 8, 12)
IMAGES = 40


def _features(images: Tensor) -> Tensor:
    """The colours of the four quarters."""
    return F.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def _extractor(name: str, device: torch.device, weights: Path | None = None) -> Extractor:
    return Extractor(name, "toy" * 8, _features, device) if name == "toy" else load_extractor(name, device, weights)


@contextmanager
def toy_metric() -> Iterator[None]:
    """`fd-toy` and `kid-toy`."""
    toys = {"fd-toy": metrics._frechet("toy", "fd-toy"), "kid-toy": metrics._kid("toy", "kid-toy")}
    with mock.patch.dict(METRICS, toys), mock.patch.object(judging, "load_extractor", _extractor):
        yield


def toy_search(run: Path, images: Path, **fields: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"minutes": 0.05, "counts": COUNTS, "validation_images": IMAGES, "device": "cpu"}
    calls = {name: fields.pop(name) for name in ("only", "on_state", "cancelled") if name in fields}
    with toy_metric():
        settings = SearchSettings(metric="fd-toy", reference=str(images), **{**options, **fields})
        return search(run, settings, **calls)


if __name__ == "__main__":  # killed by a test
    folders, report = map(Path, sys.argv[1:]), lambda state: print(state.trials, flush=True)
    toy_search(*folders, minutes=10, only="search", on_state=report)
