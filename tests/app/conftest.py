from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from app.widgets import panels, waiting
from tests.app.helpers import EXITS, FULL, SAMPLES, STEPS, write_run
from tests.conftest import sample_trace, set_dates


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with one run and two traces; tests that damage something copy it first."""
    root = tmp_path_factory.mktemp("runs")
    run = write_run(root / "toy")
    for name, policy, record in ((FULL, "never", "full"), (EXITS, "threshold:0.1", "exit")):
        sample_trace(run, run / "traces" / name, SAMPLES, policy, "ddim", STEPS, batch_size=3, record=record)  # type: ignore[arg-type]
    set_dates(root)
    return root


@pytest.fixture
def runs(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs folder that the app is pointed at."""
    root = tmp_path / "runs"
    shutil.copytree(shipped, root)
    monkeypatch.setenv("DEEDIFF_RUNS", str(root))
    monkeypatch.setattr(waiting, "QUIET", 0)  # no browser, no timer
    return root


@pytest.fixture
def tables(runs: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, pd.DataFrame]:
    """Downloads of the page's CSV buttons, by panel."""
    found: dict[str, pd.DataFrame] = {}

    def keep(table: Callable[[], pd.DataFrame], name: str) -> None:
        found[name] = table()

    monkeypatch.setattr(panels, "download", keep)
    return found
