"""The headline figures and the estimate are those of the traces."""

from __future__ import annotations

from pathlib import Path

import deediff
from deediff.json_files import read_json
from deediff.quality.results import Quality, write_quality
from tests.app.helpers import (
    BLOCKS,
    EXITS,
    FULL,
    SAMPLES,
    STEPS,
    counted_exits,
    metric,
    open_app,
)


def test_the_ratio_at_the_slider_is_a_count_over_the_rows(runs: Path) -> None:
    app = open_app("trends")
    seen = set()
    for tau in (0.08, 0.1, 0.15):
        app.slider(key="tau").set_value(tau).run()
        exits = counted_exits(runs / "toy" / "traces" / FULL, tau)
        assert metric(app, "Layer ratio", 1) == f"{exits.mean() / BLOCKS:.3f}"
        gflops = deediff.read_trace(runs / "toy" / "traces" / FULL).what_if(tau).gflops * STEPS
        assert metric(app, "GFLOPs per image", 1).startswith(f"{gflops:.4g} (")
        seen.add(metric(app, "Layer ratio", 1))
    assert len(seen) > 1


def test_measured_figures_are_those_of_the_trace(runs: Path) -> None:
    app = open_app("trends", trace=EXITS)
    layers = deediff.read_trace(runs / "toy" / "traces" / EXITS).exit_layers()
    assert metric(app, "Layer ratio") == f"{layers.mean() / BLOCKS:.3f}"
    a, b = (read_json(runs / "toy" / "traces" / name / "trace.json")["wall_seconds"] for name in (FULL, EXITS))
    assert metric(app, "Seconds per image") == f"{b / SAMPLES:.4g} s"
    assert metric(app, "Speed-up") == f"{a / b:.2f}×"


def test_the_first_metric_stands_above_the_page_with_its_interval(runs: Path) -> None:
    app = open_app("trends", trace=EXITS, b=FULL)
    assert metric(app, "Quality") == "unknown"
    for name, value in ((EXITS, 12.5), (FULL, 10.0)):
        write_quality(
            runs / "toy" / "traces" / name,
            [
                Quality(
                    "fid",
                    "inception-v3",
                    value,
                    value - 1,
                    value + 2,
                    "jackknife",
                    SAMPLES,
                    "cifar10-train",
                    "key",
                    50_000,
                    None,
                    None,
                    "",
                    "cpu",
                ),
            ],
        )
    app.run()
    assert metric(app, "FID") == "12.5 [11.5, 14.5]"
    assert next(m.delta for m in app.metric if m.label == "FID") == "B: 10 [9, 12]  (B − A: −2.5)"
