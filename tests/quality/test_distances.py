"""Distances between sets of images: closed forms, torch-fidelity, and the coverage of intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deediff.errors import UserError
from deediff.quality.frechet import FeatureMoments, Gaussian, frechet, frechet_infinity
from deediff.quality.jackknife import GROUPS, JackknifeEstimate, group_of
from deediff.quality.kernels import cmmd, cmmd_within, gaussian, kid, kid_within
from deediff.quality.manifold import precision_recall, radii
from deediff.quality.paired import quality_difference
from deediff.quality.results import Quality, read_quality, write_quality


def draw(count: int, size: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(size, size))
    return (rng.normal(size=(count, size)) @ mix + shift).astype(np.float32)


def gaussian_of(features: np.ndarray) -> Gaussian:
    origin = features.mean(axis=0, dtype=np.float64)
    return FeatureMoments.of(features, origin).gaussian(origin)


def test_distance_of_two_gaussians_is_the_closed_form():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    a, b = np.array([1.0, 4.0, 9.0, 0.25, 1.0]), np.array([4.0, 1.0, 1.0, 0.25, 16.0])
    shift = np.arange(5.0)
    first = Gaussian(np.zeros(5), rotation @ np.diag(a) @ rotation.T)
    second = Gaussian(shift, rotation @ np.diag(b) @ rotation.T)
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()  # commuting covariances
    assert first.distance(second) == pytest.approx(expected, rel=1e-9)
    assert second.distance(first) == pytest.approx(expected, rel=1e-9)
    assert first.distance(first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_torch_fidelitys():
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = draw(400), draw(500, seed=1, shift=0.3)
    theirs = [fid_features_to_statistics(torch.from_numpy(z.astype(np.float64))) for z in (x, y)]
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert frechet(x, None, gaussian_of(y)).value == pytest.approx(expected, rel=1e-6)


def test_moments_add_up_like_the_features_they_come_from():
    x = draw(300, shift=50)
    origin = np.full(6, 49.0)
    a, b, whole = (FeatureMoments.of(part, origin) for part in (x[:100], x[100:], x))
    for one, other in ((a + b, whole), (whole - b, a)):
        assert one.count == other.count
        np.testing.assert_allclose(one.outer, other.outer, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(whole.gaussian(origin).covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-6)


def test_kid_is_torch_fidelitys_on_one_subset_of_everything():
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = draw(200), draw(200, seed=1, shift=0.5)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=200, verbose=False
    )
    ours = kid(x, None, y, kid_within(y))
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)


def test_kid_of_two_halves_of_one_set_is_near_zero():
    x, y, other = draw(2000), draw(2000, seed=1), draw(2000, seed=2, shift=0.5)
    within = kid_within(y)
    same = kid(x, group_of(np.arange(2000)), y, within)
    assert same.interval[0] < 0 < same.interval[1]
    assert kid(other, None, y, within).value > 20 * abs(same.value)
    assert abs(kid(y, None, y, within).value) < 0.05 * within  # identical sets: only the diagonal differs


def test_cmmd_of_identical_sets_is_zero_and_follows_its_kernel():
    x, y = draw(50), draw(60, seed=1, shift=1)
    assert cmmd(y, None, y, cmmd_within(y)).value == pytest.approx(0, abs=1e-9)
    a, b = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y.astype(np.float64))
    brute = [torch.exp(-(torch.cdist(p, q) ** 2) / 200).mean() for p, q in ((a, a), (b, b), (a, b))]
    expected = 1000 * float(brute[0] + brute[1] - 2 * brute[2])
    assert cmmd(x, None, y, cmmd_within(y)).value == pytest.approx(expected, rel=1e-6)
    assert float(gaussian(a[:1], a[:1])) == pytest.approx(1)


def test_precision_and_recall_are_torch_fidelitys():
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    fake, real = draw(150, shift=0.8), draw(220, seed=1)
    precision, recall = precision_recall(fake, None, real, radii(real))
    expected = calculate_precision_recall_full(torch.from_numpy(fake), torch.from_numpy(real))
    assert (precision.value, recall.value) == pytest.approx(expected, abs=1e-6)
    assert 0.1 < recall.value < 0.99
    assert 0.1 < precision.value < 0.99


def test_a_value_without_a_group_is_that_of_the_other_groups_alone():
    x, y = draw(160, shift=0.4), draw(200, seed=1)
    groups = group_of(np.random.default_rng(0).permutation(160))
    reference, real = gaussian_of(y), radii(y)

    def measured(x: np.ndarray, groups: np.ndarray | None) -> dict[str, JackknifeEstimate]:
        precision, recall = precision_recall(x, groups, y, real)
        return {
            "frechet": frechet(x, groups, reference),
            "kid": kid(x, groups, y, kid_within(y)),
            "cmmd": cmmd(x, groups, y, cmmd_within(y)),
            "precision": precision,
            "recall": recall,
        }

    whole = measured(x, groups)
    for g in (0, 7, GROUPS - 1):
        for name, alone in measured(x[groups != g], None).items():
            assert whole[name].without[g] == pytest.approx(alone.value, rel=1e-6, abs=1e-9), name


def test_the_interval_covers_the_mean_over_new_draws_of_as_many_images():
    reference = gaussian_of(draw(20_000, size=3, seed=1))
    found = [frechet(draw(200, 3, seed, shift=0.3), group_of(np.arange(200)), reference) for seed in range(1000, 1150)]
    mean = np.mean([estimate.value for estimate in found])
    covered = np.mean([low <= mean <= high for low, high in (estimate.interval for estimate in found)])
    assert 0.88 <= covered <= 0.99


def test_extrapolation_removes_the_bias_of_few_images():
    wide, narrow = draw(6000, 16, shift=0.1), gaussian_of(draw(200_000, 16, seed=1))
    mix = np.random.default_rng(99).normal(size=(16, 16))
    truth = Gaussian(np.full(16, 0.1), mix.T @ mix).distance(Gaussian(np.zeros(16), mix.T @ mix))
    raw = frechet(wide[:1000], None, narrow).value
    value, error = frechet_infinity(wide, narrow)
    assert abs(value - truth) < 0.25 * abs(raw - truth)
    assert error > 0


def quality(features: np.ndarray, reference: Gaussian, seed: int | None = 0, **fields: Any) -> Quality:
    estimate = frechet(features, group_of(np.arange(len(features))), reference)
    entry = Quality(
        "fd-cifar",
        "fd-cifar",
        estimate.value,
        *estimate.interval,
        "",
        len(features),
        "cifar10-train",
        "key",
        50_000,
        None,
        None,
        "",
        "cpu",
        without=tuple(estimate.without),
        seed=seed,
    )
    return replace(entry, **fields)


def test_pairing_by_seed_detects_smaller_differences():
    reference = gaussian_of(draw(20_000, seed=1))
    x = draw(1000, shift=0.3)
    nearly = (x + 0.02).astype(np.float32)
    one, other = quality(nearly, reference), quality(x, reference)
    paired, blind = quality_difference(one, other), quality_difference(one, replace(other, seed=5))
    assert paired.paired
    assert not blind.paired
    assert paired.value == blind.value == one.value - other.value
    assert not paired.inside_noise
    assert blind.inside_noise
    assert paired.detectable < 0.2 * blind.detectable
    assert quality_difference(one, one).inside_noise


def test_values_of_different_protocols_are_not_comparable():
    reference = gaussian_of(draw(2000, seed=1))
    one = quality(draw(100), reference)
    changes = ({"metric": "fid"}, {"extractor": "inception-v3"}, {"reference_key": "other"}, {"images": 99})
    for change in changes:
        with pytest.raises(UserError, match="not comparable"):
            quality_difference(one, replace(one, **change))


def test_a_new_result_replaces_the_old_one_of_its_protocol_only(tmp_path: Path):
    reference = gaussian_of(draw(2000, seed=1))
    one = quality(draw(100), reference)
    write_quality(tmp_path, [one, replace(one, metric="kid-cifar")])
    write_quality(tmp_path, [replace(one, value=3.0)])
    assert [(q.metric, q.value) for q in read_quality(tmp_path)] == [("fd-cifar", 3.0), ("kid-cifar", one.value)]
    assert read_quality(tmp_path)[0].without == one.without
