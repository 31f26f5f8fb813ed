"""Extractors, their weights, and cached references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deediff.errors import UserError
from deediff.quality import extractors
from deediff.quality.collect import features_of
from deediff.quality.extractors import Extractor, MissingWeights, find_weights, load_extractor
from deediff.quality.frechet import frechet
from deediff.quality.image_sets import RealImages, real_images
from deediff.quality.jackknife import group_of
from deediff.quality.progress import EvaluationCancelled, Progress
from deediff.quality.references import reference_of
from tests.quality.test_distances import gaussian_of


class Noise(RealImages):
    """Random grey images."""

    def __init__(self, count: int, seed: int = 0):
        rng = torch.Generator().manual_seed(seed)
        super().__init__(f"noise{seed}", torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=rng))


def means(key: str = "means") -> Extractor:
    """Twelve features that need no network."""
    return Extractor(
        "means",
        key,
        lambda x: x.float().unfold(2, 8, 8).unfold(3, 8, 8).mean((1, 4, 5)).flatten(1)[:, :12],
        torch.device("cpu"),
    )


def test_features_come_in_order_and_their_file_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = Noise(600)
    told: list[int] = []
    with features_of(images, means(), Progress(lambda what, done, total: told.append(done))) as (numbers, features):
        np.testing.assert_array_equal(numbers, np.arange(600))
        np.testing.assert_array_equal(features, means()(images.images[torch.arange(600)]).numpy())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert told == [256, 512, 600]


class Stream:
    """Images computed batch by batch."""

    name = "stream"

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batches(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for index in torch.arange(self.count).split(256):
            pixels = index[:, None, None, None].expand(-1, 1, 32, 32)
            yield index.numpy(), (pixels * 7919 % 251).to(torch.uint8)


def test_memory_does_not_grow_with_the_number_of_images():
    """Anonymous memory: pages of the features' file do not count."""
    repeated = Extractor("wide", "wide", lambda x: x.float().flatten(1)[:, :512], torch.device("cpu"))
    reference = gaussian_of(np.random.default_rng(0).normal(size=(600, 512)).astype(np.float32))

    def anonymous() -> float:
        (line,) = [li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith("RssAnon")]
        return int(line.split()[1]) / 1024  # MiB

    def peak(count: int) -> float:
        highest: list[float] = []
        watch = Progress(lambda what, done, total: highest.append(anonymous()))
        with features_of(Stream(count), repeated, watch) as (numbers, features):
            frechet(features, group_of(numbers), reference)
            highest.append(anonymous())
        return max(highest)

    peak(2000)  # whatever is allocated once
    small, large = peak(2000), peak(40_000)  # 78 MiB of features
    assert large - small < 30


def test_cancelling_stops_between_batches():
    with pytest.raises(EvaluationCancelled), features_of(Noise(600), means(), Progress(cancelled=lambda: True)):
        pytest.fail("not cancelled")


def test_a_reference_is_computed_again_only_for_other_images_or_weights(tmp_path: Path):
    calls: list[str] = []

    def counted(key: str) -> Extractor:
        inner = means(key)
        return replace(inner, extract=lambda x: (calls.append(key), inner.extract(x))[1])

    first = reference_of(Noise(300), counted("a"), Progress(), tmp_path)
    assert calls
    again, calls[:] = reference_of(Noise(300), counted("a"), Progress(), tmp_path), []
    assert not calls
    np.testing.assert_array_equal(first.gaussian.covariance, again.gaussian.covariance)
    np.testing.assert_array_equal(np.sort(first.features[:, 0]), np.sort(again.features[:, 0]))
    assert first.key == again.key
    for images, key in ((Noise(300), "b"), (Noise(300, seed=1), "a"), (Noise(301), "a")):
        calls.clear()
        assert reference_of(images, counted(key), Progress(), tmp_path).key != first.key
        assert calls
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    calls.clear()
    assert reference_of(Noise(300), counted("a"), Progress(), tmp_path).count == 300
    assert calls


