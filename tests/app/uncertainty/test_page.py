"""*Uncertainty*: heatmaps and curves are the means over the rows; calibration and maps are those on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import deediff
from deediff.calibration.file import Calibration, calibration_file
from deediff.calibration.statistics import expected_calibration_error, rank_correlation, reliability
from deediff.checkpoints import find_checkpoint
from deediff.recording.maps import write_maps
from tests.app.helpers import (
    BLOCKS,
    EXITS,
    FULL,
    SAMPLES,
    STEPS,
    calibrate_run,
    figure,
    in_the_link,
    open_app,
    select,
    sentences,
    times,
    unpacked,
)


def recorded(runs: Path, trace: str) -> np.ndarray:
    """(samples, steps, N) u from the Parquet rows; NaN where no UEM was evaluated."""
    parts = sorted((runs / "toy" / "traces" / trace).glob("part-*.parquet"))
    rows = [row for part in parts for row in pq.read_table(part)["uncertainty"].to_pylist()]
    return np.asarray(rows, np.float64).reshape(SAMPLES, STEPS, BLOCKS)


def mean_over_samples(u: np.ndarray) -> np.ndarray:
    """(steps, N), NaN where no sample arrived."""
    count = (~np.isnan(u)).sum(axis=0)
    return np.where(count > 0, np.nansum(u, axis=0) / np.maximum(count, 1), np.nan)


def calibrated(runs: Path) -> Calibration:
    return calibrate_run(runs)


def test_heatmaps_are_means_over_the_rows_on_one_scale(runs: Path, tables: dict) -> None:
    shutil.copytree(runs / "toy", runs / "twin")
    app = open_app("uncertainty", b=EXITS, more=f"twin/{FULL}")
    tops = set()
    for name, trace in (("A", FULL), ("B", EXITS), (f"twin/{FULL}", FULL)):
        expected = mean_over_samples(recorded(runs, trace))
        heatmap = figure(app, f"u of {name}")["data"][0]
        np.testing.assert_allclose(unpacked(heatmap["z"]), expected.T, rtol=1e-5)
        np.testing.assert_allclose(
            tables[f"u of {name}"]["mean_u"].to_numpy().reshape(STEPS, BLOCKS), expected, rtol=1e-6
        )
        tops.add(heatmap["zmax"])
    assert len(tops) == 1
    assert in_the_link(app)["more"] == f"twin/{FULL}"


def test_curves_follow_the_chosen_timestep(runs: Path) -> None:
    app = open_app("uncertainty", b=EXITS)
    u = recorded(runs, FULL)
    for step in (0, STEPS - 1):
        select(app, timestep=times(runs)[step])
        curve = figure(app, "u over layers")["data"][0]
        assert curve["name"] == f"A: t = {times(runs)[step]}"
        np.testing.assert_allclose(unpacked(curve["y"]), u[:, step].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(unpacked(curve["customdata"]), u[:, step].std(axis=0), rtol=1e-3)


def test_every_rise_with_depth_is_marked(runs: Path) -> None:
    app = open_app("uncertainty")
    mean = mean_over_samples(recorded(runs, FULL))
    rising = np.diff(mean, axis=1) > 1e-3
    said = " ".join(caption.value for caption in app.caption)
    assert f"u rises from one layer to the next in {rising.mean():.0%} of cells" in said
    x, y = (unpacked(figure(app, "u of A")["data"][1][axis]) for axis in ("x", "y"))
    marked = np.zeros_like(rising)
    for first, last, layer in zip(x[0::3], x[1::3], y[0::3], strict=True):
        inside = [last < t < first for t in times(runs)]
        marked[inside, int(layer)] = True
    np.testing.assert_array_equal(marked, rising)


def test_without_a_calibration_the_command_that_makes_one(runs: Path) -> None:
    app = open_app("uncertainty")
    assert f"deediff calibrate {find_checkpoint(runs / 'toy')}" in [code.value for code in app.code]


def test_the_calibration_on_screen_is_the_file_s(runs: Path, tables: dict) -> None:
    calibration = calibrated(runs)
    app = open_app("uncertainty", t=str(times(runs)[2]), layer="4")
    app.segmented_control(key="calibration t").set_value("selected timestep").run()
    nearest = min(calibration.timesteps.tolist(), key=lambda t: abs(t - times(runs)[2]))
    table = reliability(calibration)
    rows = table[(table["timestep"] == nearest) & (table["layer"] == 4)].sort_values("predicted")
    shown = next(trace for trace in figure(app, "reliability")["data"] if trace["name"] == "layer 4")
    np.testing.assert_allclose(unpacked(shown["x"]), rows["predicted"], rtol=1e-5)
    np.testing.assert_allclose(unpacked(shown["y"]), rows["actual"], rtol=1e-5)
    assert tables["reliability"]["count"].sum() == 16 * BLOCKS
    for measure, values in (
        ("ECE", expected_calibration_error(calibration.u, calibration.error)),
        ("rank correlation", rank_correlation(calibration.u, calibration.error)),
    ):
        app.segmented_control(key="calibration measure").set_value(measure).run()
        z = unpacked(figure(app, f"calibration {measure}")["data"][0]["z"])
        np.testing.assert_allclose(z, values[::-1].T, rtol=1e-5)  # time runs in the direction of sampling
    app.segmented_control(key="calibration t").set_value("all timesteps").run()
    assert tables["reliability"]["count"].sum() == 16 * 4 * BLOCKS


def test_a_calibration_of_other_weights_is_a_sentence(runs: Path) -> None:
    calibration = calibrated(runs)
    calibration.info["checkpoint_sha256"] = "0" * 64
    calibration.save(calibration_file(find_checkpoint(runs / "toy")))
    assert "belongs to other weights" in sentences(open_app("uncertainty"))


def test_maps_over_the_image_are_those_logged(runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / EXITS)
    app = open_app("uncertainty", trace=EXITS)
    assert any(code.value.startswith("deediff ") and str(trace.path) in code.value for code in app.code)
    write_maps(trace, [2], find_checkpoint(runs / "toy"), "cpu")
    app = open_app("uncertainty", trace=EXITS, sample="2", layer="0", t=str(times(runs)[1]))
    shown = unpacked(figure(app, "u over the image")["data"][0]["z"])
    np.testing.assert_allclose(shown, trace.maps(2)[1, 0], rtol=1e-6)
