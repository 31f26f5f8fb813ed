"""A run copied without weights, rows and most images: each page names the missing files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import deediff
from tests.app.helpers import EXITS, FULL, SAMPLES, open_app, sentences, shown_tiles

SAID = {
    "runs": [],
    "trends": ["sample it again"],
    "live": ["so nothing can be sampled from it", "Copy its weights into", "or choose a run that has some: other"],
    "uncertainty": ["so there are no UEMs to calibrate", "once its weights are in"],
    "images": [],
    "sample": ["the exit layers are stored nowhere else", "No film: the weights", "Copy them, with their .json"],
    "compare": [],
    "method": ["so there is no model to draw the method from", "or choose a run that has some: other"],
}


@pytest.fixture
def bare(runs: Path) -> Path:
    """The run; beside it, `other` has weights."""
    shutil.copytree(runs / "toy", runs / "other")
    shutil.rmtree(runs / "toy" / "checkpoints")
    for trace in (EXITS, FULL):
        for file in (runs / "toy" / "traces" / trace).glob("*-*.parquet"):
            if file.name != "samples-00000.parquet":
                file.unlink()
    return runs / "toy"


@pytest.mark.parametrize("trace", [EXITS, FULL])
@pytest.mark.parametrize("page", SAID)
def test_each_page_says_what_is_missing_and_what_to_do(page: str, trace: str, bare: Path) -> None:
    app = open_app(page, run="toy", trace=trace, sample="1")
    assert not app.exception
    assert not app.error
    for sentence in SAID[page]:
        assert sentence in sentences(app)


def test_the_grid_holds_the_images_that_are_there(bare: Path) -> None:
    there = sorted(deediff.read_trace(bare / "traces" / EXITS).samples(range(SAMPLES))["sample"])
    assert len(there) == SAMPLES // 2
    app = open_app("images", run="toy", trace=EXITS)
    assert sorted(tile["number"] for tile in shown_tiles(app, "images A")) == there
    assert any(f"{len(there)} of its {SAMPLES} images are here" in caption.value for caption in app.caption)
    app.selectbox(key="order").set_value("change").run()
    assert sorted(tile["number"] for tile in shown_tiles(app, "images A")) == there


def test_a_sample_whose_image_was_not_handed_on_promises_no_film(bare: Path) -> None:
    app = open_app("sample", run="toy", trace=EXITS, sample=str(SAMPLES - 1))
    assert not app.exception
    assert f"The image of sample {SAMPLES - 1} is not stored: it was not recorded" in sentences(app)
    assert not any("below" in text for text in [sentences(app), *(caption.value for caption in app.caption)])
