"""The explorer from Python: its figures, and its server for notebooks."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.errors import UserError
from tests.app.helpers import unpacked
from tests.conftest import record


def test_the_figures_show_the_numbers_of_the_trace(run: Path) -> None:
    trace = record(run, "t", policy="threshold:0.1", record="full", steps=3)
    layers = trace.exit_layers()
    heatmap = trace.figure("exits").data[0]
    assert unpacked(heatmap.x).tolist() == trace.timesteps
    shares = np.stack([(layers == i).mean(axis=0) for i in range(14)])
    np.testing.assert_allclose(unpacked(heatmap.z), shares, atol=1e-6)
    np.testing.assert_allclose(unpacked(trace.figure("mean-exit").data[0].y), layers.mean(axis=0), atol=1e-5)
    u = np.concatenate([trace.uncertainty(part) for part in trace.parts])  # (M, S, N)
    np.testing.assert_allclose(unpacked(trace.figure("uncertainty").data[0].z), u.mean(axis=0).T, atol=1e-5)


def test_a_figure_that_cannot_be_drawn_is_a_sentence(run: Path) -> None:
    trace = record(run, "t", policy="never", steps=2)
    with pytest.raises(UserError, match="unknown figure 'x', expected one of: exits, mean-exit, uncertainty"):
        trace.figure("x")
    with pytest.raises(UserError, match="holds no uncertainties"):
        trace.figure("uncertainty")


def test_the_server_runs_until_it_is_closed(run: Path) -> None:
    with deediff.explore(run.parent, height=500) as explorer:
        assert f'src="{explorer.url}"' in explorer._repr_html_()
        with urllib.request.urlopen(explorer.url) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(explorer.url)


def test_a_folder_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder: give a folder of runs"):
        deediff.explore(tmp_path / "nowhere")
