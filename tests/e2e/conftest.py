"""The explorer on a copy of the shipped run, which tests may change, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page

from deediff.bench.app import explorer
from deediff.bench.browser import open_browser
from tests.conftest import REPO

TRACES = ("ddim50-never", "ddim50-never-full", "ddim50-threshold-0.1", "ddim50-threshold-0.11")
SHOTS = REPO / "test-output"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with some traces of the shipped run."""
    root = tmp_path_factory.mktemp("runs")
    run = REPO / "runs" / "mnist_tiny"
    for name in ("checkpoints", *(f"traces/{trace}" for trace in TRACES)):
        shutil.copytree(run / name, root / "mnist_tiny" / name)
    for name in ("run.json", "metrics.parquet"):
        shutil.copy(run / name, root / "mnist_tiny" / name)
    return root


@pytest.fixture(scope="module")
def served(copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an explorer of that folder; its log must hold no traceback at the end."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with explorer(copied, log) as (_, address, _):
        yield address
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    """A browser's page. Without a browser the test fails, it is not skipped."""
    SHOTS.mkdir(exist_ok=True)
    with open_browser() as page:
        yield page
    assert page.is_closed()


def exported(page: Page, name: str) -> pd.DataFrame:
    """What the CSV button of this name hands out."""
    with page.expect_download() as download:
        page.locator(f".st-key-csv-{name} button >> visible=true").first.click()
    return pd.read_csv(download.value.path())


def click_point(page: Page, plot: str, x: float, y: float) -> None:
    """Click a point of a figure by its coordinates in the data."""
    where = _place(page, plot, x, y)
    page.mouse.click(*where)


def hover_point(page: Page, plot: str, x: float, y: float) -> str:
    """The text that a figure shows when the mouse is on a point."""
    where = _place(page, plot, x, y)
    page.mouse.move(where[0] - 3, where[1] - 3)
    page.mouse.move(*where)
    label = page.locator(f"{plot} .hoverlayer .hovertext").first
    label.wait_for()
    return label.text_content() or ""


def _place(page: Page, plot: str, x: float, y: float) -> tuple[float, float]:
    page.locator(plot).scroll_into_view_if_needed()
    found: list[float] = page.locator(f"{plot} .js-plotly-plot[data-drawn]").evaluate(
        """(gd, [x, y]) => {
          const {xaxis, yaxis} = gd._fullLayout, box = gd.getBoundingClientRect();
          return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    return found[0], found[1]
