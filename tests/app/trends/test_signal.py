"""The panel of policies with memory: its values are those of the Parquet rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import deediff
from tests.app.helpers import figure, open_app, titles, unpacked
from tests.conftest import sample_trace


def test_the_signal_s_heatmap_and_the_age_are_counts_over_the_rows(runs: Path) -> None:
    folder = runs / "toy" / "traces" / "cached"
    sample_trace(runs / "toy", folder, 9, "first-block:0.1", "ddim", 6, readout="memory:0")
    app = open_app("trends", trace="cached")
    assert not app.exception
    assert not app.error
    trace = deediff.read_trace(folder)
    signal, age = (np.concatenate(parts) for parts in zip(*map(trace.memory, trace.parts), strict=True))
    heatmap, line = figure(app, "signal")["data"]
    stops, shares = unpacked(heatmap["y"]), unpacked(heatmap["z"])
    at_most = [[(column <= np.float32(stop)).mean() for column in signal.T] for stop in stops]
    np.testing.assert_allclose(shares.cumsum(axis=0), at_most, atol=1e-6)
    np.testing.assert_allclose(unpacked(line["y"]), age.clip(min=0).mean(axis=0))
    share = (trace.exit_layers() < trace.num_blocks).mean()
    assert f"{share:.0%} of the decisions reuse an earlier evaluation, by a signal of at most 0.1" in titles(app)


def test_a_policy_without_memory_has_no_such_panel(runs: Path) -> None:
    assert not any("reuse an earlier evaluation" in title for title in titles(open_app("trends")))
