"""Numbers per sample, against the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.analysis.per_sample import exit_layer_per_sample, gflops_per_sample, uncertainty_per_sample
from deediff.errors import UserError
from tests.conftest import record


def test_numbers_per_sample_are_counts_over_rows(run_folder: Path, exits: deediff.Trace) -> None:
    full = record(run_folder, "plain", policy="never")
    layers = exits.exit_layers()
    np.testing.assert_allclose(exit_layer_per_sample(exits), layers.mean(axis=1), rtol=1e-6)
    assert gflops_per_sample(exits).mean() == pytest.approx(exits.cost.mean_gflops(exits.summary.exits, True))
    np.testing.assert_allclose(gflops_per_sample(full), full.cost.full)
    rows = exits.to_pandas()
    wanted = rows.groupby("sample").apply(
        lambda own: np.mean([u[min(i, 12)] for u, i in zip(own["uncertainty"], own["exit_layer"], strict=True)]),
        include_groups=False,
    )
    np.testing.assert_allclose(uncertainty_per_sample(exits), wanted, rtol=1e-5)
    with pytest.raises(UserError, match="holds no uncertainties"):
        uncertainty_per_sample(full)
