"""*Exit trends* and *Uncertainty* in a browser: clicks select, and the numbers are those of the rows."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import SHOTS, click_point, hover_point, shown

pytestmark = pytest.mark.e2e
FULL = "ddim50-never-full"
HEATMAP, MOMENT, UEMS = ".st-key-plot-exit-heatmap", ".st-key-plot-exits-at-one-timestep", ".st-key-plot-u-of-A"


def counted(trace: deediff.Trace, tau: float) -> np.ndarray:
    """(samples, steps) exit layers at a threshold, from the recorded uncertainties."""
    leaves = np.concatenate([trace.uncertainty(part) <= np.float32(tau) for part in trace.parts])  # (M, S, N)
    return np.where(leaves.any(axis=-1), leaves.argmax(axis=-1), trace.num_blocks)


def sees(page: Page, plot: str, x: float, y: float, text: str) -> None:
    """Hovering over a point shows this text, once Plotly has drawn it."""
    hover_point(page, plot, x, y)
    expect(page.locator(f"{plot} .hoverlayer").first).to_contain_text(text, timeout=PATIENCE)


@pytest.fixture(scope="module")
def trace(copied: Path) -> deediff.Trace:
    return deediff.read_trace(copied / "mnist_tiny" / "traces" / FULL)


def open_page(tab: Page, served: str, page: str = "trends", **link: object) -> None:
    query = "&".join(f"{key}={value}" for key, value in {"run": "mnist_tiny", "trace": FULL, **link}.items())
    tab.goto(f"{served}/{page}?{query}")
    tab.wait_for_selector(".plot[data-drawn]", timeout=PATIENCE)
    wait_until_drawn(tab)


def test_the_slider_moves_numbers_and_heatmap(tab: Page, served: str, trace: deediff.Trace) -> None:
    open_page(tab, served, tau=0.1)
    slider = tab.locator(".st-key-tau input")
    measured = deediff.read_trace(Path(str(trace.path)).with_name("ddim50-threshold-0.1")).exit_layers()
    seen = {}
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):
        slider.focus()
        before = slider.input_value()
        for _ in range(3):
            slider.press(key)
        expect(slider).not_to_have_value(before)
        wait_until_drawn(tab)  # the last press has arrived, too
        tau = round(float(slider.input_value()), 3)
        exits = counted(trace, tau)
        ratio, gflops = exits.mean() / trace.num_blocks, trace.what_if(tau).gflops
        expect(shown(tab, "estimate", "Layer ratio")).to_have_text(f"{ratio:.3f}", timeout=PATIENCE)
        expect(shown(tab, "estimate", "GFLOPs per image")).to_contain_text(f"{50 * gflops:.4g} (", timeout=PATIENCE)
        expect(tab.locator(".st-key-estimate")).to_contain_text(f"τ = {tau:.3f}")
        tab.wait_for_url(f"**tau={tau:g}*")
        wait_until_drawn(tab)
        drawn = measured if tau == 0.1 else exits  # where one was sampled at this threshold, its exits are drawn
        layer = int(np.bincount(drawn[:, 20]).argmax())  # the brightest cell of a column
        count = int((drawn[:, 20] == layer).sum())
        sees(tab, HEATMAP, trace.timesteps[20], layer, f"({count} of {len(exits):,} samples)")
        seen[tau] = ratio
    assert len(set(seen.values())) == 3, f"the layer ratio did not move: {seen}"
    tab.screenshot(path=SHOTS / "exit-trends.png")


def test_a_clicked_cell_is_selected_everywhere_and_its_link_reopens_it(
    tab: Page, served: str, trace: deediff.Trace
) -> None:
    open_page(tab, served, tau=0.105, t=trace.timesteps[25])
    cells = [(0, 3), (49, 13), (20, 12), (35, 0)]  # corners and the middle
    for step, layer in cells:
        timestep = trace.timesteps[step]
        click_point(tab, HEATMAP, timestep, layer)
        tab.wait_for_url(f"**t={timestep}&*layer={layer}*", timeout=PATIENCE)
        wait_until_drawn(tab)
        exits = counted(trace, 0.105)[:, step]
        top = int(np.bincount(exits, minlength=14).argmax())
        expect(tab.get_by_text(re.compile(f"[Aa]t t = {timestep}, "))).to_be_visible(timeout=PATIENCE)
        sees(tab, MOMENT, (exits == top).mean() / 2, top, f"{(exits == top).mean():.2%}")
    link = tab.url
    tab.get_by_role("link", name="Uncertainty").click()
    tab.wait_for_url("**/uncertainty?*layer=0*")
    wait_until_drawn(tab)
    assert f"A: t = {trace.timesteps[35]}" in tab.locator(".st-key-plot-u-over-layers").text_content()  # type: ignore[operator]
    tab.goto("about:blank")
    tab.goto(link)
    tab.wait_for_selector(".plot[data-drawn]", timeout=PATIENCE)
    wait_until_drawn(tab)
    assert tab.url == link
    expect(tab.locator(".st-key-chosen-layer input")).to_have_value("0")
    expect(tab.get_by_text(re.compile(f"[Aa]t t = {trace.timesteps[35]}, "))).to_be_visible(timeout=PATIENCE)


def test_the_browser_goes_back_to_what_was_selected_before(tab: Page, served: str, trace: deediff.Trace) -> None:
    open_page(tab, served, tau=0.105, t=trace.timesteps[25])
    for step in (10, 40):
        click_point(tab, HEATMAP, trace.timesteps[step], 3)
        tab.wait_for_url(f"**t={trace.timesteps[step]}&*", timeout=PATIENCE)
        wait_until_drawn(tab)
    tab.go_back()
    expect(tab.get_by_text(re.compile(f"[Aa]t t = {trace.timesteps[10]}, "))).to_be_visible(timeout=PATIENCE)


def test_the_csv_is_what_the_heatmap_shows(tab: Page, served: str, trace: deediff.Trace) -> None:
    open_page(tab, served, tau=0.105)
    with tab.expect_download(timeout=PATIENCE) as download:
        tab.locator(".st-key-csv-exit-heatmap button").first.click()
    assert download.value.suggested_filename == "exit-heatmap.csv"
    table = pd.read_csv(io.BytesIO(Path(download.value.path()).read_bytes()))
    expected = (counted(trace, 0.105)[:, :, None] == np.arange(14)).sum(axis=0)
    np.testing.assert_array_equal(table["count"].to_numpy().reshape(expected.shape), expected)
    np.testing.assert_allclose(table["probability"], table["count"] / trace.meta.num_samples)


def test_a_click_on_the_uncertainty_chooses_the_column_of_the_curves(
    tab: Page, served: str, trace: deediff.Trace
) -> None:
    open_page(tab, served, "uncertainty", b="ddim50-threshold-0.1")
    mean = np.concatenate([trace.uncertainty(part) for part in trace.parts]).mean(axis=0, dtype=np.float64)
    step, layer = 30, 8
    sees(tab, UEMS, trace.timesteps[step], layer, f"mean u = {mean[step, layer]:.4f} (1024 samples)")
    click_point(tab, UEMS, trace.timesteps[step], layer)
    tab.wait_for_url(f"**t={trace.timesteps[step]}&*layer={layer}*", timeout=PATIENCE)
    wait_until_drawn(tab)
    plot = ".st-key-plot-u-over-layers"
    sees(tab, plot, 5, mean[step, 5], f"mean u = {mean[step, 5]:.4f}")
    tab.screenshot(path=SHOTS / "uncertainty.png")


@pytest.mark.parametrize("width", [1440, 900])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off(width: int, scheme: str, tab: Page, served: str) -> None:
    tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    tab.set_viewport_size({"width": width, "height": 900})
    for page in ("trends", "uncertainty"):
        open_page(tab, served, page, b="ddim50-threshold-0.1")
        main = tab.locator("[data-testid=stMain]")
        assert main.evaluate("e => e.scrollWidth <= e.clientWidth"), "the page scrolls sideways"
        plots = tab.locator(".plot[data-drawn]")
        for k in range(plots.count()):
            assert plots.nth(k).evaluate("e => e.offsetWidth <= e.parentElement.offsetWidth + 1")
        look = "gd => [gd._fullLayout.font.color, gd._fullLayout.paper_bgcolor]"
        ink, paper = tab.locator(f"{UEMS if page == 'uncertainty' else HEATMAP} .plot").evaluate(look)
        assert luminance(ink) < luminance(paper) if scheme == "light" else luminance(ink) > luminance(paper)
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size({"width": 1440, "height": 900})


def luminance(color: str) -> float:
    """Of rgb(…) or #rrggbb, from 0 to 255."""
    if color.startswith("#"):
        return sum(int(color[k : k + 2], 16) for k in (1, 3, 5)) / 3
    return sum(float(x) for x in re.findall(r"[\d.]+", color)[:3]) / 3
