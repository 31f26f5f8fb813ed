"""*Method* in a browser: clicks select layers and timesteps, and the numbers are the model's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import wait_until_drawn
from deediff.diffusion.schedule import Schedule
from tests.e2e.conftest import SHOTS, click_point, hover_point

pytestmark = pytest.mark.e2e
NETWORK = ".st-key-plot-network"
TIMESTEP, SAMPLE = 499, 3


def by_hand(root: Path) -> torch.Tensor:
    """(N,) u of the sample at the timestep."""
    import io

    import numpy as np
    from PIL import Image

    png = deediff.read_trace(root / "mnist_tiny" / "traces" / "ddim50-never-full").samples(range(SAMPLE, SAMPLE + 1))
    x0 = torch.from_numpy(np.array(Image.open(io.BytesIO(png["png"].iloc[0])))).float()[None, None] / 127.5 - 1
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(SAMPLE))
    t = torch.tensor([TIMESTEP])
    _, u = deediff.load(root / "mnist_tiny").all_exits(Schedule().add_noise(x0, t, noise), t)
    return u[:, 0]


def test_clicks_choose_the_exit_and_the_timestep(tab: Page, served: str, copied: Path) -> None:
    u = by_hand(copied)
    link = f"run=mnist_tiny&trace=ddim50-never-full&t={TIMESTEP}&sample={SAMPLE}&tau=0.1"
    tab.goto(f"{served}/method?{link}")
    expect(tab.locator(NETWORK)).to_be_visible(timeout=60_000)
    wait_until_drawn(tab)
    leaves = int((u <= 0.1).nonzero()[0])
    expect(tab.get_by_text(f"This image exits after {leaves} of 13 blocks")).to_be_visible()
    assert f"UEM 5: u = {u[5]:.4f}" in hover_point(tab, NETWORK, 5, 1)
    click_point(tab, NETWORK, 5, 1)
    tab.wait_for_url("**layer=5*")
    expect(tab.get_by_text("prediction of exit 5")).to_be_visible()
    expect(tab.get_by_text(f"UEM: u = {u[5]:.3f}")).to_be_visible()
    tab.get_by_text("t = 714", exact=True).locator("xpath=..").locator("img").click()
    tab.wait_for_url("**t=719*")  # the trace's nearest timestep
    expect(tab.get_by_text("At t = 719, the second image is the input")).to_be_visible()
    wait_until_drawn(tab)
    tab.screenshot(path=SHOTS / "method.png", full_page=True)
