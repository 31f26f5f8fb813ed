"""*Images*: order, measures and images are those of the trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import deediff
from deediff.quality.pairs import image_distances
from tests.app.helpers import BLOCKS, EXITS, FULL, SAMPLES, in_the_link, open_app, sentences, shown_tiles, sort_images


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
    gflops = trace.cost.at_exit(with_uem=True)[layers].sum(axis=1)
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
        captions = [tile["caption"] for tile in sort_images(app, name)]
        assert captions == [f"{k} · {text.format(values[k])}" for k in order]
        backwards = np.argsort(-values if first == "least" else values, kind="stable")
        assert [tile["number"] for tile in sort_images(app, name, reverse=True)] == backwards.tolist()


def test_a_link_reopens_the_order_here_and_for_the_neighbours_of_a_sample(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    backwards = [tile["number"] for tile in sort_images(app, "change", reverse=True)]
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
    assert [tile["number"] for tile in sort_images(app, "gflops")] == list(range(SAMPLES))
    assert "has no rows" in sentences(app)
    assert [tile["number"] for tile in sort_images(app, "exit")] != list(range(SAMPLES))  # the images' files know it


def test_without_the_files_of_images_no_order_is_made_up(runs: Path) -> None:
    app = open_app("images", trace=EXITS)
    for file in (runs / "toy" / "traces" / EXITS).glob("samples-*.parquet"):
        file.unlink()
    app = open_app("images", trace=EXITS)
    app.selectbox(key="order").set_value("exit").run()
    assert not app.exception
    assert "has no samples files" in sentences(app)


def test_a_comparison_with_the_full_network_opens_on_a_trace_with_exits(runs: Path) -> None:
    app = open_app("images", trace=FULL)
    tiles = sort_images(app, "change")
    assert in_the_link(app)["trace"] == EXITS
    changes = image_distances(*(deediff.read_trace(runs / "toy" / "traces" / name) for name in (EXITS, FULL)))["change"]
    assert tiles[0]["caption"].endswith(f"{changes.max():.1f}")
    app = open_app("images", trace=FULL)
    sort_images(app, "exit")
    assert in_the_link(app)["trace"] == FULL
