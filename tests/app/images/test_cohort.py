"""Cohorts: figures count the chosen samples alone, on every page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deediff
from app.views.images.scatter import rho_of, title_of
from tests.app.helpers import EXITS, FULL, SAMPLES, figure, metric, open_app, sentences, unpacked

COHORT = (1, 3, 4)


def test_the_heatmap_and_the_headline_count_the_cohort(runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / EXITS)
    exits = trace.exit_layers()[list(COHORT)]
    app = open_app("trends", run="toy", trace=EXITS, samples="hard:1,3-4")
    assert metric(app, "Layer ratio") == f"{exits.mean() / trace.num_blocks:.3f}"
    cells = unpacked(figure(app, "exit heatmap")["data"][0]["z"])
    for step in range(exits.shape[1]):
        counts = np.bincount(exits[:, step], minlength=trace.num_blocks + 1)
        np.testing.assert_allclose(cells[:, step], counts / len(COHORT))
    assert "hard: 3 samples" in " ".join(caption.value for caption in app.caption)
    assert app.query_params["samples"] == "hard:1,3-4"


def test_the_others_are_trace_b(runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / EXITS)
    rest = trace.exit_layers()[[k for k in range(SAMPLES) if k not in COHORT]]
    app = open_app("trends", run="toy", trace=EXITS, samples="1,3-4", others="True")
    other = app.session_state["selection"].other
    assert other.summary.exits.sum(axis=1).tolist() == [len(rest)] * rest.shape[1]
    assert other.meta.layer_ratio == pytest.approx(rest.mean() / trace.num_blocks)
    assert "b" not in app.query_params


def test_images_and_the_sample_map_show_the_cohort(runs: Path) -> None:
    app = open_app("images", run="toy", trace=EXITS, samples="1,3-4", map_y="u")
    drawn = figure(app, "sample map")["data"][0]
    assert drawn["customdata"] == list(COHORT)
    whole = figure(open_app("images", run="toy", trace=EXITS, map_y="u"), "sample map")["data"][0]
    assert whole["customdata"] == list(range(SAMPLES))
    mean = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers().mean(axis=1)
    np.testing.assert_allclose(unpacked(whole["x"]), mean, rtol=1e-6)


def test_the_title_says_how_two_measures_go_together() -> None:
    table = pd.DataFrame({"exit": [1.0, 2, 3, 4, 5, 6, 7, 9], "change": [9.0, 8, 7, 6, 5, 4, 3, 1]})
    found = rho_of(table, "exit", "change")
    assert found == pytest.approx(-1)
    assert title_of(found, ("Mean exit layer", "Change"), 8) == (
        "Change is smaller where mean exit layer is larger: ρ = −1.00, N = 8"
    )
    assert rho_of(table[:5], "exit", "change") is None  # too few samples to say anything
    assert rho_of(table.assign(change=1.0), "exit", "change") is None


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [("1-x", "is no sample number and no range of them"), ("2,99", "All samples are shown: ")],
)
def test_samples_that_cannot_be_counted_are_a_sentence(samples: str, sentence: str, runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / FULL)
    app = open_app("trends", run="toy", trace=FULL, samples=samples)
    assert sentence in sentences(app) + " ".join(caption.value for caption in app.caption)
    assert metric(app, "Layer ratio") == f"{trace.exit_layers().mean() / trace.num_blocks:.3f}"
