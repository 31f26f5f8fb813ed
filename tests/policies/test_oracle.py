"""The oracle: exits by recorded deviations."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import deediff
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.from_trace.knapsack import static_layers
from deediff.policies.from_trace.oracle_exits import mean_deviation, oracle_exits
from deediff.traces.reader import Trace
from tests.analysis.traces import STATIC_COST, make_trace
from tests.conftest import sample_trace


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.float64)


def recording(folder: Path, deviation: np.ndarray, layers: tuple[int, ...] = tuple(range(13))) -> Trace:
    """A full recording with these deviations (samples, steps, 13) and exits at these layers."""
    u = np.full(deviation.shape, np.nan)
    u[..., list(layers)] = 0.5
    return make_trace(folder, np.full(deviation.shape[:2], 13), u, deviation, policy="never")


def total(deviation: np.ndarray, exits: np.ndarray) -> float:
    price = np.pad(deviation.astype(np.float32).astype(np.float64), ((0, 0), (0, 0), (0, 1)))
    return float(np.take_along_axis(price, exits.astype(int)[..., None], axis=2).sum())


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1)),
    st.sampled_from([tuple(range(13)), (0, 3, 9), (12,)]),
    st.sampled_from([2, 1000]),  # values; with two, most exits are equally good
    st.floats(0, 1),
)
def test_the_oracle_loses_to_no_static_schedule_on_its_own_measure(
    shape: tuple[int, int, int], layers: tuple[int, ...], values: int, share: float
) -> None:
    samples, steps, seed = shape
    rng = np.random.default_rng(seed)
    deviation = rng.integers(0, values, (samples, steps, 13)) / 100
    possible = np.array([*layers, 13])
    budget = STATIC_COST[layers[0]] + share * (STATIC_COST[13] - STATIC_COST[layers[0]])
    with TemporaryDirectory() as folder:
        trace = recording(Path(folder), deviation, layers)
        exits = oracle_exits(trace, budget)
        static = static_layers(mean_deviation(trace), STATIC_COST, budget, spend=False)
    assert exits.shape == (samples, steps)
    assert np.isin(exits, possible).all()
    assert STATIC_COST[exits].mean() <= budget * (1 + 2e-9)
    mine = total(deviation, exits)
    assert mine <= total(deviation, np.broadcast_to(static, exits.shape)) + 1e-9
    for _ in range(50):  # any other exits are better by less than one sample can gain at one step
        other = rng.choice(possible, (samples, steps))
        if STATIC_COST[other].mean() <= budget:
            assert mine <= total(deviation, other) + deviation.max() + 1e-9


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_oracle_has_the_least_deviation_for_its_cost(tmp_path: Path, share: float) -> None:
    """At every price per GFLOP, by brute force; of equally good exits it takes as many as the budget allows."""
    rng = np.random.default_rng(0)
    deviation = np.repeat(rng.integers(1, 9, (6, 4, 13)) / 8, 2, axis=0)  # every sample twice
    budget = STATIC_COST[0] + share * (STATIC_COST[13] - STATIC_COST[0])
    exits = oracle_exits(recording(tmp_path / "t", deviation), budget)
    spent, mine = STATIC_COST[exits].mean(), total(deviation, exits)
    price = np.pad(deviation, ((0, 0), (0, 0), (0, 1)))
    bounds = []
    for multiplier in np.geomspace(1e-4, 10, 2000):
        least = (price + multiplier * STATIC_COST).min(axis=2).sum()
        bounds.append(least - multiplier * budget * exits.size)
    assert mine <= max(bounds) + 1  # one sample at one step, at most 1
    assert mine >= max(bounds) - 1e-9
    assert budget - 13 / exits.size < spent <= budget * (1 + 2e-9)


def test_where_the_greedy_choice_cannot_use_its_budget_the_oracle_takes_the_static_schedule(tmp_path: Path) -> None:
    deviation = np.zeros((2, 1, 13))
    deviation[:, 0, [0, 10, 11]] = [[56, 7, 1], [46, 2, 1]]  # 0 → 11 gains most per block, and leaves 9 of 20 blocks
    trace = recording(tmp_path / "t", deviation, (0, 10, 11))
    assert oracle_exits(trace, float(STATIC_COST[10])).tolist() == [[10], [10]]
    assert oracle_exits(trace, float(STATIC_COST[[0, 11]].mean())).tolist() == [[11], [0]]


def test_the_oracle_is_as_exact_as_its_budget_allows(loaded: EarlyExitModel, tmp_path: Path) -> None:
    assert loaded.origin is not None
    folder = sample_trace(loaded.origin[0], tmp_path / "full", 4, steps=3, record="full", deviations=True)
    trace = deediff.read_trace(folder)
    prices, deviation = trace.cost.at_exit(with_uem=False), trace.deviation(0)
    least, most, before = prices.min(), trace.cost.full, np.inf
    assert (oracle_exits(trace, least) == 0).all()
    for share in (0.2, 0.5, 0.8):
        exits = oracle_exits(trace, least + share * (most - least))
        assert prices[exits].mean() <= (least + share * (most - least)) * (1 + 2e-9)
        assert total(deviation, exits) < before
        before = total(deviation, exits)
    assert (oracle_exits(trace, most) == 13).all()
    with pytest.raises(UserError, match="the cheapest cost"):
        oracle_exits(trace, least * 0.99)


def test_the_oracle_keeps_its_budget_and_moves_the_images_less_than_any_threshold(
    loaded: EarlyExitModel, tmp_path: Path
) -> None:
    assert loaded.origin is not None
    run, sampling = loaded.origin[0], {"num_samples": 8, "solver": "ddim", "steps": 5, "seed": 3, "batch_size": 3}
    full = sample_trace(run, tmp_path / "full", policy="never", record="full", deviations=True, **sampling)
    recorded = deediff.read_trace(full)
    images = np.stack([decode(png) for png in recorded.images(range(8))])
    recorded_u, deviation = (
        np.concatenate([values(part) for part in recorded.parts])
        for values in (recorded.uncertainty, recorded.deviation)
    )

    def moved(policy: str, name: str) -> tuple[float, float]:
        trace = deediff.read_trace(sample_trace(run, tmp_path / name, policy=policy, **sampling))
        change = np.stack([decode(png) for png in trace.images(range(8))]) - images
        return float(trace.meta.mean_gflops), float(np.abs(change).mean())

    for tau in (0.45, 0.5, 0.55):
        gflops, by_threshold = moved(f"threshold:{tau}", f"threshold{tau}")
        spent, by_oracle = moved(f"oracle:{gflops}@{full}", f"oracle{tau}")
        assert 0.6 * gflops < spent <= gflops
        assert by_oracle < 1.01 * by_threshold  # at 0.55 nearly all exits of both are at layer 0
        certain = recorded_u <= tau
        open_loop = np.where(certain.any(axis=2), certain.argmax(axis=2), 13)
        budget = float(recorded.cost.at_exit(with_uem=False)[open_loop].mean())
        assert total(deviation, oracle_exits(recorded, budget)) < total(deviation, open_loop)
    exits = deediff.read_trace(tmp_path / "oracle0.5").exit_layers()
    assert exits.std(axis=0).max() > 0  # per sample, not per timestep


def test_an_oracle_refuses_samplings_that_its_trace_does_not_cover(
    loaded: EarlyExitModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loaded.origin is not None
    run = loaded.origin[0]
    full = sample_trace(run, tmp_path / "full", 4, steps=3, seed=1, record="full", deviations=True)
    plain = sample_trace(run, tmp_path / "plain", 4, steps=3, seed=1)
    for trace, options, sentence in (
        (plain, {"steps": 3, "seed": 1}, "does not hold the full network's deviations"),
        (full, {"steps": 4, "seed": 1}, "other timesteps"),
        (full, {"steps": 3, "seed": 2}, "made for seed 1"),
        (full, {"steps": 3, "seed": 1, "num_samples": 5}, "holds 4 samples"),
    ):
        arguments = {"num_samples": 4, **options}
        with pytest.raises(UserError, match=sentence):
            list(deediff.sample(loaded, policy=f"oracle:0.002@{trace}", **arguments))
    with pytest.raises(UserError, match="no exits cost"):
        list(deediff.sample(loaded, policy=f"oracle:1e-9@{full}", num_samples=4, steps=3, seed=1))
