"""The diffusion lens in a browser: click a cell, leave there, see both images, and reopen it by the address."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.analysis.trajectory import ExitChoice, follow, force_exit
from deediff.bench.browser import PATIENCE, wait_until_drawn
from deediff.checkpoints import load_checkpoint
from deediff.diffusion.schedule import Schedule
from tests.e2e.conftest import SHOTS, click_point, exported, hover_point, recorded, reopened
from tests.e2e.screen import source

TRACE, NUMBER = "ddim50-threshold-0.11", 3
PLOT = ".st-key-plot-diffusion-lens"

pytestmark = pytest.mark.e2e


def test_a_cell_is_chosen_and_its_exit_forced(tab: Page, served: str, copied: Path) -> None:
    exits, u = (values[NUMBER] for values in recorded(copied, TRACE))
    trace = deediff.read_trace(copied / "mnist_tiny" / "traces" / TRACE)
    tab.goto(f"{served}/sample?run=mnist_tiny&trace={TRACE}&sample={NUMBER}&sample_view=lens")
    tab.locator(f"{PLOT} .js-plotly-plot[data-drawn] .imagelayer image").wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    tab.screenshot(path=SHOTS / "lens.png")

    table = exported(tab, f"diffusion-lens-{NUMBER}")
    taken = table[table["taken"]]
    assert taken["exit_layer"].tolist() == exits[taken["step"]].tolist()
    known = taken[taken["exit_layer"] < u.shape[1]]
    np.testing.assert_allclose(known["uncertainty"], u[known["step"], known["exit_layer"]], atol=1e-4)
    assert (table[table["exit_layer"] == u.shape[1]]["rms_error"] == 0).all()

    steps = taken["step"].tolist()
    column, layer = 3, 5
    t, row = trace.timesteps[steps[column]], layer + 1  # above the row of the Gaussian
    assert f"timestep {t}" in hover_point(tab, PLOT, column, row)
    click_point(tab, PLOT, column, row)
    expect(tab).to_have_url(re.compile(rf"[?&]t={t}&.*layer={layer}(&|$)"), timeout=PATIENCE)
    wait_until_drawn(tab)
    button = tab.get_by_role("button", name=re.compile("^Leave here"))
    expect(button).to_have_text(f"Leave here: layer {layer}, by its head, at t = {t}", timeout=PATIENCE)

    tab.get_by_role("button", name="Play").first.click()
    expect(tab.locator(f"{PLOT} .playing")).to_have_count(1, timeout=PATIENCE)
    expect(tab.locator(".st-key-film-clock output")).not_to_have_text(f"t = {t}", timeout=PATIENCE)
    tab.get_by_role("button", name="Stop").first.click()
    expect(tab.locator(f"{PLOT} .playing")).to_have_count(0, timeout=PATIENCE)
    expect(tab).not_to_have_url(re.compile(rf"[?&]t={t}(&|$)"), timeout=PATIENCE)
    wait_until_drawn(tab)
    click_point(tab, PLOT, column, row)
    expect(button).to_contain_text(f"t = {t}", timeout=PATIENCE)
    wait_until_drawn(tab)

    button.click()
    model, info = load_checkpoint(copied / "mnist_tiny")
    trajectory = follow(trace, NUMBER, model, Schedule(**info["schedule"]))
    assert trajectory is not None
    other = force_exit(trajectory, steps[column], ExitChoice(layer))
    assert other is not None
    title = tab.get_by_text(f"Leaving by layer {layer}, by its head at t = {t} changes the image by")
    expect(title).to_be_visible(timeout=3 * PATIENCE)
    shown = float(re.findall(r"by ([\d.]+) grey", title.inner_text())[0])
    assert shown == pytest.approx(trajectory.distance(other), abs=0.1)
    costs = f"{trajectory.gflops.sum():.3f} → {other.gflops.sum():.3f} GFLOPs per image"
    expect(tab.get_by_text(costs)).to_be_visible()
    wait_until_drawn(tab)
    expect(tab.locator(".st-key-forced-images figure")).to_have_count(3)
    films = tab.locator(".st-key-forced-player figure")
    clock = tab.get_by_role("slider", name="Denoising time of every film")
    for key in ("Home", "End"):  # before the forced step the two films are equal
        clock.press(key)
        wait_until_drawn(tab)
        frame = int(clock.input_value())
        at = steps[frame]
        for film, side in zip((films.nth(0), films.nth(1)), (trajectory, other), strict=True):
            caption = f"t = {trace.timesteps[at]} · exit {side.exit_layers[at]}"
            expect(film.locator("figcaption")).to_have_text(caption, timeout=PATIENCE)
            assert np.abs(source(film.locator("img")) - side.film[at][0]).max() <= 2
    for place, side in enumerate((trajectory, other)):
        image = tab.locator(".st-key-forced-images figure img").nth(place)
        assert np.abs(source(image) - side.image[0]).max() <= 2
    click_point(tab, PLOT, column, row)
    expect(tab).to_have_url(re.compile(rf"[?&]t={t}&"), timeout=PATIENCE)
    wait_until_drawn(tab)
    tab.locator(".st-key-forced").scroll_into_view_if_needed()
    tab.screenshot(path=SHOTS / "lens-forced.png")
    assert f"forced={t}%3A{layer}%3Ahead" in reopened(tab)
    expect(title).to_be_visible(timeout=3 * PATIENCE)
