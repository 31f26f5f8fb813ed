"""*Sample live* in a browser: start, progress, cancel, keep; and two tabs at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import PATIENCE, SCRIPT, wait_until_drawn
from deediff.cost.components import model_cost
from tests.e2e.conftest import SHOTS
from tests.e2e.screen import check_divided

STEPS, IMAGES, BLOCKS = 6, 4, 13

pytestmark = pytest.mark.e2e


@contextmanager
def open_tab(tab: Page, served: str) -> Iterator[Page]:
    """*Sample live* in a tab of its own, closed at the end."""
    assert tab.context.browser is not None
    page = tab.context.browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.add_init_script(SCRIPT)
    try:
        page.goto(f"{served}/live?run=mnist_tiny&live+policy=threshold")
        expect(page.locator(".st-key-sample button")).to_be_enabled(timeout=3 * PATIENCE)  # the first one loads torch
        wait_until_drawn(page)
        yield page
    finally:
        page.close()


@pytest.fixture
def page(tab: Page, served: str) -> Iterator[Page]:
    with open_tab(tab, served) as page:
        yield page


def fill(page: Page, key: str, value: int) -> None:
    box = page.locator(f".st-key-live-{key} input")
    box.fill(str(value))
    box.press("Enter")
    wait_until_drawn(page)


def prepare(page: Page, steps: int, images: int, seed: int = 0) -> None:
    for key, value in (("steps", steps), ("images", images), ("seed", seed)):
        fill(page, key, value)


def sample(page: Page) -> None:
    page.locator(".st-key-sample button").click()


def done(page: Page, seed: int = 0) -> None:
    expect(page.get_by_text(f"{IMAGES} images of seed {seed},").last).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".st-key-live_figures").get_by_text("Layer ratio", exact=True)).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(page)


def on_screen(page: Page) -> tuple[str, list[str]]:
    """The layer ratio and the captions of the early-exit grid."""
    figures = page.locator(".st-key-live_figures [data-testid=stMetric]").filter(has_text="Layer ratio")
    captions = page.locator(".st-key-live-Early-exit figcaption")
    return figures.locator("[data-testid=stMetricValue]").inner_text(), captions.all_inner_texts()


def policy(page: Page) -> str:
    """The policy that the slider sets."""
    return f"threshold:{round(float(page.locator('.st-key-live-tau input').input_value()), 3):g}"


def counted(run: Path, policy: str, seed: int) -> tuple[str, list[str]]:
    """The same, from the library."""
    model = deediff.load(run)
    steps = list(deediff.sample(model, num_samples=IMAGES, policy=policy, steps=STEPS, seed=seed, batch_size=IMAGES))
    exits = np.stack([s.exit_layer.numpy() for s in steps], axis=1)  # (B, S)
    return f"{exits.mean() / BLOCKS:.3f}", [f"exits at {mean:.1f}" for mean in exits.mean(axis=1)]


def test_sampling_follows_the_slider_and_the_seed_key(page: Page, copied: Path) -> None:
    prepare(page, STEPS, IMAGES)
    sample(page)
    done(page)
    seen, before = [on_screen(page)], policy(page)
    assert seen[-1] == counted(copied / "mnist_tiny", before, 0)

    slider = page.locator(".st-key-live-tau input")
    slider.focus()
    for _ in range(6):
        slider.press("ArrowRight")  # live mode: releasing it samples
    assert policy(page) != before
    expect(page.get_by_text(f"Early exit, {policy(page)}", exact=True)).to_be_visible(timeout=PATIENCE)
    done(page)
    seen.append(on_screen(page))
    assert seen[-1] == counted(copied / "mnist_tiny", policy(page), 0)

    slider.blur()  # keys go to the page, not to the slider
    page.keyboard.press("n")
    done(page, seed=1)
    seen.append(on_screen(page))
    assert seen[-1] == counted(copied / "mnist_tiny", policy(page), 1)
    assert len({ratio for ratio, _ in seen}) == 3

    page.locator(".st-key-live-Early-exit canvas").first.hover()
    expect(page.locator(".st-key-live-Early-exit .tip")).to_contain_text(
        re.compile(r"t = \d+ \(step \d\): exit layer \d+")
    )
    page.screenshot(path=SHOTS / "live-followed.png")


def test_the_divider_parts_the_full_network_from_early_exit(page: Page, copied: Path) -> None:
    prepare(page, STEPS, IMAGES)
    page.get_by_role("radio", name="Wipe").click()
    sample(page)
    done(page)
    model, options = deediff.load(copied / "mnist_tiny"), {"num_samples": IMAGES, "steps": STEPS, "batch_size": IMAGES}
    full, early = (
        np.rint((list(deediff.sample(model, policy=which, **options))[-1].x[0, 0].clamp(-1, 1).numpy() + 1) * 127.5)
        for which in ("never", policy(page))
    )
    stacks = page.locator(".st-key-live-wipe .stack")
    expect(stacks).to_have_count(IMAGES)
    check_divided(stacks.first, full, early)
    page.locator(".st-key-live-tau input").blur()
    page.keyboard.press("f")
    check_divided(stacks.first, early, full)
    expect(page.locator(".st-key-live-wipe .left")).to_have_text(f"B: Early exit, {policy(page)}")
    page.screenshot(path=SHOTS / "live-wipe.png")


def test_a_long_title_moves_no_grid_and_a_budget_is_per_image(page: Page, copied: Path) -> None:
    page.goto(page.url.split("?")[0] + "?run=mnist_tiny&trace=ddim50-never-full&live+policy=budget&live+steps=6")
    slider = page.locator(".st-key-live-budget input").first
    slider.wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(page)
    sample(page)
    done(page)
    title = page.locator(".st-key-live_grids h2").nth(1).inner_text()
    asked = float(re.findall(r"budget of ([\d.]+) GFLOPs per image", title)[0])
    full = model_cost(deediff.load(copied / "mnist_tiny")).full * STEPS
    assert asked == pytest.approx(0.8 * full, rel=0.01)  # where the slider begins
    names = ("Full", "Early", "Difference")
    tops = [page.locator(f"[class*=st-key-live-{name}] figure").first.bounding_box() for name in names]
    assert len({round(box["y"]) for box in tops if box is not None}) == 1
    assert None not in tops
    cost = page.locator(".st-key-live_figures [data-testid=stMetric]").first
    spent = float(re.findall(r"→ ([\d.]+)", cost.inner_text())[0])
    said = page.get_by_text(re.compile("These images took"))
    assert said.count() == (spent > asked)


def test_progress_cancel_and_a_trace_that_is_kept(page: Page, copied: Path) -> None:
    prepare(page, 1000, 64)
    sample(page)
    expect(page.get_by_text(re.compile(r"step \d+ of 1000 · \d+ seconds left"))).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".st-key-sample button")).to_be_disabled()
    expect(page.locator(".st-key-live-Full-network figure")).to_have_count(64)  # already while they denoise
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(re.compile(r"Cancelled at step \d+ of 1000"))).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".st-key-sample button")).to_be_enabled(timeout=PATIENCE)

    prepare(page, STEPS, IMAGES, seed=5)
    done(page, seed=5)  # live mode again: the settings are quick
    page.get_by_text("Keep as a trace").click()
    page.get_by_label("Name").fill("kept")
    page.get_by_label("Name").press("Enter")
    wait_until_drawn(page)
    page.get_by_role("button", name="Save as a trace").click()
    expect(page.get_by_text(f"Saved {IMAGES} images as trace kept.")).to_be_visible(timeout=PATIENCE)
    trace = deediff.read_trace(copied / "mnist_tiny" / "traces" / "kept")
    ratio, captions = counted(copied / "mnist_tiny", policy(page), 5)
    assert f"{trace.exit_layers().mean() / BLOCKS:.3f}" == ratio
    assert on_screen(page) == (ratio, captions)
    page.get_by_role("button", name="Open as trace A").click()
    wait_until_drawn(page)
    assert "trace=kept" in page.url


def test_two_tabs_take_turns_and_do_not_disturb_each_other(tab: Page, served: str, copied: Path) -> None:
    with (
        open_tab(tab, served) as first,
        open_tab(tab, served) as second,
    ):
        prepare(first, 1000, 64)
        prepare(second, STEPS, IMAGES, seed=2)
        sample(first)
        expect(first.get_by_text(re.compile(r"step \d+ of 1000"))).to_be_visible(timeout=PATIENCE)
        sample(second)
        expect(second.get_by_text("Waiting: 1 job ahead on this device")).to_be_visible(timeout=PATIENCE)
        expect(second.get_by_text(re.compile(r"running \(another tab\): 64 images"))).to_be_visible(timeout=PATIENCE)
        second.get_by_role("button", name="Withdraw").click()
        expect(second.get_by_text("Cancelled at step 0")).to_be_visible(timeout=PATIENCE)
        wait_until_drawn(first)
        assert first.locator(".st-key-live-steps input").input_value() == "1000"

        second.locator(".st-key-sample button").click()
        expect(second.get_by_text("Waiting: 1 job ahead on this device")).to_be_visible(timeout=PATIENCE)
        first.get_by_role("button", name="Cancel").first.click()
        done(second, seed=2)
        assert on_screen(second) == counted(copied / "mnist_tiny", policy(second), 2)
        expect(first.get_by_text(re.compile(r"Cancelled at step \d+ of 1000"))).to_be_visible(timeout=PATIENCE)


def test_a_closed_tab_gives_its_device_back(tab: Page, served: str) -> None:
    with open_tab(tab, served) as first:
        prepare(first, 1000, 64)
        sample(first)
        expect(first.get_by_text(re.compile(r"step \d+ of 1000"))).to_be_visible(timeout=PATIENCE)
    with open_tab(tab, served) as second:
        prepare(second, STEPS, IMAGES)
        sample(second)
        done(second)  # long before the first job could have ended by itself
