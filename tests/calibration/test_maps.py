"""The maps that correct u."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.calibration.file import Calibration
from deediff.calibration.maps import fit_map

pairs = st.lists(st.tuples(st.floats(0, 1, width=16), st.floats(0, 1, width=16)), min_size=1, max_size=60)


@settings(deadline=None)
@given(pairs)
def test_isotonic_regression_rises_and_is_nearer_than_the_identity_and_any_constant(data: list) -> None:
    u, error = np.array(sorted(data)).T
    _, _, fitted = fit_map(np.arange(len(error), dtype=np.float64), error, len(error))  # a knot at each prediction
    assert (np.diff(fitted) >= 0).all()
    loss = np.square(fitted - error).sum()
    assert loss <= np.square(u - error).sum() + 1e-9
    assert loss <= np.square(error.mean() - error).sum() + 1e-9
    np.testing.assert_allclose(fitted.mean(), error.mean())


@pytest.mark.parametrize("seed", range(20))
def test_isotonic_regression_is_the_max_min_of_weighted_means(seed: int) -> None:
    """The max-min formula of isotonic regression (Barlow et al. 1972): max over a ≤ k of min over b ≥ k."""
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, 12, 60).astype(np.float64)  # several of each: the counts are the weights
    actual = 0.05 * predicted + rng.random(60)
    points = np.unique(predicted)
    count = len(points)
    means = np.array(
        [
            [actual[(predicted >= points[a]) & (predicted <= points[b])].mean() if a <= b else 0 for b in range(count)]
            for a in range(count)
        ]
    )
    expected = [max(means[a, k:].min() for a in range(k + 1)) for k in range(count)]
    low, high, fitted = fit_map(predicted, actual, int(points[-1] - points[0]) + 1)  # a knot at each prediction
    assert (low, high) == (points[0], points[-1])
    np.testing.assert_allclose(fitted[(points - low).astype(int)], expected, rtol=1e-12)


def test_a_map_rises_and_lowers_the_error_on_the_images_of_its_fit(measured: Calibration) -> None:
    assert (np.diff(measured.maps, axis=2) >= 0).all()
    mine = measured.fitted
    before = np.square(measured.u - measured.error)[:, mine].mean(axis=1)
    after = np.square(measured.recalibrated().u - measured.error)[:, mine].mean(axis=1)
    assert (after <= before + 1e-4).all()
    assert after.mean() < 0.5 * before.mean()
    low, high, values = fit_map(np.array([0.3, 0.1, 0.3, 0.2]), np.array([0.5, 0.2, 0.7, 0.4]), knots=3)
    assert (low, high) == (0.1, 0.3)
    np.testing.assert_allclose(values, [0.2, 0.4, 0.6])  # equal predictions count as one
