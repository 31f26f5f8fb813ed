"""Real images as a reference: their number, their noise, and the key that their content has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deediff.errors import UserError
from deediff.quality.evaluate import few_images
from deediff.quality.frechet import FeatureMoments
from deediff.quality.image_sets import held_out_of, real_images
from deediff.quality.jackknife import Features
from deediff.quality.metrics import METRICS, reference_errors
from deediff.quality.progress import Progress
from deediff.quality.references import Reference, reference_of
from tests.quality.test_collect import MEAN


def drawn(seed: int, count: int) -> Features:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def reference(features: Features, count: int | None = None) -> Reference:
    gaussian = FeatureMoments.of(features, np.zeros(4)).gaussian(np.zeros(4))
    return Reference("real", "", count or len(features), gaussian, features)


@pytest.mark.parametrize("name", ["fd-mnist", "kid-mnist", "prc-mnist"])
def test_the_error_of_a_reference_is_the_spread_over_references(name: str) -> None:
    """Of 120 images each, against one set of 2 000."""
    metric, x = METRICS[name], drawn(0, 2000) + 0.3
    values: dict[str, list[float]] = {}
    estimated: dict[str, list[float]] = {}
    for seed in range(1, 41):
        real = reference(drawn(seed, 120))
        for key, error in reference_errors(metric, x, real).items():
            estimated.setdefault(key, []).append(error)
            values.setdefault(key, []).append(metric.measure(x, None, real)[key].value)
    for key, errors in estimated.items():
        spread = np.std(values[key], ddof=1)
        assert 0.6 * spread < np.median(errors) < 1.7 * spread, key


def test_more_images_than_features_are_kept_have_less_noise() -> None:
    x, features = drawn(0, 500), drawn(1, 200)
    (few,) = reference_errors(METRICS["fd-mnist"], x, reference(features)).values()
    (many,) = reference_errors(METRICS["fd-mnist"], x, reference(features, 20_000)).values()
    assert many == pytest.approx(few / 10)
    assert reference_errors(METRICS["fd-mnist"], x, reference(features[:0], 20_000)) == {}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos-train"
    folder.mkdir()
    for level in range(45):
        Image.new("L", (16, 16), level).save(folder / f"{level:02}.png")
    return folder


def test_a_path_is_a_path_whatever_it_ends_in(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (photos.parent / "photos-test").mkdir()
    assert held_out_of(str(photos)) is None
    assert held_out_of("cifar10-train") == "cifar10-test"
    assert held_out_of("mnist-test") == "mnist-train"
    shutil.copytree(photos, photos.parent / "cifar10-train")
    monkeypatch.chdir(photos.parent)
    assert len(real_images("./cifar10-train", 1, 16)) == 45
    assert held_out_of("./cifar10-train") is None


def test_the_key_of_a_reference_is_its_content(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(photos)
    shutil.copytree(photos, tmp_path / "copy")
    spellings = [str(photos), "photos-train", "./photos-train/", "photos-train/../photos-train", "link", "copy"]
    keys = {reference_of(real_images(name, 1, 16), MEAN, Progress()).key for name in spellings}
    assert len(keys) == 1
    Image.new("L", (16, 16), 200).save(tmp_path / "copy" / "00.png")
    os.utime(tmp_path / "copy" / "00.png", ns=(1, 1))
    assert reference_of(real_images("copy", 1, 16), MEAN, Progress()).key not in keys
    assert real_images(".", 1, 16).name == tmp_path.name


def test_small_references_are_refused_and_middling_ones_warned_of(photos: Path) -> None:
    reference_of(real_images(str(photos), 1, 16), MEAN, Progress())
    for path in sorted(photos.iterdir())[:6]:
        path.unlink()
    with pytest.raises(UserError, match="reference photos-train holds 39 images, expected at least 40"):
        reference_of(real_images(str(photos), 1, 16), MEAN, Progress())
    assert few_images("reference x", 100) == []
    assert "reference x holds 99 images: with fewer than 100" in few_images("reference x", 99)[0]
