"""Neighbours are the images of least distance in the metric's features, counted here one by one."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import deediff
from deediff.analysis.neighbours import (
    HELD_OUT,
    EmbeddedImages,
    embed_real,
    embed_trace,
    extractor_for,
    held_out_distances,
    principal_axes,
    shipped_real,
    training_images_here,
    training_set,
)
from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.quality import references
from deediff.quality.extractors import load_extractor
from deediff.quality.references import kept_rows, shipped_reference
from tests.conftest import REPO

TRACE = REPO / "runs" / "mnist_tiny" / "traces" / "ddim50-threshold-0.11"
GREY = (1, 32)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> deediff.Trace:
    """Forty images of a shipped trace."""
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("few")
    (folder / "trace.json").write_bytes((TRACE / "trace.json").read_bytes())
    pq.write_table(pq.read_table(TRACE / "samples-00000.parquet")[:40], folder / "samples-00000.parquet")
    return deediff.read_trace(folder)


def test_the_neighbours_of_a_sample_are_those_of_a_count(trace: deediff.Trace) -> None:
    network = load_extractor("fd-mnist", torch.device("cpu"))
    found = {}
    for number, png in trace.samples(range(40)).set_index("sample")["png"].items():
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(png))))
        found[number] = network(pixels[None, None])[0].tolist()  # one image at a time
    counted = sorted((math.dist(found[3], other), number) for number, other in found.items() if number != 3)
    images = embed_trace(trace, extractor_for(GREY))
    numbers, distances = images.nearest(images.features[3], 8, without=[3])
    assert numbers.tolist() == [number for _, number in counted[:8]]
    np.testing.assert_allclose(distances, [distance for distance, _ in counted[:8]], rtol=1e-4)


def test_features_are_computed_once_and_again_for_other_images(trace: deediff.Trace, tmp_path: Path) -> None:
    extractor = extractor_for(GREY)
    first = embed_trace(trace, extractor)

    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("computed again")

    frozen = type(extractor)(extractor.name, extractor.key, refuse, extractor.device)
    np.testing.assert_array_equal(embed_trace(trace, frozen).features, first.features)
    for file in references.DEFAULT_CACHE.glob("*-all-*.npz"):
        file.write_bytes(file.read_bytes()[:100])  # as a full disk leaves it
    with pytest.raises(AssertionError):
        embed_trace(trace, frozen)
    np.testing.assert_array_equal(embed_trace(trace, extractor).features, first.features)


def test_a_tie_is_broken_by_the_number_and_the_image_itself_is_left_out() -> None:
    images = EmbeddedImages("four", np.array([5, 2, 9, 7]), np.array([[1, 0], [0, 1], [0, 0], [3, 4]], np.float32), 4)
    numbers, distances = images.nearest(np.zeros(2, np.float32), 3, without=[9])
    assert numbers.tolist() == [2, 5, 7]
    assert distances.tolist() == [1, 1, 5]


def test_training_images_of_a_folder_are_found_by_their_place(trace: deediff.Trace, tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    for number in (7, 30, 31):
        (folder / f"{number:02}.png").write_bytes(trace.samples([number])["png"].iloc[0])
    write_json(tmp_path / "run" / "run.json", {"format_version": 1, "dataset": str(folder)})
    name = training_set(tmp_path / "run")
    assert name == str(folder)
    images = training_images_here(name, GREY)
    extractor = extractor_for(GREY)
    generated, real = embed_trace(trace, extractor), embed_real(images, extractor)
    numbers, distances = real.nearest(generated.features[31], 1)
    assert numbers.tolist() == [2]
    assert distances[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("content", [{}, {"dataset": "toy"}, {"dataset": "/no/such/folder"}])
def test_a_run_of_unknown_images_has_no_training_set(content: dict[str, str], tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"format_version": 1, **content})
    assert training_set(tmp_path) is None


def test_missing_training_images_are_a_sentence_and_are_not_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deediff.datasets.DEFAULT_ROOT", tmp_path / "none")
    with pytest.raises(UserError, match="The training images are not on this machine: mnist was not found in"):
        training_images_here("mnist-train", GREY)
    assert not (tmp_path / "none").exists()


def test_shipped_features_are_numbered_as_in_the_data_set(shared: Path) -> None:
    extractor = extractor_for(GREY)
    real = shipped_real("mnist-train", GREY, extractor)
    assert real is not None
    images = torch.from_numpy(
        np.frombuffer((shared / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
        .reshape(-1, 1, 28, 28)[real.numbers[:4]]
        .copy()
    )
    padded = torch.nn.functional.pad(images, [2] * 4)
    np.testing.assert_allclose(extractor(padded), real.features[:4], rtol=2e-3, atol=2e-3)  # shipped as float16
    assert (len(real.numbers), real.total) == (10_000, 60_000)


def test_held_out_images_are_compared_with_the_nearest_one_by_one() -> None:
    extractor = extractor_for(GREY)
    real, test = (shipped_reference(f"mnist-{split}", GREY, extractor) for split in ("train", "test"))
    assert real is not None
    assert test is not None
    few = EmbeddedImages("mnist-train", kept_rows(60_000)[:50], real.features[:50], 60_000)
    found = held_out_distances(few, GREY, extractor)
    assert len(found) == HELD_OUT
    for k in (0, 11, 999):
        counted = min(math.dist(test.features[k], other) for other in few.features)
        assert found[k] == pytest.approx(counted, rel=1e-4)
    assert not len(held_out_distances(EmbeddedImages("folder", few.numbers, few.features, 50), GREY, extractor))


@given(st.integers(3, 30), st.integers(2, 6), st.integers(0, 1000))
def test_the_principal_axes_carry_the_most_variance_and_keep_their_sign(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(count, size)) * np.arange(1, size + 1)).astype(np.float32)
    points, shares = principal_axes(features)
    centred = features - features.mean(axis=0, dtype=np.float64)
    singular = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(points, axis=0), singular[:2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shares, singular[:2] ** 2 / (singular**2).sum(), atol=1e-6)
    again, _ = principal_axes(features[::-1])  # the order of the images does not matter
    np.testing.assert_allclose(again[::-1], points, atol=1e-3 * float(np.abs(points).max()))
