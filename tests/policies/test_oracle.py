"""The oracle: exits by recorded deviations."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deediff
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.from_trace.oracle_exits import affordable_tolerance, oracle_exits, weighted_deviation
from tests.conftest import sample_trace


def decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), np.float64)


def test_the_oracle_exits_at_the_first_layer_within_the_tolerance() -> None:
    deviation = np.array([[0.5, 0.2, 0.3], [0.9, 0.8, 0.7], [np.nan, 0.1, 0.0]])
    assert oracle_exits(deviation, 0.25).tolist() == [1, 3, 1]


def test_the_oracle_is_as_exact_as_its_budget_allows(loaded: EarlyExitModel, tmp_path: Path) -> None:
    assert loaded.origin is not None
    folder = sample_trace(loaded.origin[0], tmp_path / "full", 4, steps=3, record="full", deviations=True)
    trace, weights = deediff.read_trace(folder), np.array([1.0, 2.0, 0.5])
    prices = trace.cost.at_exit(with_uem=False)

    def cost(tolerance: float) -> float:
        return float(prices[oracle_exits(weighted_deviation(trace, 0, weights), tolerance)].mean())

    least, most = cost(np.inf), cost(0)
    assert least < most == pytest.approx(trace.cost.full)
    for share in (0.2, 0.5, 0.8):
        budget = least + share * (most - least)
        tolerance = affordable_tolerance(trace, budget, weights)
        assert cost(tolerance) <= budget < cost(tolerance * (1 - 2e-6))
    assert affordable_tolerance(trace, most * (1 + 1e-9), weights) == 0
    with pytest.raises(UserError, match="the cheapest cost"):
        affordable_tolerance(trace, least * 0.99, weights)


def test_the_oracle_keeps_its_budget_and_moves_the_images_less_than_any_threshold(
    loaded: EarlyExitModel, tmp_path: Path
) -> None:
    assert loaded.origin is not None
    run, settings = loaded.origin[0], {"num_samples": 8, "solver": "ddim", "steps": 5, "seed": 3, "batch_size": 3}
    full = sample_trace(run, tmp_path / "full", policy="never", record="full", deviations=True, **settings)
    recorded = deediff.read_trace(full)
    images = np.stack([decode(png) for png in recorded.images(range(8))])

    def moved(policy: str, name: str) -> tuple[float, float]:
        trace = deediff.read_trace(sample_trace(run, tmp_path / name, policy=policy, **settings))
        change = np.stack([decode(png) for png in trace.images(range(8))]) - images
        return float(trace.meta.mean_gflops), float(np.abs(change).mean())

    for tau in (0.45, 0.5, 0.55):
        gflops, by_threshold = moved(f"threshold:{tau}", f"threshold{tau}")
        spent, by_oracle = moved(f"oracle:{gflops}@{full}", f"oracle{tau}")
        assert 0.6 * gflops < spent <= gflops
        assert by_oracle < by_threshold
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
