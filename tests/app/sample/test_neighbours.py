"""*Neighbours* on *Sample*: the nearest images, and what is said where the training images are missing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import deediff
from app.views.sample.neighbours import finding
from deediff.analysis.neighbours import embed_trace, extractor_for
from deediff.json_files import read_json, write_json
from tests.app.helpers import EXITS, SAMPLES, open_app, sentences, shown_tiles, titles

GREY = (1, 32)


def neighbours(number: int, **link: str) -> AppTest:
    return open_app("sample", trace=EXITS, sample=str(number), sample_view="near", **link)


def trained_on(runs: Path, name: str) -> None:
    file = runs / "toy" / "run.json"
    write_json(file, read_json(file) | {"dataset": name})


def counted(runs: Path, number: int) -> list[tuple[float, int]]:
    """(distance, sample) of the other samples, ascending."""
    images = embed_trace(deediff.read_trace(runs / "toy" / "traces" / EXITS), extractor_for(GREY))
    features = dict(zip(images.numbers.tolist(), images.features.tolist(), strict=True))
    return sorted((math.dist(features[number], other), k) for k, other in features.items() if k != number)


def test_generated_images_come_nearest_first_and_without_training_images_a_sentence(runs: Path) -> None:
    app = neighbours(2)
    tiles, expected = shown_tiles(app, "generated neighbours"), counted(runs, 2)
    assert [tile["number"] for tile in tiles] == [2, *(number for _, number in expected)]
    assert [tile["caption"] for tile in tiles[1:]] == [f"{number} · {distance:.3g}" for distance, number in expected]
    assert "toy names no training images that are here: only generated ones are compared" in sentences(app)
    assert f"The nearest of {SAMPLES - 1} other generated images is at {expected[0][0]:.3g}" in " ".join(titles(app))


def test_missing_training_images_are_named_with_their_place(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on(runs, "mnist")
    monkeypatch.setattr("deediff.datasets.DEFAULT_ROOT", runs / "no data")
    app = neighbours(1)
    assert "The training images are not on this machine: mnist was not found in" in sentences(app)
    assert "the nearest are given by number alone" in sentences(app)
    assert len(shown_tiles(app, "generated neighbours")) == SAMPLES
    assert "The nearest of 10,000 of the 60,000 images of mnist-train" in " ".join(c.value for c in app.caption)


def test_training_images_of_a_folder_are_shown(runs: Path) -> None:
    folder = runs / "real"
    folder.mkdir()
    trace = deediff.read_trace(runs / "toy" / "traces" / EXITS)
    for place, number in enumerate((4, 1)):
        (folder / f"{place}.png").write_bytes(trace.samples([number])["png"].iloc[0])
    trained_on(runs, str(folder))
    app = neighbours(1)
    real = shown_tiles(app, "real neighbours")
    assert [tile["caption"].split(" · ")[0] for tile in real] == ["1", "0"]
    assert float(real[0]["caption"].split(" · ")[1]) == pytest.approx(0, abs=1e-3)
    assert app.query_params["neighbours_all"] == "True"  # nothing of a folder is shipped


def test_the_finding_compares_with_held_out_images() -> None:
    held_out = np.linspace(1, 2, 1000)
    assert finding(0.5, None, held_out) == (
        "The nearest training image is at 0.5: suspiciously near, 0% of test images have a nearer one"
    )
    assert "no sign of memorisation, 50% of test images" in finding(1.5, 3.0, held_out)
    assert finding(1.5, 3.0, np.zeros(0)) == "The nearest training image is at 1.5, the nearest generated one at 3"
