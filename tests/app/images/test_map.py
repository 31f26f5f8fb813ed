"""The sample map: quality features projected to two axes, and a colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.analysis.neighbours import embed_trace, extractor_for
from tests.app.helpers import EXITS, SAMPLES, figure, open_app, sentences, unpacked


def test_the_axes_are_the_principal_components_of_all_images(runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / EXITS)
    features = embed_trace(trace, extractor_for((1, 32))).features.astype(np.float64)
    _, singular, axes = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    link = {"run": "toy", "trace": EXITS, "map_x": "feature1", "map_y": "feature2", "map_color": "gflops"}
    app = open_app("images", **link)
    found = figure(app, "sample map")
    points = found["data"][0]
    for axis, key in enumerate("xy"):
        along = axes[axis] * np.sign(axes[axis][np.abs(axes[axis]).argmax()])  # the largest loading is positive
        expected = (features - features.mean(axis=0)) @ along
        np.testing.assert_allclose(unpacked(points[key]), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
        share = singular[axis] ** 2 / (singular**2).sum()
        assert found["layout"][f"{key}axis"]["title"]["text"] == (
            f"Features, axis {axis + 1}: {share:.0%} of the variance"
        )
    cost = trace.cost.at_exit(with_uem=True)[trace.exit_layers()].sum(axis=1)
    np.testing.assert_allclose(unpacked(points["marker"]["color"]), cost, rtol=1e-6)
    assert points["customdata"] == list(range(SAMPLES))
    limited = figure(open_app("images", **link, samples="1,3"), "sample map")["data"][0]
    np.testing.assert_allclose(unpacked(limited["x"]), unpacked(points["x"])[[1, 3]])  # a cohort moves no point


def test_without_images_the_features_are_a_sentence(runs: Path) -> None:
    for file in (runs / "toy" / "traces" / EXITS).glob("samples-*.parquet"):
        file.unlink()
    app = open_app("images", run="toy", trace=EXITS, map_x="feature1", map_y="u")
    assert "holds no images" in sentences(app)


@pytest.mark.parametrize("rows", [True, False])
def test_a_box_selects_only_where_rows_can_be_counted(runs: Path, rows: bool) -> None:
    if not rows:
        for file in (runs / "toy" / "traces" / EXITS).glob("part-*.parquet"):
            file.unlink()
    app = open_app("images", run="toy", trace=EXITS, map_x="exit", map_y="change")
    said = " ".join(caption.value for caption in app.caption)
    assert ("a box selects a cohort" in said) == rows
    assert bool([text for text in app.text_input if text.key == "samples"]) == rows
