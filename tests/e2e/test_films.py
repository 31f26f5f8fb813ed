"""Films and images of equal seed in a browser: one clock plays them all, one divider shows two of them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.conftest import sample_trace
from tests.e2e.conftest import SHOTS
from tests.e2e.screen import check_divided, grey, source

A, B, NUMBER = "ddim50-threshold-0.11", "ddim50-never", 3
STACK = ".st-key-images-wipe .stack"
OF_PAIR = f"run=mnist_tiny&trace={A}&b={B}"

pytestmark = pytest.mark.e2e


def stored(root: Path, trace: str, number: int) -> np.ndarray:
    """(H,W) the image in the trace."""
    return grey(deediff.read_trace(root / "mnist_tiny" / "traces" / trace).samples([number])["png"].iloc[0])


def test_the_divider_shows_a_on_its_left_and_b_on_its_right(tab: Page, served: str, copied: Path) -> None:
    tab.goto(f"{served}/images?{OF_PAIR}&size=20&images_as=wipe")
    tab.locator(STACK).first.wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    number = int(tab.locator(f"{STACK} + figcaption").first.inner_text())
    a, b = stored(copied, A, number), stored(copied, B, number)
    stack = tab.locator(STACK).first
    check_divided(stack, a, b)
    box = stack.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 0.5 * box["width"], middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=3)
    tab.mouse.up()
    check_divided(stack, a, b, 0.8)
    tab.keyboard.press("f")
    check_divided(stack, b, a, 0.8)
    expect(tab.locator(".st-key-images-wipe .left")).to_have_text(re.compile("^B: "))
    divider = tab.get_by_role("slider", name="Divider")
    before = int(divider.input_value())
    divider.press("ArrowLeft")
    assert int(divider.input_value()) == before - 1
    tab.screenshot(path=SHOTS / "wipe.png")

    tab.get_by_role("radio", name="Side by side").click()
    expect(tab.locator(".st-key-images-A figure").first).to_be_visible(timeout=PATIENCE)
    expect(tab).not_to_have_url(re.compile("images_as"), timeout=PATIENCE)
    tab.go_back()
    expect(tab.locator(STACK).first).to_be_visible(timeout=PATIENCE)


def test_one_button_plays_every_film_at_the_same_time(tab: Page, served: str) -> None:
    tab.goto(f"{served}/sample?{OF_PAIR}&sample={NUMBER}&t=999")
    films = tab.locator(".st-key-film-player figcaption")
    films.first.wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    assert films.count() == 4  # A, the full network, B, and A's x_t
    play = tab.get_by_role("button", name="Play")
    assert play.count() == 1
    before = films.first.inner_text()
    play.click()
    expect(films.first).not_to_have_text(before, timeout=PATIENCE)
    seen = films.evaluate_all("all => all.map(caption => caption.textContent.match(/t = \\d+/)[0])")
    assert len(set(seen)) == 1
    assert seen[0] == tab.locator(".st-key-film-clock output").inner_text()
    tab.get_by_role("button", name="Stop").click()
    expect(tab).not_to_have_url(re.compile(r"[?&]t=999(&|$)"), timeout=PATIENCE)


@pytest.fixture
def few_steps(copied: Path) -> tuple[deediff.Trace, deediff.Trace]:
    """Traces of equal noise with 6 and 12 steps."""
    run = copied / "mnist_tiny"
    options = {"num_samples": 4, "batch_size": 4}
    names = {f"few-{steps}": steps for steps in (6, 12)}
    for name, steps in names.items():
        if not (run / "traces" / name).exists():
            sample_trace(run, run / "traces" / name, policy="threshold:0.12", steps=steps, **options)
    a, b = (deediff.read_trace(run / "traces" / name) for name in names)
    return a, b


def test_films_of_six_and_twelve_steps_show_the_same_time(
    tab: Page, served: str, copied: Path, few_steps: tuple[deediff.Trace, deediff.Trace]
) -> None:
    model, expected = deediff.load(copied / "mnist_tiny"), []
    for trace in few_steps:
        settings = {"policy": "threshold:0.12", "steps": len(trace.timesteps), "num_samples": 4, "batch_size": 4}
        steps = list(deediff.sample(model, **settings))
        frames = [np.rint((step.x0[NUMBER, 0].clamp(-1, 1).numpy() + 1) * 127.5).astype(int) for step in steps]
        expected.append((trace.timesteps, frames, trace.exit_layers()[NUMBER]))
    tab.goto(f"{served}/sample?run=mnist_tiny&trace=few-6&b=few-12&sample={NUMBER}")
    films = tab.locator(".st-key-film-player figure")
    expect(films.nth(3)).to_be_visible(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    clock = tab.get_by_role("slider", name="Denoising time of every film")
    times = few_steps[1].timesteps
    assert int(clock.get_attribute("max") or 0) == len(times) - 1  # every frame of the longer film
    clock.press("Home")
    for place, t in enumerate(times):
        expect(tab.locator(".st-key-film-clock output")).to_have_text(f"t = {t}")
        for film, (timesteps, frames, exits) in zip((films.nth(0), films.nth(2)), expected, strict=True):
            step = min(range(len(timesteps)), key=lambda k: abs(timesteps[k] - t))
            expect(film.locator("figcaption")).to_have_text(f"t = {timesteps[step]} · exit {exits[step]}")
            assert np.abs(source(film.locator("img")) - frames[step]).max() <= 2
        if place < len(times) - 1:
            clock.evaluate("range => { range.stepUp(); range.dispatchEvent(new Event('input')); }")
