"""*Images* and *Sample*: sorted by what the trace holds, and a sample's way is that of its rows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import deediff
from deediff.quality.pairs import image_distances
from tests.app.helpers import BLOCKS, EXITS, FULL, SAMPLES, in_the_link, metric, open_app, sentences, shown_tiles


def sort(app: AppTest, name: str, reverse: bool = False) -> list[dict]:
    """The tiles of trace A in this order."""
    app.selectbox(key="order").set_value(name)
    app.toggle(key="reverse").set_value(reverse).run()
    assert not app.exception
    return shown_tiles(app, "images A")


def test_images_show_every_sample_with_its_mean_exit_layer(runs: Path) -> None:
    app = open_app("images", trace=EXITS, b=FULL)
    layers = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    hovers = [tile["hover"] for tile in shown_tiles(app, "images A")]
    assert hovers == [f"sample {k}, mean exit layer {mean:.3f}" for k, mean in enumerate(layers.mean(axis=1))]
    assert [tile["number"] for tile in shown_tiles(app, "images B")] == list(range(SAMPLES))


def test_images_are_sorted_by_what_the_trace_holds(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    trace, full = (deediff.read_trace(runs / "toy" / "traces" / name) for name in (EXITS, FULL))
    layers, table = trace.exit_layers(), image_distances(trace, full)
    rows = trace.to_pandas()
    at_exit = [u[min(i, BLOCKS - 1)] for u, i in zip(rows["uncertainty"], rows["exit_layer"], strict=True)]
    u = np.reshape(at_exit, (SAMPLES, -1)).mean(axis=1)
    gflops = trace.cost.at_exit(with_uem=True)[layers].mean(axis=1)
    for name, values, text, first in (
        ("exit", layers.mean(axis=1), "{:.1f}", "least"),
        ("gflops", gflops, "{:.4g}", "least"),
        ("u", u, "{:.4f}", "most"),
        ("change", table["change"].to_numpy(), "{:.1f}", "most"),
        ("psnr", table["psnr"].to_numpy(), "{:.1f} dB", "least"),
        ("ssim", table["ssim"].to_numpy(), "{:.3f}", "least"),
    ):
        assert len(np.unique(values)) > 1
        order = np.argsort(values if first == "least" else -values, kind="stable")
        captions = [tile["caption"] for tile in sort(app, name)]
        assert captions == [f"{k} · {text.format(values[k])}" for k in order]
        backwards = np.argsort(-values if first == "least" else values, kind="stable")
        assert [tile["number"] for tile in sort(app, name, reverse=True)] == backwards.tolist()


def test_a_link_reopens_the_order_here_and_for_the_neighbours_of_a_sample(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    backwards = [tile["number"] for tile in sort(app, "change", reverse=True)]
    app.segmented_control(key="size").set_value(20).run()
    link = in_the_link(app)
    theirs = open_app("images", **link)
    assert [tile["number"] for tile in shown_tiles(theirs, "images A")] == backwards
    assert theirs.segmented_control(key="size").value == 20
    theirs = open_app("sample", **link | {"sample": str(backwards[2])})
    theirs.button(key="Next").click().run()
    assert theirs.number_input(key="chosen sample").value == backwards[3]
    assert {key: in_the_link(theirs)[key] for key in ("order", "reverse")} == {"order": "change", "reverse": "True"}


def test_a_measure_that_the_trace_lacks_is_a_sentence(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    for file in (runs / "toy" / "traces" / EXITS).glob("part-*.parquet"):
        file.unlink()
    app = open_app("images", trace=EXITS)
    assert [tile["number"] for tile in sort(app, "gflops")] == list(range(SAMPLES))
    assert "has no rows" in sentences(app)
    assert [tile["number"] for tile in sort(app, "exit")] != list(range(SAMPLES))  # the images' files know it


def open_sample(number: int, trace: str = EXITS) -> AppTest:
    """The page of a sample, once its film is computed."""
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
    assert any(title in element.value for element in app.markdown)


def test_next_and_previous_follow_the_order_of_the_images(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    order = [tile["number"] for tile in sort(app, "change")]
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
    assert "samples-00001.parquet is cut short" in sentences(app)
    shutil.rmtree(runs / "toy" / "traces")
    app = open_app("sample")
    assert f"deediff sample {runs / 'toy'} --policy threshold:0.1" in app.code[0].value


def test_without_the_files_of_images_no_order_is_made_up(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    for file in (runs / "toy" / "traces" / EXITS).glob("samples-*.parquet"):
        file.unlink()
    app = open_app("images", trace=EXITS)
    app.selectbox(key="order").set_value("exit").run()
    assert not app.exception
    assert "has no samples files" in sentences(app)
