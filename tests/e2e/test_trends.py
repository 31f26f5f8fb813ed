"""*Exit trends* in a browser: estimates, budgets, variance and all tables are those of the rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import exported, leaving, meta_of, prices, recorded, shown

pytestmark = pytest.mark.e2e
FULL, CLOSED = "ddim50-never-full", "ddim50-threshold-0.1"
TAU, STEP, BLOCKS = 0.1, 30, 13
UNMEASURED = 0.105  # no trace was sampled at this threshold, so that the estimate is on screen


@pytest.fixture(scope="module")
def u(copied: Path) -> np.ndarray:
    return recorded(copied, FULL)[1]


def open_page(page: Page, address: str, **link: object) -> None:
    query = "&".join(f"{key}={value}" for key, value in {"run": "mnist_tiny", "trace": FULL, **link}.items())
    page.goto(f"{address}/trends?{query}")
    page.wait_for_selector(".plot[data-drawn]", timeout=PATIENCE)
    wait_until_drawn(page)


@pytest.mark.parametrize("tau", [0.1, 0.11])
def test_the_estimate_stands_beside_what_was_measured_there(
    tau: float, tab: Page, served: str, copied: Path, u: np.ndarray
) -> None:
    estimated = leaving(u, tau).mean() / BLOCKS
    measured = recorded(copied, f"ddim50-threshold-{tau:g}")[0].mean() / BLOCKS
    open_page(tab, served, tau=tau)
    expect(shown(tab, "estimate", "Layer ratio")).to_have_text(f"{estimated:.3f}")
    expect(shown(tab, "estimate", "Closest measured")).to_have_text(f"{measured:.3f} (τ = {tau:g})")
    difference = f"{estimated - measured:+.3f}".replace("-", "−")
    expect(shown(tab, "estimate", "Estimate − measured")).to_have_text(difference)


def test_a_measurement_elsewhere_is_not_subtracted(tab: Page, served: str, copied: Path, u: np.ndarray) -> None:
    open_page(tab, served, tau=0.09)
    measured = recorded(copied, CLOSED)[0].mean() / BLOCKS
    expect(shown(tab, "estimate", "Layer ratio")).to_have_text(f"{leaving(u, 0.09).mean() / BLOCKS:.3f}")
    expect(shown(tab, "estimate", "Closest measured")).to_have_text(f"{measured:.3f} (τ = 0.1)")
    expect(shown(tab, "estimate", "Estimate − measured")).to_have_count(0)


def test_a_budget_moves_the_slider_to_the_smallest_threshold_within_it(
    tab: Page, served: str, copied: Path, u: np.ndarray
) -> None:
    price = prices(copied, FULL, asked=True)
    costs = {round(k * 0.005, 3): float(price[leaving(u, k * 0.005)].sum(axis=1).mean()) for k in range(201)}
    open_page(tab, served, tau=0.5)
    box, slider = tab.locator(".st-key-budget input"), tab.locator(".st-key-tau input")
    chosen = set()
    for budget in (14.5, 18.0):
        tau = min(tau for tau, cost in costs.items() if cost <= budget)
        box.fill(str(budget))
        box.press("Enter")
        button = tab.locator(".st-key-use-budget button >> visible=true").first
        expect(button).to_contain_text(f"{tau:.3f}", timeout=PATIENCE)
        button.click()
        tab.wait_for_url(f"**tau={tau:g}&*", timeout=PATIENCE)
        wait_until_drawn(tab)
        assert float(slider.input_value()) == pytest.approx(tau)
        expect(shown(tab, "estimate", "GFLOPs per image")).to_contain_text(f"{costs[tau]:.4g} (")
        chosen.add(tau)
    assert len(chosen) == 2
    box.fill("0.0001")
    box.press("Enter")
    expect(tab.locator(".st-key-estimate")).to_contain_text(f"{costs[1.0]:.4g}", timeout=PATIENCE)
    expect(tab.locator(".st-key-use-budget")).to_have_count(0)
    assert float(slider.input_value()) == pytest.approx(tau)


def shares(exits: np.ndarray) -> list[float]:
    """Of timestep, sample and rest: sums of squares of the two-way layout (samples, steps), without their noise."""
    samples, steps = exits.shape
    by_step, by_sample, mean = exits.mean(axis=0), exits.mean(axis=1), exits.mean()
    rest = exits - by_step - by_sample[:, None] + mean
    noise = (rest**2).sum() / (samples - 1) / (steps - 1)
    between = ((by_step - mean) ** 2).mean() - noise * (steps - 1) / steps / samples
    own = ((by_sample - mean) ** 2).sum() / (samples - 1) - noise / steps
    return [part / (between + own + noise) for part in (between, own, noise)]


def test_the_variance_is_split_as_the_rows_split_it(tab: Page, served: str, copied: Path, u: np.ndarray) -> None:
    open_page(tab, served, tau=TAU, b=CLOSED)
    table = exported(tab, "variance").pivot(index="trace", columns="share", values="value")
    estimated, measured = shares(leaving(u, TAU)), shares(recorded(copied, CLOSED)[0])
    found = table.sort_index()[["timestep", "sample", "rest"]].to_numpy()  # A, then B
    np.testing.assert_allclose(found, [estimated, measured], atol=1e-9)
    assert abs(estimated[0] - measured[0]) > 0.01
    title = tab.locator(".st-key-plot-variance .plot")
    expect(title).to_have_attribute("aria-label", re.compile(f" {estimated[0]:.0%} "))


def test_the_tables_of_depth_and_spread_are_counted(tab: Page, served: str, copied: Path, u: np.ndarray) -> None:
    times, exits = meta_of(copied, FULL)["timesteps"], leaving(u, UNMEASURED)
    open_page(tab, served, tau=UNMEASURED, t=times[STEP])
    expect(tab.locator(".st-key-csv-variance")).to_be_visible(timeout=PATIENCE)  # drawn last, after a pause
    inside = exported(tab, "still-inside")
    arriving = exits[:, :, None] >= np.arange(BLOCKS + 1)
    np.testing.assert_allclose(inside["arriving_all_timesteps"], arriving.mean(axis=(0, 1)))
    np.testing.assert_allclose(inside[f"arriving_t_{times[STEP]}"], arriving[:, STEP].mean(axis=0))
    spread = exported(tab, "spread-between-samples")
    assert spread["timestep"].tolist() == times
    for name, share in (("p05", 0.05), ("p25", 0.25), ("median", 0.5), ("p75", 0.75), ("p95", 0.95)):
        expected = np.quantile(exits, share, axis=0, method="inverted_cdf")
        np.testing.assert_array_equal(spread[name], expected, name)
    np.testing.assert_allclose(spread["standard_deviation"], exits.std(axis=0), atol=1e-9)


def test_the_table_of_open_and_closed_loop_is_counted(tab: Page, served: str, copied: Path, u: np.ndarray) -> None:
    open_page(tab, served, tau=0.095)  # the closest measurement counts, not the slider
    table = exported(tab, "open-and-closed-loop")
    estimated, measured = leaving(u, TAU).mean(axis=0), recorded(copied, CLOSED)[0].mean(axis=0)
    assert table["timestep"].tolist() == meta_of(copied, FULL)["timesteps"]
    np.testing.assert_allclose(table["estimated"], estimated)
    np.testing.assert_allclose(table["measured"], measured)
    np.testing.assert_allclose(table["difference"], estimated - measured, atol=1e-9)
