"""*Uncertainty* in a browser: values of rows and calibration, and an address that restores the selection."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import exported, meta_of, recorded, reopened

pytestmark = pytest.mark.e2e
FULL, CLOSED, OTHER = "ddim50-never-full", "ddim50-threshold-0.1", "ddim50-threshold-0.11"
STEP, LAYER, BINS = 30, 4, 10
CURVES, MEASURE = ".st-key-calibration-t", ".st-key-calibration-measure"


@pytest.fixture(scope="module")
def calibration(copied: Path) -> dict[str, np.ndarray]:
    """(T',) timesteps, (T', images, layers) u and error."""
    (file,) = (copied / "mnist_tiny" / "checkpoints").glob("*.calibration.npz")
    with np.load(file) as found:
        return {name: found[name].astype(np.float64) for name in ("timesteps", "u", "error")}


def open_page(page: Page, address: str, **link: object) -> None:
    query = urlencode({"run": "mnist_tiny", "trace": FULL, "b": CLOSED, **link})
    page.goto(f"{address}/uncertainty?{query}")
    wait_for_panels(page)


def wait_for_panels(page: Page) -> None:
    expect(page.locator(".st-key-plot-u-of-A .plot[data-drawn]")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".st-key-csv-reliability")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(page)


def bins_of(u: np.ndarray, error: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean u, mean error and count of the images of one timestep and layer, in bins of equally many."""
    parts = np.array_split(np.argsort(u), BINS)
    return [(u[part].mean(), error[part].mean(), len(part)) for part in parts]


def miss(u: np.ndarray, error: np.ndarray) -> float:
    return sum(count * abs(said - true) for said, true, count in bins_of(u, error)) / len(u)


def test_mean_u_is_that_of_the_samples_that_arrive(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)
    for letter, trace in (("A", FULL), ("B", CLOSED)):
        _, u = recorded(copied, trace)
        table = exported(tab, f"u-of-{letter}")
        count = (~np.isnan(u)).sum(axis=0)
        asked = count.ravel() > 0
        assert table["count"].tolist() == count.ravel().tolist()
        for column, statistic in (("mean_u", np.nanmean), ("deviation_of_u", np.nanstd)):
            expected = statistic(u.reshape(len(u), -1)[:, asked].astype(np.float64), axis=0)
            np.testing.assert_allclose(table[column][asked], expected, atol=1e-6, err_msg=column)
        assert table["mean_u"][~asked].isna().all()
        assert (len(set(count.ravel())) > 1) == (letter == "B")  # under a threshold, deep layers see fewer


def test_calibration_is_computed_from_the_file_beside_the_checkpoint(
    tab: Page, served: str, calibration: dict[str, np.ndarray]
) -> None:
    u, error = calibration["u"], calibration["error"]
    cells = list(np.ndindex(u.shape[0], u.shape[2]))
    ece = np.array([miss(u[t, :, i], error[t, :, i]) for t, i in cells])
    order = [pd.Series(u[t, :, i]).rank().corr(pd.Series(error[t, :, i]).rank()) for t, i in cells]
    open_page(tab, served, layer=LAYER)
    table = exported(tab, "calibration-ECE")
    assert table["timestep"].tolist() == [calibration["timesteps"][t] for t, _ in cells]
    assert table["layer"].tolist() == [i for _, i in cells]
    np.testing.assert_allclose(table["ece"], ece, atol=1e-6)
    np.testing.assert_allclose(table["rank_correlation"], order, atol=1e-6)
    title = tab.locator(".st-key-plot-reliability .plot").get_attribute("aria-label") or ""
    mine = [i == LAYER for _, i in cells]
    assert f"{ece[mine].mean():.3f}" in title
    assert f"{np.mean(np.array(order)[mine]):.2f}" in title
    assert round(ece[mine].mean(), 3) != round(ece.mean(), 3)


def test_reliability_follows_the_selected_timestep(
    tab: Page, served: str, copied: Path, calibration: dict[str, np.ndarray]
) -> None:
    t = meta_of(copied, FULL)["timesteps"][STEP]
    open_page(tab, served, t=t, **{"calibration t": "selected timestep"})
    table = exported(tab, "reliability")
    nearest = int(np.abs(calibration["timesteps"] - t).argmin())
    u, error = calibration["u"][nearest], calibration["error"][nearest]
    assert set(table["timestep"]) == {calibration["timesteps"][nearest]}
    expected = np.concatenate([bins_of(u[:, i], error[:, i]) for i in range(u.shape[1])])
    np.testing.assert_allclose(table[["predicted", "actual", "count"]], expected, atol=1e-6)


def test_its_address_reopens_the_page(tab: Page, served: str, copied: Path) -> None:
    t = meta_of(copied, FULL)["timesteps"][STEP]
    open_page(tab, served, t=t, layer=LAYER, more=f"mnist_tiny/{OTHER}")
    for control in (CURVES, MEASURE):
        tab.locator(f"{control} [role=radio]").nth(1).click()
        expect(tab.locator(f"{control} [role=radio]").nth(1)).to_have_attribute("aria-checked", "true")
        wait_until_drawn(tab)
    before = {name: exported(tab, name) for name in ("reliability", "u-over-layers")}
    link = reopened(tab)
    wait_for_panels(tab)
    assert tab.url == link
    for name, table in before.items():
        pd.testing.assert_frame_equal(exported(tab, name), table)
    for control in (CURVES, MEASURE):
        expect(tab.locator(f"{control} [role=radio]").nth(1)).to_have_attribute("aria-checked", "true")
    expect(tab.locator(".st-key-plot-calibration-rank-correlation")).to_be_visible()
    expect(tab.locator(".st-key-chosen-layer input")).to_have_value(str(LAYER))
    assert before["u-over-layers"]["model"].nunique() == 3
