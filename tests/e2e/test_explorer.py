"""The explorer as a person uses it: the real server, the shipped run, a real browser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

import deediff
from deediff.runs import Run, list_runs

REPO = Path(__file__).resolve().parents[2]
RUNS = Path(os.environ.get("DEEDIFF_RUNS") or REPO / "runs")
SHOTS = REPO / "test-output"
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
PATIENCE = 30_000  # milliseconds that one answer may take on a busy machine

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running explorer; its log must hold no traceback at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    options = ["--server.headless=true", f"--server.port={port}"]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", *options]
    environment = {**os.environ, "DEEDIFF_RUNS": str(RUNS)}
    with open(log, "w") as output:
        server = subprocess.Popen(command, cwd=REPO, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, log.read_text()
            time.sleep(0.25)
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """Chromium: the system's, else Playwright's own. Without either the test fails, it is not skipped."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("chromium-browser"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page(viewport={"width": 1440, "height": 900})
        browser.close()


def shipped() -> tuple[Run, deediff.Trace]:
    """The first run that can be sampled and holds a trace that answers every threshold."""
    for run in list_runs(RUNS)[0]:
        for folder in run.traces:
            trace = deediff.read_trace(folder)
            if run.checkpoints and trace.what_if_limit is not None and trace.what_if_limit[0] == 0:
                return run, trace
    raise AssertionError(f"{RUNS} holds no run with a checkpoint and a trace recorded with record=full")


def settled(page: Page) -> None:
    """Wait until the script has run, twice: a rerun may just be starting."""
    for _ in range(2):
        page.wait_for_selector(IDLE, timeout=PATIENCE)
        page.wait_for_timeout(200)


def figure(page: Page, where: str, label: str):
    """The value of a figure on screen; `where` is the key of the line it stands in."""
    metric = page.locator(f".st-key-{where} [data-testid=stMetric]").filter(has_text=re.compile(f"^{re.escape(label)}"))
    return metric.locator("[data-testid=stMetricValue]").first


def ratio_from_rows(trace: deediff.Trace, tau: float) -> float:
    """Mean exit layer / N at a threshold, counted from the recorded uncertainties."""
    total = count = 0
    for part in trace.parts:
        leaves = trace.uncertainty(part) <= np.float32(tau)  # (B, S, N)
        layers = np.where(leaves.any(axis=-1), leaves.argmax(axis=-1), trace.num_blocks)
        total, count = total + int(layers.sum()), count + layers.size
    return total / count / trace.num_blocks


def test_a_walk_through_the_explorer(page: Page, address: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    run, trace = shipped()
    page.goto(f"{address}/?run={run.name}&trace={trace.path.name}", timeout=PATIENCE)
    page.wait_for_selector(".js-plotly-plot", timeout=PATIENCE)
    settled(page)

    # The slider: the numbers move with it, and are those of the recorded uncertainties.
    slider = page.locator(".st-key-tau input")
    seen = {}
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):
        slider.focus()
        before = slider.input_value()
        for _ in range(6):
            slider.press(key)
        expect(slider).not_to_have_value(before)
        tau = round(float(slider.input_value()), 3)
        answer = trace.what_if(tau)
        expect(figure(page, "estimate", "Layer ratio")).to_have_text(f"{answer.layer_ratio:.3f}", timeout=PATIENCE)
        expect(figure(page, "estimate", "GFLOPs per step")).to_contain_text(f"{answer.gflops:.4g} (", timeout=PATIENCE)
        expect(page.locator(".st-key-estimate")).to_contain_text(f"τ = {tau:.3f}")
        assert answer.layer_ratio == pytest.approx(ratio_from_rows(trace, tau), abs=1e-12)
        seen[tau] = answer.layer_ratio
    assert len(seen) == 3
    assert len(set(seen.values())) > 1, f"the layer ratio did not move: {seen}"
    settled(page)
    page.wait_for_timeout(800)
    page.screenshot(path=SHOTS / "exit-trends.png")

    # Four images live: the layer ratio on screen is that of the library at the same seeds.
    page.get_by_role("link", name="Sample live").click()
    sample = page.get_by_role("button", name="Sample", exact=True)
    expect(sample).to_be_enabled(timeout=PATIENCE)
    settled(page)
    threshold = page.locator(".st-key-live-tau input").input_value()
    sample.click()
    expect(page.get_by_text("Seconds, measured", exact=True)).to_be_visible(timeout=60_000)
    settled(page)
    steps = list(deediff.sample(deediff.load(run.path), 4, f"threshold:{threshold}", "ddim", 20, seed=0, batch_size=4))
    ratio = float(np.mean([s.exit_layer.numpy() for s in steps])) / trace.num_blocks
    first_ratio = figure(page, "live_figures", "Layer ratio")
    expect(first_ratio).to_have_text(f"{ratio:.3f}")
    assert page.locator(".gallery figure").count() == 12  # four each: full network, early exit, difference
    page.wait_for_timeout(800)
    page.screenshot(path=SHOTS / "sample-live.png")

    # A bigger job can be cancelled, and leaves the page usable.
    page.locator(".st-key-live-steps input").fill("1000")
    page.locator(".st-key-live-steps input").press("Enter")
    settled(page)
    page.locator(".st-key-live-images input").fill("64")
    page.locator(".st-key-live-images input").press("Enter")
    settled(page)
    sample.click()
    expect(page.get_by_text(re.compile(r"step \d+ of 1000"))).to_be_visible(timeout=PATIENCE)
    expect(sample).to_be_disabled()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(re.compile(r"Cancelled at step \d+ of 1000"))).to_be_visible(timeout=PATIENCE)
    expect(sample).to_be_enabled(timeout=PATIENCE)

    for name in ("Uncertainty", "Images"):
        page.get_by_role("link", name=name).click()
        settled(page)
        page.wait_for_selector(".js-plotly-plot" if name == "Uncertainty" else ".gallery figure", timeout=PATIENCE)
        page.wait_for_timeout(800)
        page.screenshot(path=SHOTS / f"{name.lower()}.png")
    assert page.locator("[data-testid=stException]").count() == 0
