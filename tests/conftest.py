from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

import deediff
from deediff.checkpoints import save_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.json_files import write_json
from deediff.models import BackboneConfig, DiTConfig, EarlyExitModel, UNetConfig, UViTConfig, make_backbone
from deediff.photos import check
from deediff.quality import references
from deediff.recording.job import sample_to_trace
from deediff.settings import SamplingSettings
from deediff.storage import AnyPath

REPO = Path(__file__).resolve().parents[1]
TINY = UViTConfig(img_size=16, patch_size=4, in_chans=3, embed_dim=32, depth=12, num_heads=2)
TINY_UNET = UNetConfig(img_size=16, in_chans=3, channels=(8, 16, 16), attention=(8,), norm_groups=4)
TINY_DIT = DiTConfig(img_size=16, patch_size=4, in_chans=3, embed_dim=32, depth=6, num_heads=2, num_classes=0)

TAU = 0.4  # at which the samples of `record` exit at many layers

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
torch.set_num_threads(1)  # these networks are too small to share between cores


def make_model(seed: int = 0, config: BackboneConfig = TINY) -> EarlyExitModel:
    """Random weights large enough that the outputs of all blocks, heads and UEMs differ."""
    torch.manual_seed(seed)
    model = EarlyExitModel(make_backbone(config)).add_exits({"name": "mlp", "scope": "layer"})
    scale = 0.04 if isinstance(config, UViTConfig) else 0.1  # blocks that start as the identity need more
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * scale)
        # Centre every layer's u on the same value, so that samples and not layers decide the exits.
        x, t = torch.randn(32, config.in_chans, config.img_size, config.img_size), torch.arange(0, 960, 30)
        y = torch.arange(32) % config.num_classes if config.num_classes else None
        for i, state in zip(range(model.num_blocks), model.backbone.states(x, t, y), strict=False):
            weight = model.uem.weight[i, : state.shape[-1]].normal_(std=1.0 / float(state.std()))
            model.uem.bias[i] = -(state @ weight).mean()
    return model.eval().requires_grad_(False)


def make_run(folder: Path, model: EarlyExitModel | None = None) -> Path:
    model = model or make_model()
    save_checkpoint(folder / "checkpoints" / "7.safetensors", model, Schedule(), 7, 448)
    write_json(folder / "run.json", {"format_version": 1, "status": "done", "preset": "tiny", "images_seen": 448})
    return folder


def sample_trace(
    run: Path,
    folder: str | AnyPath,
    num_samples: int = 64,
    policy: str = "never",
    solver: str = "ddim",
    steps: int = 50,
    **options: Any,
) -> AnyPath:
    """`sample_to_trace` with the fields of SamplingSettings and its own options side by side."""
    names = ("device", "maps", "on_step", "cancelled")
    own = {name: options.pop(name) for name in names if name in options}
    settings = SamplingSettings(policy=policy, solver=solver, steps=steps, num_samples=num_samples, **options)
    return sample_to_trace(run, folder, settings, **own)


def record(run: Path, name: str, **kwargs: object) -> deediff.Trace:
    options: dict[str, object] = {"num_samples": 10, "steps": 5, "batch_size": 4, "policy": f"threshold:{TAU}"}
    if {"plan", "timesteps"} & kwargs.keys():
        del options["steps"]
    folder = name if "://" in name else run / "traces" / name
    return deediff.read_trace(sample_trace(run, folder, **{**options, **kwargs}))


def comparable(trace: deediff.Trace) -> dict[str, bytes]:
    """The content of every file of a trace but trace.json, which holds times."""
    return {p.name: p.read_bytes() for p in sorted(trace.path.iterdir()) if p.name != "trace.json"}


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics of the tests' images, and runs used, stay out of the user's folders, in servers of tests as well."""
    folder = tmp_path_factory.mktemp("references")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))  # the explorer's last used run
        patch.setenv("DEEDIFF_CACHE", str(folder))
        patch.setattr(references, "DEFAULT_CACHE", folder)
        patch.setattr(check, "DEFAULT_CACHE", folder)
        yield


def set_dates(root: Path, when: float = 1.7e9) -> None:
    """Make every run and trace of a folder equally old, so that lists have the order of their names."""
    for file in [*root.glob("*/run.json"), *root.glob("*/traces/*/trace.json")]:
        os.utime(file, (when, when))


@pytest.fixture
def model() -> EarlyExitModel:
    return make_model()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("traces") / "run")


@pytest.fixture(scope="module")
def full(run_folder: Path) -> deediff.Trace:
    return record(run_folder, "full", policy="never", record="full")


@pytest.fixture(scope="module")
def exits(run_folder: Path) -> deediff.Trace:
    return record(run_folder, "exits")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):  # as many as an evaluation needs at least
        pixels = np.full((20, 18, 3), rng.integers(0, 255, 3), np.uint8)
        pixels[4:12, 4:12] = rng.integers(0, 255, 3)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    """Four images in each of three classes; the class is the brightness."""
    for number, name in enumerate("abc"):
        (tmp_path / "classes" / name / "more").mkdir(parents=True)
        for i in range(4):
            folder = tmp_path / "classes" / name / ("more" if i else "")
            Image.new("RGB", (16, 16), (number * 100,) * 3).save(folder / f"{i}.png")
    return tmp_path / "classes"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network: downloads fail, and torch.hub's folder is this one, which is empty."""

    def no_network(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Development data beside the repository. CI must have it; elsewhere the tests that need it are skipped."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        message = "the development data is not beside this repository"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return folder
