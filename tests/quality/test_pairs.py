"""Distances between images of the same seed: laws, a hand count, and refusals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deediff
from deediff.analysis.compare import image_change
from deediff.errors import UserError
from deediff.quality.pairs import find_full, image_distances, structural_similarity
from tests.conftest import sample_trace

SAMPLES = 7


@pytest.fixture
def pair(run: Path) -> tuple[deediff.Trace, deediff.Trace]:
    for name, policy, batch in (("exits", "threshold:0.45", 3), ("full", "never", 4)):
        sample_trace(run, run / "traces" / name, SAMPLES, policy, "ddim", 4, seed=1, batch_size=batch)
    return deediff.read_trace(run / "traces" / "exits"), deediff.read_trace(run / "traces" / "full")


def pixels(trace: deediff.Trace) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(png)), float) for png in trace.images(range(SAMPLES))])


def test_distances_are_those_of_the_decoded_images(pair: tuple[deediff.Trace, deediff.Trace]) -> None:
    exits, full = pair
    table = image_distances(exits, full)  # although the two were cut into different parts
    difference = pixels(exits) - pixels(full)
    assert table["sample"].tolist() == list(range(SAMPLES))
    mse = (difference**2).mean(axis=(1, 2, 3))
    assert mse.min() > 0
    np.testing.assert_allclose(table["mse"], mse)
    np.testing.assert_allclose(table["change"], np.abs(difference).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(table["psnr"], 20 * np.log10(255 / np.sqrt(mse)))
    assert table["change"].mean() == pytest.approx(image_change(exits, full), rel=1e-5)


def test_a_trace_is_at_no_distance_from_itself(pair: tuple[deediff.Trace, deediff.Trace]) -> None:
    table = image_distances(pair[0], pair[0])
    assert (table["mse"] == 0).all()
    assert np.isposinf(table["psnr"]).all()
    np.testing.assert_allclose(table["ssim"], 1)


def test_images_of_other_noise_are_refused(pair: tuple[deediff.Trace, deediff.Trace], run: Path) -> None:
    sample_trace(run, run / "traces" / "other", SAMPLES, "never", "ddpm", 4, seed=2, batch_size=4)
    with pytest.raises(UserError, match="differ in seed, solver"):
        image_distances(pair[0], deediff.read_trace(run / "traces" / "other"))


def test_the_twin_is_the_full_network_with_the_same_settings(
    pair: tuple[deediff.Trace, deediff.Trace], run: Path
) -> None:
    exits, full = pair
    sample_trace(run, run / "traces" / "a-other-seed", SAMPLES, "never", "ddim", 4, seed=2, batch_size=4)
    found = find_full(exits)
    assert found is not None
    assert found.path == full.path
    assert find_full(full) is full
    (run / "traces" / "broken").mkdir()
    (run / "traces" / "broken" / "trace.json").write_text("{")
    (full.path / "trace.json").unlink()
    assert find_full(exits) is None


def by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, Eq. 13, window by window: (H,W) twice."""
    offset = np.arange(11) - 5
    weight = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            x, y = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mx, my = (weight * x).sum(), (weight * y).sum()
            vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
            cov = (weight * (x - mx) * (y - my)).sum()
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))


def test_ssim_is_its_definition_window_by_window() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 255, (2, 3, 14, 17))
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255)
    found = structural_similarity(torch.from_numpy(a), torch.from_numpy(b))
    wanted = [np.mean([by_hand(a[k, c], b[k, c]) for c in range(3)]) for k in range(2)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_ssim_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(5, 1, 16, 16, generator=generator) * 255 for _ in range(2))
    same, there, back = structural_similarity(a, a), structural_similarity(a, b), structural_similarity(b, a)
    torch.testing.assert_close(same, torch.ones_like(same))
    torch.testing.assert_close(there, back)
    assert (there < 0.9).all()
    opposite = structural_similarity(a, 255 - a)
    assert (opposite < 0).all()  # structure turned round
    assert structural_similarity(a[..., :10], b[..., :10]).isnan().all()  # no window fits


def test_samples_opens_only_the_files_that_hold_them(pair: tuple[deediff.Trace, deediff.Trace]) -> None:
    exits, _ = pair
    everything = exits.samples(range(SAMPLES))
    (exits.path / "samples-00001.parquet").write_bytes(b"nonsense")  # samples 3 – 5
    assert exits.samples([0, 6])["png"].tolist() == everything["png"].iloc[[0, 6]].tolist()
    assert exits.samples(range(0, 3))["sample"].tolist() == [0, 1, 2]
    with pytest.raises(Exception, match="parquet"):
        exits.samples([0, 4])
