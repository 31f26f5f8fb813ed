"""The split of the variance into timestep, sample and rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deediff.analysis.trends import timestep_share
from deediff.analysis.variance import MomentSums, VarianceSplit, decompose, uncertainty_variance
from deediff.errors import UserError
from tests.analysis.traces import counts_of, make_trace


def synthetic(
    seed: int, samples: int, steps: int, timestep: float, sample: float, drift: float, phi: float, noise: float
) -> tuple[np.ndarray, dict[str, float]]:
    """Values (samples, steps) with these variances (drift is AR(1) with coefficient φ), and the true answers."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=steps)
    effect = (effect - effect.mean()) / effect.std() * timestep**0.5
    walk = rng.normal(size=(samples, steps))
    for s in range(1, steps):
        walk[:, s] = phi * walk[:, s - 1] + (1 - phi**2) ** 0.5 * walk[:, s]
    values = effect + sample**0.5 * rng.normal(size=(samples, 1)) + drift**0.5 * walk
    values += noise**0.5 * rng.normal(size=(samples, steps))
    lags = np.arange(1, steps)
    kept = sample + drift * 2 * ((steps - lags) * phi**lags).sum() / steps / (steps - 1)  # over all pairs of steps
    within = sample + drift + noise
    total = timestep + within
    return values, {
        "total": total,
        "timestep": timestep / total,
        "sample": kept / total,
        "rest": (within - kept) / total,
        "stays_all": kept / within,
        "stays_next": (sample + drift * phi) / within,
    }


def values_of(split: VarianceSplit) -> dict[str, float]:
    names = ("total", "timestep", "sample", "rest", "stays_all", "stays_next")
    return {name: getattr(split, name).value for name in names}


@pytest.mark.parametrize("parts", [(4, 1, 1, 0.9, 0.5), (0.1, 0, 2, 0.5, 1), (1, 3, 0, 0, 0.2), (0, 0, 0, 0, 1)])
def test_known_components_are_recovered(parts: tuple[float, ...]) -> None:
    values, truth = synthetic(1, 3000, 100, *parts)
    assert values_of(decompose(values, draws=1)) == pytest.approx(truth, abs=0.03, rel=0.05)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    hits = dict.fromkeys(("total", "timestep", "sample", "rest", "stays_all", "stays_next"), 0)
    for seed in range(60):
        values, truth = synthetic(seed, 120, 30, 2, 1, 1, 0.7, 1)
        split = decompose(values, draws=200, seed=seed)
        for name in hits:
            hits[name] += getattr(split, name).low <= truth[name] <= getattr(split, name).high
    assert all(count >= 50 for count in hits.values()), hits  # 57 of 60 are expected


def test_without_any_timestep_effect_its_interval_still_holds_zero() -> None:
    # An uncorrected bootstrap fails here: resampling adds noise to the timesteps' means.
    hits = 0
    for seed in range(20):
        split = decompose(synthetic(seed, 50, 200, 0, 0, 0, 0, 1)[0], draws=200)
        hits += split.timestep.low <= 0 <= split.timestep.high
    assert hits >= 18


def test_timesteps_alone_explain_everything_and_constants_are_nan() -> None:
    split = values_of(decompose(np.tile(np.arange(20), (30, 1))))
    assert (split["timestep"], split["sample"], split["rest"]) == (1, 0, 0)
    assert np.isnan([split["stays_all"], split["stays_next"]]).all()
    same = values_of(decompose(np.full((30, 20), 13)))
    assert same.pop("total") == 0
    assert np.isnan(list(same.values())).all()
    with pytest.raises(UserError, match="at least two"):
        decompose(np.ones((1, 5)))


def test_permuting_samples_at_each_timestep_destroys_what_persists_and_nothing_else() -> None:
    values, _ = synthetic(2, 2000, 60, 2, 1, 1, 0.8, 0.5)
    before = values_of(decompose(values, draws=1))
    after = values_of(decompose(np.random.default_rng(0).permuted(values, axis=0), draws=1))
    assert after["total"] == pytest.approx(before["total"], rel=1e-3)
    assert after["timestep"] == pytest.approx(before["timestep"], abs=1e-3)
    for name in ("sample", "stays_all", "stays_next"):
        assert before[name] > 0.1
        assert abs(after[name]) < 0.01


def test_it_is_the_two_way_layout_of_the_textbook() -> None:
    values, _ = synthetic(3, 40, 12, 1, 1, 1, 0.5, 1)
    n, steps = values.shape
    by_step, by_sample, mean = values.mean(0), values.mean(1), values.mean()
    square_rest = np.square(values - by_step - by_sample[:, None] + mean).sum() / (n - 1) / (steps - 1)
    square_sample = steps * np.square(by_sample - mean).sum() / (n - 1)
    of_sample = (square_sample - square_rest) / steps
    of_timestep = by_step.var() - square_rest * (steps - 1) / steps / n  # the timesteps are fixed: no factor S/(S−1)
    left = values - by_step
    neighbours = 2 * (left[:, 1:] * left[:, :-1]).sum() / (np.square(left[:, 1:]) + np.square(left[:, :-1])).sum()
    split = values_of(decompose(values, draws=1))
    total = of_timestep + left.var(axis=0, ddof=1).mean()
    assert split["total"] == pytest.approx(total)
    assert split["timestep"] == pytest.approx(of_timestep / total)
    assert split["sample"] == pytest.approx(of_sample / total)
    assert split["timestep"] + split["sample"] + split["rest"] == pytest.approx(1)
    assert split["stays_next"] == pytest.approx(neighbours)


def test_parts_and_layers_do_not_change_the_answer() -> None:
    layers = np.stack([synthetic(seed, 50, 20, 1, 1, 1, 0.5, 1)[0] for seed in (0, 1)], axis=-1)
    moments = MomentSums(20, 2, draws=30)
    for part in np.split(layers, [7, 8, 40]):
        moments.add(part)
    for i, split in enumerate(moments.split()):
        whole = decompose(layers[:, :, i], draws=30)
        assert values_of(split) == pytest.approx(values_of(whole))
        assert (split.rest.low, split.rest.high) == pytest.approx((whole.rest.low, whole.rest.high))


def test_the_timestep_share_is_the_summary_s_up_to_one_sample() -> None:
    exits = np.random.default_rng(0).integers(0, np.arange(2, 14), (500, 12))
    assert decompose(exits, draws=1).timestep.value == pytest.approx(timestep_share(counts_of(exits)), abs=1 / 500)


def test_layers_without_u_of_some_sample_are_nan(tmp_path: Path) -> None:
    u = np.random.default_rng(0).random((9, 4, 13))
    u[3, 2, 5:] = np.nan
    splits = uncertainty_variance(make_trace(tmp_path / "t", np.full((9, 4), 13), u), draws=10)
    assert [bool(np.isnan(split.timestep.value)) for split in splits] == [False] * 5 + [True] * 8
