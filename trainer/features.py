"""Train the small classifier behind `fd-cifar` and `fd-mnist`: `python -m trainer.run features`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from deediff.checkpoints import file_sha256
from deediff.cli.command import defaults_to
from deediff.datasets import load_images, load_labels, to_model_range
from deediff.devices import autocast, choose_device, versions
from deediff.errors import UserError
from deediff.importing.pickled import load_pickled
from deediff.json_files import FORMAT_VERSION, read_json, write_json
from deediff.quality.features import FeatureNetwork
from deediff.settings import Device
from deediff.storage import write_atomically
from trainer.batches import seeded_generator
from trainer.files import write_state
from trainer.finite import FiniteGuard

SAFE = {"lr", "weight_decay"}  # may change at a resume
NAMES = {"cifar10": "fd-cifar", "mnist": "fd-mnist"}


@dataclass(frozen=True)
class FeaturesConfig:
    """The classifier behind fd-cifar and fd-mnist: a ResNet-20, whose 64 pooled features the metrics compare."""

    dataset: Literal["cifar10", "mnist"] = "cifar10"
    """Labelled images to train on."""
    steps: int = 4_700
    """Optimiser steps; 391 are one epoch of CIFAR-10."""
    batch_size: int = 128
    """Images per step."""
    lr: float = 0.2
    """Peak learning rate of SGD with Nesterov momentum 0.9: linear warm-up for a fifth of the steps, then to zero."""
    weight_decay: float = 5e-4
    """Weight decay of all parameters."""
    shift: int = 4
    """Maximum random shift of training images, in pixels. CIFAR-10 images are also flipped."""
    seed: int = 0
    """Seed of the weights, data order, shifts and flips."""
    out: Path = Path("deediff/quality/weights")
    """Folder of the weights."""
    data_root: Annotated[Path | None, defaults_to("a cache folder, with download")] = None
    """Folder with the data set in torchvision's layout."""
    device: Device = "auto"
    """auto: CUDA (in bf16) if available, else MPS, else the CPU."""
    save_every: int = 200
    """Steps between resume files."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.save_every) < 1 or self.shift < 0 or not self.lr > 0:
            raise UserError("features needs steps, batch_size and save_every ≥ 1, shift ≥ 0 and lr > 0")


def train_features(config: FeaturesConfig) -> Path:
    """Train, or resume. Returns the weights; the JSON file beside them records accuracy and settings."""
    weights = config.out / f"{NAMES[config.dataset]}.safetensors"
    resume = weights.with_suffix(".resume.pt")
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "data_root", "device", "save_every")}
    if weights.exists() and weights.with_suffix(".json").exists() and not resume.exists():
        if read_json(weights.with_suffix(".json")).get("config") != settings:
            raise UserError(f"{weights} was trained with other settings: repeat them, or choose another --out")
        print(f"{weights} is already trained: choose another folder with --out to train again")
        return weights
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    network = FeatureNetwork(1 if config.dataset == "mnist" else 3).to(device)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
    optimizer = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
    first = 0
    if resume.exists():
        saved = load_pickled(resume)
        before = saved.get("config") or {}
        if different := [name for name, value in settings.items() if before.get(name) != value and name not in SAFE]:
            raise UserError(
                f"{resume} belongs to other settings ({', '.join(different)}): repeat them to resume, or delete it"
            )
        if before != settings:
            print(f"note: {resume} resumes with another learning rate or weight decay", file=sys.stderr)
        first = saved["step"]
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        optimizer.param_groups[0]["weight_decay"] = config.weight_decay
    images = load_images(config.dataset, 32, network.in_chans, config.data_root)
    labels = load_labels(config.dataset, config.data_root)
    guard = FiniteGuard(device)
    bar = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=NAMES[config.dataset], mininterval=1)
    for step in bar:
        index, x = _batch(config, images, step)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(5 * (step + 1) / config.steps, 1.25 * (1 - step / config.steps))
        with autocast(device):
            scores = network(x.to(device, memory_format=torch.channels_last))
            loss = F.cross_entropy(scores, labels[index].to(device))
        optimizer.zero_grad()
        loss.backward()
        guard.watch(loss, nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]))
        optimizer.step()
        at_end = step + 1 == config.steps
        if at_end or (step + 1) % config.save_every == 0:
            guard.check(step + 1, [v for v in network.state_dict().values() if v.is_floating_point()], torch.float16)
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
        if (step + 1) % config.save_every == 0 and not at_end:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
            write_state(resume, {"step": step + 1, "config": settings} | state)
    accuracy = _write_weights(weights, network, config, settings, device)
    resume.unlink(missing_ok=True)
    print(f"{weights}: accuracy {accuracy:.2%} on the test images")
    return weights


def _write_weights(
    path: Path, network: FeatureNetwork, config: FeaturesConfig, settings: dict[str, Any], device: torch.device
) -> float:
    """Write the weights in float16, and their JSON file. Returns the accuracy of these weights on the test images."""
    tensors = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    half = {n: v.half().contiguous() if v.is_floating_point() else v for n, v in tensors.items()}
    network.load_state_dict(half)
    accuracy = _accuracy(network.eval(), config, device)
    write_atomically(path, save(half))
    write_json(
        path.with_suffix(".json"),
        {
            "format_version": FORMAT_VERSION,
            "extractor": NAMES[config.dataset],
            "in_chans": network.in_chans,
            "accuracy": accuracy,
            "images_seen": config.steps * config.batch_size,
            "command": _command(config),
            "config": settings,
            "sha256": file_sha256(path),
            "versions": versions(),
        },
    )
    return accuracy


def _batch(config: FeaturesConfig, images: Any, step: int) -> tuple[Tensor, Tensor]:
    """Indices (B,) and augmented images (B,C,32,32) of one step: a function of (seed, step) alone."""
    count, size = len(images), config.batch_size
    per_epoch = count // size
    epoch, inside = divmod(step, per_epoch)
    order = torch.randperm(count, generator=seeded_generator(config.seed, 0, epoch))
    index = order[inside * size : (inside + 1) * size]
    rng, s = seeded_generator(config.seed, 1, step), config.shift
    x = F.pad(to_model_range(images[index]), [s] * 4, value=-1.0)
    rows, columns = (torch.randint(0, 2 * s + 1, (size, 1), generator=rng) + torch.arange(32) for _ in range(2))
    x = x[torch.arange(size)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if config.dataset == "cifar10":
        flips = torch.rand(size, generator=rng) < 0.5
        x = torch.where(flips[:, None, None, None], x.flip(-1), x)
    return index, x


@torch.no_grad()
def _accuracy(network: FeatureNetwork, config: FeaturesConfig, device: torch.device) -> float:
    """Top-1 accuracy on the test images."""
    images = load_images(config.dataset, 32, network.in_chans, config.data_root, train=False)
    labels = load_labels(config.dataset, config.data_root, train=False)
    right = 0
    for index in torch.arange(len(images)).split(500):
        scores = network(to_model_range(images[index]).to(device, memory_format=torch.channels_last))
        right += int((scores.argmax(1).cpu() == labels[index]).sum())
    return right / len(images)


def _command(config: FeaturesConfig) -> str:
    """The command line that repeats this training."""
    default = FeaturesConfig()
    flags = [
        f" --{name.replace('_', '-')} {getattr(config, name)}"
        for name in ("dataset", "steps", "batch_size", "lr", "weight_decay", "shift", "seed")
        if getattr(config, name) != getattr(default, name)
    ]
    return "python -m trainer.run features" + "".join(flags)
