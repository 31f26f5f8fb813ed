"""*Sample*: the recomputed path is the recorded one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import deediff
from tests.app.helpers import BLOCKS, EXITS, FULL, metric, open_app, sentences, shown_tiles, sort_images, titles


def open_sample(number: int, trace: str = EXITS) -> AppTest:
    """The page of a sample, after its recomputation."""
    app = open_app("sample", trace=trace, sample=str(number))
    for job in app.session_state["films"].values():
        job.join(60)
    return app.run()


@pytest.mark.parametrize("rows", [True, False])
def test_a_sample_shows_its_way_recomputed_from_its_seed(rows: bool, runs: Path) -> None:
    trace = deediff.read_trace(runs / "toy" / "traces" / EXITS)
    exits = trace.exit_layers()[4]
    assert 0 < (exits < BLOCKS).mean() < 1
    if not rows:
        for file in trace.path.glob("part-*.parquet"):
            file.unlink()
    app = open_sample(4)
    assert not app.exception
    assert not app.error
    assert metric(app, "Mean exit layer") == f"{exits.mean():.2f}"
    captions = [tile["caption"] for tile in shown_tiles(app, "film 1")]
    assert captions == [f"exit {layer}" for layer in exits]
    assert [tile["caption"] for tile in shown_tiles(app, "film 0")] == [f"t = {t}" for t in trace.timesteps]
    said = " ".join(caption.value for caption in app.caption)
    assert "final image within 0 grey levels" in said
    assert ("exits equal at 4 of 4 steps" in said) == rows
    left = exits[exits < BLOCKS]
    title = f"Early exit at {(exits < BLOCKS).mean():.0%} of the steps, after {left.mean():.1f} of {BLOCKS}"
    assert any(title in heading for heading in titles(app))


def test_next_and_previous_follow_the_order_of_the_images(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    order = [tile["number"] for tile in sort_images(app, "change")]
    app.number_input(key="chosen sample").set_value(order[0])
    app.switch_page("views/sample/page.py").run()
    assert app.button(key="Previous").disabled
    assert app.button(key="Next").proto.shortcut.lower() == "right"
    for number in order[1:]:
        app.button(key="Next").click().run()
        assert app.number_input(key="chosen sample").value == number
        assert f"Sample {number} of {EXITS}" in " ".join(element.value for element in app.markdown)
    assert app.button(key="Next").disabled
    app.button(key="Previous").click().run()
    assert app.number_input(key="chosen sample").value == order[-2]


def test_the_full_network_has_no_twin_to_be_compared_with(runs: Path) -> None:
    app = open_sample(2, FULL)
    assert not app.exception
    assert len(shown_tiles(app, "sample images")) == 1
    assert not any(m.label in ("Change", "PSNR", "SSIM") for m in app.metric)


def test_a_film_of_other_weights_is_refused_in_a_sentence(runs: Path) -> None:
    checkpoint = runs / "toy" / "checkpoints" / "100.json"
    sha = deediff.read_trace(runs / "toy" / "traces" / EXITS).meta.checkpoint_sha256
    checkpoint.write_text(checkpoint.read_text().replace(sha, "0" * 64))
    app = open_app("sample", trace=EXITS, sample="1")
    assert not app.exception
    assert "not among the run's checkpoints" in sentences(app)
    assert metric(app, "Mean exit layer")  # the rest of the page stays


def test_a_sample_of_an_empty_or_damaged_trace_is_a_sentence(runs: Path) -> None:
    (runs / "toy" / "traces" / EXITS / "samples-00001.parquet").write_bytes(b"nonsense")  # samples 3 – 5
    app = open_app("sample", trace=EXITS, sample="4")
    assert not app.exception
    assert "samples-00001.parquet is truncated" in sentences(app)
    shutil.rmtree(runs / "toy" / "traces")
    app = open_app("sample")
    assert f"deediff sample {runs / 'toy'} --policy threshold:0.1" in app.code[0].value
