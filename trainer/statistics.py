"""Write the statistics of real images that ship with the metrics: `python -m trainer.run statistics`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tqdm import tqdm

from deediff.cli.command import defaults_to
from deediff.devices import choose_device
from deediff.quality.evaluate import BUILT_IN
from deediff.quality.extractors import PIXELS, load_extractor
from deediff.quality.image_sets import real_images
from deediff.quality.progress import Progress
from deediff.quality.references import ship_reference
from deediff.settings import Device
from trainer.features import NAMES


@dataclass(frozen=True)
class StatisticsConfig:
    """Features of MNIST and CIFAR-10 for fd-mnist, fd-cifar and fd-pixels, so that evaluating needs no images.

    Of both splits: the test images are the floor. Run it after `features`, whose weights the statistics belong to.
    """

    data_root: Annotated[Path | None, defaults_to("a cache folder, with download")] = None
    """Folder with the data sets in torchvision's layout."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""


def write_statistics(config: StatisticsConfig) -> list[Path]:
    """Returns the files."""
    device, files, shapes = choose_device(config.device), [], {name: shape for shape, name in BUILT_IN.items()}
    with tqdm(unit="image", disable=None, mininterval=0.5) as bar:

        def on_progress(task: str, done: int, total: int) -> None:
            bar.set_description(task)
            bar.total, bar.n = total, done
            bar.refresh()

        progress = Progress(on_progress)
        for dataset, name in NAMES.items():
            for split, extractors in (("train", (name, PIXELS)), ("test", (name,))):
                images = real_images(f"{dataset}-{split}", *shapes[name], config.data_root)
                for extractor in (load_extractor(each, device) for each in extractors):
                    single = extractor.name != PIXELS  # one distance only: between Gaussians
                    files.append(ship_reference(images, shapes[name], extractor, progress, single))
    return files
