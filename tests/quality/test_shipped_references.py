"""The shipped statistics are those of the data sets, and evaluate and search without their images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff import datasets
from deediff.checkpoints import load_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.json_files import read_json
from deediff.quality.evaluate import Evaluator
from deediff.quality.extractors import SHIPPED as WEIGHTS
from deediff.quality.extractors import load_extractor
from deediff.quality.image_sets import REFERENCES, real_images
from deediff.quality.progress import Progress
from deediff.quality.references import KEPT, SHIPPED, content_key, find_reference, shipped_reference
from deediff.quality.results import read_quality
from deediff.search.judge import make_judge
from deediff.search.settings import SearchSettings
from tests.conftest import REPO

COUNTS = {"mnist-train": 60_000, "mnist-test": 10_000, "cifar10-train": 50_000, "cifar10-test": 10_000}
SHAPES = {"mnist": (1, 32), "cifar10": (3, 32)}
CHECKED = 64  # images whose features are computed again


def small(name: str) -> str:
    """The classifier whose features judge this data set."""
    return {"mnist": "fd-mnist", "cifar10": "fd-cifar"}[name.rpartition("-")[0]]


def copy_trace(root: Path, name: str) -> Path:
    """A shipped trace, in a copy of its run."""
    run, folder = REPO / "runs" / "mnist_tiny", root / "mnist_tiny" / "traces" / name
    shutil.copytree(run / "traces" / name, folder)
    shutil.copy(run / "run.json", folder.parents[1])
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without data sets, on which reading one fails the test."""

    def unreachable(*_: object, **__: object) -> None:
        raise deediff.UserError("no data set on this machine")

    monkeypatch.setattr(datasets, "_named", unreachable)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_shipped_reference_is_that_of_the_data_set(name: str, shared: Path) -> None:
    """By the digest of all its images, and the features of some."""
    shape = SHAPES[name.rpartition("-")[0]]
    extractor = load_extractor(small(name), torch.device("cpu"))
    reference = shipped_reference(name, shape, extractor)
    images = real_images(name, *shape, shared / "data")
    assert reference is not None
    assert reference.count == len(images) == COUNTS[name]
    assert reference.key == content_key(images.digest(), read_json(WEIGHTS / f"{small(name)}.json")["sha256"])
    assert reference.features.shape == (KEPT, 64)
    kept = np.sort(np.random.default_rng(0).permutation(COUNTS[name])[:KEPT])[:CHECKED]
    theirs = extractor(images.images[torch.from_numpy(kept)]).numpy()
    np.testing.assert_allclose(reference.features[:CHECKED], theirs, atol=3e-3)
    spread = np.sqrt(np.diag(reference.gaussian.covariance) / KEPT)
    assert (np.abs(reference.features.mean(axis=0) - reference.gaussian.mean) < 6 * spread + 1e-3).all()
    np.testing.assert_allclose(np.cov(reference.features.T), reference.gaussian.covariance, atol=0.05)


@pytest.mark.parametrize("name", [name for name in REFERENCES if name.endswith("train")])
def test_the_shipped_gaussian_of_pixels_is_that_of_all_training_images(name: str, shared: Path) -> None:
    channels, size = SHAPES[name.rpartition("-")[0]]
    reference = shipped_reference(name, (channels, size), load_extractor("pixels", torch.device("cpu")))
    pixels = real_images(name, channels, size, shared / "data").images[torch.arange(COUNTS[name])].numpy()
    means = pixels.reshape(len(pixels), channels, 8, 4, 8, 4).mean(axis=(3, 5)).reshape(len(pixels), -1) / 255
    assert reference is not None
    np.testing.assert_allclose(reference.gaussian.mean, means.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(reference.gaussian.covariance, np.cov(means.T), atol=1e-6)


def test_references_of_other_weights_or_sizes_are_not_used() -> None:
    extractor = load_extractor("fd-mnist", torch.device("cpu"))
    assert shipped_reference("mnist-train", (1, 32), extractor) is not None
    assert shipped_reference("mnist-train", (1, 28), extractor) is None
    other = type(extractor)(extractor.name, "other weights", extractor.extract, extractor.device)
    assert shipped_reference("mnist-train", (1, 32), other) is None
    assert shipped_reference("../statistics/mnist-train", (1, 32), extractor) is None


def test_the_files_are_small() -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 5.2e6


def test_a_shipped_evaluation_is_found_again_without_the_images(tmp_path: Path, offline: None) -> None:
    folder = copy_trace(tmp_path, "ddim50-never")
    stored = {q.metric: q for q in read_quality(folder) if q.extractor.startswith("fd-")}
    (folder / "quality.json").unlink()
    evaluator = Evaluator([name for name in stored if name.startswith(("fd", "kid"))])
    found = {q.metric: q for q in evaluator.evaluate(folder)}
    assert len(found) == 2
    for metric, mine in found.items():
        theirs = stored[metric]
        assert mine.protocol == theirs.protocol
        scale = max(abs(theirs.value), theirs.high - theirs.low)
        assert mine.value == pytest.approx(theirs.value, abs=1e-3 * scale)
        assert mine.floor == pytest.approx(theirs.floor, rel=0.02, abs=1e-4)
    assert not evaluator.problems


def test_a_metric_whose_floor_needs_images_is_measured_without_it_and_says_so(tmp_path: Path, offline: None) -> None:
    folder = copy_trace(tmp_path, "dpm12-never")
    stored = next(q for q in read_quality(folder) if q.metric == "fd-pixels")
    evaluator = Evaluator(["fd-pixels"])
    (mine,) = evaluator.evaluate(folder)
    assert (mine.reference_key, mine.reference_images) == (stored.reference_key, 60_000)
    assert mine.value > 0
    assert (mine.floor, mine.floor_source) == (None, "no held-out real images")
    assert evaluator.problems == ["no floor of pixels: no data set on this machine"]


def test_a_search_judges_without_the_images(offline: None) -> None:
    run = REPO / "runs" / "mnist_tiny"
    model, info = load_checkpoint(run)
    judge = make_judge(model, Schedule(**info["schedule"]), run, SearchSettings(), Progress())
    assert [distance.reference.count for distance in judge.distances] == [60_000, 60_000]
    values = judge.measured(np.random.default_rng(0).random((64, 128), np.float32))
    assert len(values) == 2
    assert np.isfinite(values).all()


def test_a_named_folder_of_data_is_read_whatever_is_shipped(offline: None, tmp_path: Path) -> None:
    extractor = load_extractor("fd-mnist", torch.device("cpu"))
    with pytest.raises(deediff.UserError, match="no data set"):
        find_reference("mnist-train", (1, 32), extractor, Progress(), tmp_path)