def test_a_folders_key_follows_its_files(tmp_path: Path, image_folder: Path):
    before = real_images(str(image_folder), 3, 16).digest()
    assert real_images(str(image_folder), 3, 16).digest() == before
    assert real_images(str(image_folder), 3, 8).digest() != before
    Image.new("RGB", (20, 20), "red").save(image_folder / "new.png")
    assert real_images(str(image_folder), 3, 16).digest() != before


@pytest.mark.parametrize("name", extractors.SMALL)
def test_the_shipped_classifier_has_its_recorded_accuracy(name: str, shared: Path):
    from deediff.datasets import load_labels

    info = json.loads((extractors.SHIPPED / f"{name}.json").read_text())
    dataset = info["config"]["dataset"]
    images = real_images(f"{dataset}-test", info["in_chans"], 32, shared / "data").images
    labels = load_labels(dataset, shared / "data", train=False)
    extractor = load_extractor(name, torch.device("cpu"))
    index = torch.arange(1500)
    features = extractor(images[index])
    assert features.shape == (1500, 64)
    # Nearest class mean in feature space: a classifier needs features that separate the classes.
    centres = torch.stack([features[labels[index] == c].mean(0) for c in range(10)])
    nearest = torch.cdist(features, centres).argmin(1)
    assert float((nearest == labels[index]).float().mean()) > info["accuracy"] - 0.05
    assert info["accuracy"] >= 0.85
    assert info["command"].startswith("python -m trainer.run features")
    assert (extractors.SHIPPED / f"{name}.safetensors").stat().st_size <= 1_000_000


def test_weights_that_are_not_the_published_ones_are_never_loaded(tmp_path: Path):
    known = extractors.PRETRAINED["inception-v3"]
    (tmp_path / known.file).write_bytes(b"a pickle that would run anything")
    with pytest.raises(UserError, match="SHA-256"):
        find_weights(known, tmp_path)


@pytest.mark.parametrize(("name", "length"), [("clip-vit-l-14-336", 1.0), ("vgg16", 5.0)])
def test_pretrained_networks_get_colour_and_clip_alone_is_normalised(
    name: str, length: float, monkeypatch: pytest.MonkeyPatch
):
    """Everything but the network and its weights is real: which layer, three channels, length 1 for CMMD's kernel."""
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity import utils

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            assert images.shape == (2, 3, 32, 32)
            assert images.dtype == torch.uint8
            return (torch.tensor([[3.0, 4.0]]).expand(2, 2),)

    def create(registered: str, layers: list[str], **options: Any) -> Network:
        cls = utils.FEATURE_EXTRACTORS_REGISTRY[registered]
        assert set(layers) <= set(cls.get_provided_features_list())
        assert options["feature_extractor_weights_path"] == "weights"
        return Network()

    monkeypatch.setattr(utils, "create_feature_extractor", create)
    monkeypatch.setattr(extractors, "find_weights", lambda known, weights: "weights")
    features = load_extractor(name, torch.device("cpu"))(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    assert features.norm(dim=1).tolist() == pytest.approx([length, length])


def test_the_error_for_absent_weights_names_file_and_folder(offline: Path):
    known = extractors.PRETRAINED["clip-vit-l-14-336"]
    with pytest.raises(MissingWeights) as caught:
        find_weights(known)
    for part in (known.file, known.url, str(offline)):
        assert part in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 16, 16)])
def test_pixels_are_mean_grey_values_and_notice_a_brighter_image(shape: tuple[int, int, int]) -> None:
    extractor = load_extractor("pixels", torch.device("cpu"))
    images = torch.randint(0, 200, (300, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = extractor(images)
    assert features.shape == (300, 64 * shape[0])
    corner = shape[1] // 8
    assert float(features[5, 0]) == pytest.approx(float(images[5, 0, :corner, :corner].float().mean()) / 255)
    real = gaussian_of(features.double().numpy())
    same, brighter = (frechet(x.numpy(), None, real).value for x in (features, extractor(images + 40)))
    assert same < 1e-6
    assert brighter == pytest.approx(64 * shape[0] * (40 / 255) ** 2, rel=1e-3)
