"""The explorer on a copy of the shipped run, which tests may change, and a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Locator, Page

from deediff.bench.app import explorer
from deediff.bench.browser import open_browser, wait_until_drawn
from tests.conftest import REPO, set_dates

TRACES = ("ddim50-never", "ddim50-never-full", "ddim50-threshold-0.1", "ddim50-threshold-0.11")
SHOTS = REPO / "test-output"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with some traces of the shipped run."""
    root = tmp_path_factory.mktemp("runs")
    run = REPO / "runs" / "mnist_tiny"
    for name in ("checkpoints", "plans", *(f"traces/{trace}" for trace in TRACES)):
        shutil.copytree(run / name, root / "mnist_tiny" / name)
    for name in ("run.json", "metrics.parquet", "front.json"):
        shutil.copy(run / name, root / "mnist_tiny" / name)
    set_dates(root)
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


def meta_of(root: Path, trace: str) -> dict[str, Any]:
    """The content of trace.json."""
    found: dict[str, Any] = json.loads((root / "mnist_tiny" / "traces" / trace / "trace.json").read_text())
    return found


def recorded(root: Path, trace: str) -> tuple[np.ndarray, np.ndarray]:
    """(samples, steps) exit layers and (samples, steps, layers) u, from the rows."""
    meta = meta_of(root, trace)
    rows = pq.read_table(sorted((root / "mnist_tiny" / "traces" / trace).glob("part-*.parquet")))
    rows = rows.sort_by([("sample", "ascending"), ("step", "ascending")])
    exits = rows["exit_layer"].to_numpy().reshape(meta["num_samples"], len(meta["timesteps"]))
    u = rows["uncertainty"].combine_chunks().flatten().to_numpy()
    return exits.astype(int), u.reshape(*exits.shape, meta["num_blocks"])


def leaving(u: np.ndarray, tau: float) -> np.ndarray:
    """(…) exit layers at a threshold, from u (…, layers): the first that is at most τ, else all blocks are run."""
    sure = u <= np.float32(tau)
    return np.where(sure.any(axis=-1), sure.argmax(axis=-1), u.shape[-1])


def prices(root: Path, trace: str, asked: bool) -> np.ndarray:
    """(layers + 1,) GFLOPs of each exit, from the components in trace.json; with UEMs where they are evaluated."""
    cost = meta_of(root, trace)["cost"]
    ends = [*cost["heads"], cost["decode"]]
    run = [cost["embed"] + sum(cost["blocks"][:i]) + asked * sum(cost["uems"][: i + 1]) for i in range(len(ends))]
    return np.array(run) + ends


def shown(page: Page, where: str, label: str) -> Locator:
    """The value of a figure on screen; `where` is the key of its container."""
    metric = page.locator(f".st-key-{where} [data-testid=stMetric]").filter(has_text=re.compile(f"^{re.escape(label)}"))
    return metric.locator("[data-testid=stMetricValue]").first


def drawn(page: Page, plot: str) -> list[dict[str, Any]]:
    """The data of a figure on screen."""
    found: list[dict[str, Any]] = page.locator(f"{plot} .js-plotly-plot[data-drawn]").evaluate("gd => gd.data")
    return found


def reopened(page: Page) -> str:
    """Open the page's address in a new tab; returns the address."""
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    return link


def exported(page: Page, name: str) -> pd.DataFrame:
    """The download of the CSV button of this name."""
    button = page.locator(f".st-key-csv-{name} button >> visible=true").first
    button.wait_for()
    wait_until_drawn(page)  # a run of the script would remove the download
    with page.expect_download() as download:
        button.click()
    return pd.read_csv(download.value.path())


def click_point(page: Page, plot: str, x: float, y: float) -> None:
    """Click a point of a figure by its coordinates in the data."""
    where = place(page, plot, x, y)
    page.mouse.click(*where)


def hover_point(page: Page, plot: str, x: float, y: float) -> str:
    """The text that a figure shows when the mouse is on a point."""
    where = place(page, plot, x, y)
    page.mouse.move(where[0] - 3, where[1] - 3)
    page.mouse.move(*where)
    label = page.locator(f"{plot} .hoverlayer .hovertext").first
    label.wait_for()
    return label.text_content() or ""


def place(page: Page, plot: str, x: float, y: float) -> tuple[float, float]:
    """Where a point of a figure is on screen."""
    page.locator(plot).scroll_into_view_if_needed()
    found: list[float] = page.locator(f"{plot} .js-plotly-plot[data-drawn]").evaluate(
        """(gd, [x, y]) => {
          const {xaxis, yaxis} = gd._fullLayout, box = gd.getBoundingClientRect();
          return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [x, y],
    )
    return found[0], found[1]
