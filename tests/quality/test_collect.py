"""Features of images in a temporary file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from deediff.errors import UserError
from deediff.quality.collect import features_of
from deediff.quality.extractors import Extractor
from deediff.quality.image_sets import real_images
from deediff.quality.progress import Progress

MEAN = Extractor("toy", "toy" * 8, lambda images: images.float().mean(dim=(2, 3)), torch.device("cpu"))


def test_features_are_those_of_the_images_in_order(image_folder: Path) -> None:
    images = real_images(str(image_folder), 3, 16)
    with features_of(images, MEAN, Progress()) as (numbers, features):
        expected = np.concatenate([MEAN(pixels).numpy() for _, pixels in images.batches()])
        np.testing.assert_array_equal(features, expected)
        assert sorted(numbers.tolist()) == list(range(len(images)))


def test_too_little_room_is_a_sentence(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    sentence = r"has no room for 0 MB of features \(No space left on device\): free some, or set TMPDIR"
    with pytest.raises(UserError, match=sentence), features_of(real_images(str(image_folder), 3, 16), MEAN, Progress()):
        pass
