"""*Compare*: table, figure and images are those of the traces, and each evaluated metric has an axis."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import deediff
from app.views.compare.changes import CHANGES
from app.views.compare.choices import MOST
from deediff.analysis.compare import comparison_table
from deediff.quality.results import Quality, write_quality
from tests.app.helpers import (
    EXITS,
    FULL,
    SAMPLES,
    STEPS,
    figure,
    in_the_link,
    open_app,
    sentences,
    shown_tiles,
    titles,
    write_run,
)

FID = Quality(
    "fid",
    "inception-v3",
    10.0,
    9.0,
    12.0,
    "jackknife",
    SAMPLES,
    "cifar10-train",
    "abc",
    50_000,
    3.0,
    0.5,
    "5 draws",
    "cpu",
)


def open_compare(**link: str) -> AppTest:
    """With every image compared."""
    app = open_app("compare", **link)
    CHANGES.join(30)
    return app.run()


def picture(app: AppTest) -> dict[str, Any]:
    """Traces of the figure, by name."""
    return {trace["name"]: trace for trace in figure(app, "compare")["data"]}


def test_the_table_is_the_command_lines(runs: Path) -> None:
    app = open_compare()
    traces = [deediff.read_trace(runs / "toy" / "traces" / name) for name in (FULL, EXITS)]
    expected = comparison_table(traces)
    shown = app.dataframe[0].value
    assert shown["run"].tolist() == ["toy", "toy"]
    pd.testing.assert_frame_equal(shown[list(expected)], expected, check_dtype=False)
    assert shown["image_change"].tolist()[1] > 0


def test_the_picture_holds_cost_and_change_of_every_trace(runs: Path) -> None:
    app = open_compare()
    table = app.dataframe[0].value.set_index("trace")
    early = picture(app)[f"threshold · DDIM, {STEPS} steps"]
    assert early["x"] == pytest.approx([table["gflops_per_step"][EXITS] * STEPS])
    assert early["y"] == pytest.approx([table["image_change"][EXITS]])
    assert [entry[0] for entry in early["customdata"]] == [f"toy/{EXITS}"]
    assert [code.value.split()[:2] for code in app.code] == [["deediff", "evaluate"]]
    app.segmented_control(key="cost").set_value("seconds").run()
    assert picture(app)["full network, DDIM"]["x"] == pytest.approx([table["seconds_per_image"][FULL]])


def test_what_was_evaluated_has_its_own_axis_with_interval_and_floor(runs: Path) -> None:
    for name, value in ((FULL, 8.0), (EXITS, 10.0)):
        write_quality(runs / "toy" / "traces" / name, [replace(FID, value=value)])
    write_quality(runs / "toy" / "traces" / EXITS, [replace(FID, images=5, value=99.0)])
    app = open_compare()
    assert not app.code
    assert len(app.selectbox(key="quality").options) == 3  # two numbers of images, and the change
    early = picture(app)[f"threshold · DDIM, {STEPS} steps"]
    assert (early["y"], early["error_y"]["array"], early["error_y"]["arrayminus"]) == ([10.0], [2.0], [1.0])
    layout = figure(app, "compare")["layout"]
    assert [(s["y0"], s["y1"]) for s in layout["shapes"] if "name" not in s] == [(2.5, 3.5), (3.0, 3.0)]


def test_a_damaged_quality_file_is_a_sentence_and_the_rest_stays(runs: Path) -> None:
    (runs / "toy" / "traces" / EXITS / "quality.json").write_text("{}")
    app = open_compare()
    assert "quality.json" in sentences(app)
    assert len(app.dataframe[0].value) == 2


def test_picked_traces_show_the_same_samples_side_by_side(runs: Path) -> None:
    app = open_compare()
    for name in (FULL, EXITS):
        found = deediff.read_trace(runs / "toy" / "traces" / name).samples(range(SAMPLES))
        tiles = shown_tiles(app, f"compare toy/{name}")
        assert [tile["number"] for tile in tiles] == found["sample"].tolist()
        assert [base64.b64decode(tile["src"].partition(",")[2]) for tile in tiles] == found["png"].tolist()
    app.session_state["picked"] = [f"toy/{EXITS}"]
    app.run()
    grids = [e.proto.id.rpartition("-compare ")[2] for e in app.get("bidi_component") if "-compare " in e.proto.id]
    assert grids == [f"toy/{EXITS}"]


def test_a_link_reopens_what_a_colleague_compared(runs: Path) -> None:
    shutil.copytree(runs / "toy", runs / "toy2")
    for name in (FULL, EXITS):
        write_quality(runs / "toy" / "traces" / name, [FID, replace(FID, metric="kid")])
    app = open_compare()
    app.multiselect(key="runs").set_value(["toy", "toy2"])
    app.selectbox(key="quality").set_value("kid,inception-v3,abc,6")
    app.segmented_control(key="cost").set_value("seconds")
    app.text_input(key="filter").set_value("never").run()
    app.session_state["picked"] = [f"toy2/{EXITS}", f"toy/{FULL}"]
    app.run()
    theirs = open_compare(**in_the_link(app))
    assert sentences(theirs) == sentences(app)
    assert figure(theirs, "compare") == figure(app, "compare")
    assert "KID" in figure(theirs, "compare")["layout"]["yaxis"]["title"]["text"]
    assert theirs.dataframe[0].value["run"].tolist() == ["toy", "toy2"]
    assert theirs.session_state["picked"] == [f"toy2/{EXITS}", f"toy/{FULL}"]
    app.session_state["picked"] = []
    app.run()
    assert open_compare(**in_the_link(app)).session_state["picked"] == []


def test_what_a_link_compares_and_is_not_there_is_a_sentence(runs: Path) -> None:
    app = open_app("compare", runs="toy,gone", quality="fid,x,y,1", picked=f"toy/{EXITS},toy/gone")
    for name in ("run “gone”", "quality = fid,x,y,1", "trace “toy/gone”"):
        assert name in sentences(app)
    assert app.session_state["picked"] == [f"toy/{EXITS}"]


def test_one_run_alone_follows_the_selected_one_and_several_stay(runs: Path) -> None:
    shutil.copytree(runs / "toy", runs / "toy2")
    app = open_compare()
    app.selectbox(key="run").set_value("toy2").run()
    assert app.multiselect(key="runs").value == ["toy2"]
    app.multiselect(key="runs").set_value(["toy", "toy2"]).run()
    app.selectbox(key="run").set_value("toy").run()
    assert app.multiselect(key="runs").value == ["toy", "toy2"]


def test_a_run_is_compared_with_those_that_were_trained_from_it(runs: Path) -> None:
    shutil.copytree(runs / "toy", runs / "child")
    shutil.copytree(runs / "toy", runs / "stranger")
    info = json.loads((runs / "toy" / "run.json").read_text())
    for name, init in (("child", "toy/100"), ("stranger", "toyota/100")):
        config = {**(info.get("config") or {}), "init": init}
        (runs / name / "run.json").write_text(json.dumps({**info, "config": config}))
    app = open_app("compare", run="toy")
    assert app.multiselect(key="runs").value == ["toy", "child"]
    app.selectbox(key="run").set_value("child").run()
    assert app.multiselect(key="runs").value == ["child"]
    app.selectbox(key="run").set_value("toy").run()
    app.multiselect(key="runs").set_value(["toy"]).run()
    assert app.run().multiselect(key="runs").value == ["toy"]


def test_a_family_too_large_for_one_picture_waits_until_it_is_asked_for(runs: Path) -> None:
    info = json.loads((runs / "toy" / "run.json").read_text())
    config = {**(info.get("config") or {}), "init": "toy/100"}
    for number in range(MOST):
        shutil.copytree(runs / "toy", runs / f"child{number}")
        (runs / f"child{number}" / "run.json").write_text(json.dumps({**info, "config": config}))
    assert open_app("compare", run="toy").multiselect(key="runs").value == ["toy"]
    shutil.rmtree(runs / "child0")
    assert len(open_app("compare", run="toy").multiselect(key="runs").value) == MOST


def test_both_positions_are_in_the_link_and_read_aloud(runs: Path) -> None:
    for name, value in ((FULL, 8.0), (EXITS, 9.0)):
        write_quality(runs / "toy" / "traces" / name, [replace(FID, value=value, low=value - 0.5, high=value + 0.5)])
    app = open_compare()
    cost = app.dataframe[0].value.set_index("trace")["gflops_per_image"]
    assert app.number_input(key="at_gflops").value == pytest.approx(cost[FULL] / 2, rel=1e-3)
    assert app.number_input(key="at_fid").value == 8.0
    app.number_input(key="at_fid").set_value(9.5)
    app.number_input(key="at_gflops").set_value(round(1.01 * float(cost[FULL]), 6)).run()
    lines = [m.value for m in app.markdown if "cheapest is" in m.value or "best is" in m.value]
    assert f"best is **full network, DDIM, {STEPS} steps** (fid 8" in lines[0]
    assert f"cheapest is **threshold · DDIM, {STEPS} steps, τ = 0.1** (fid 9" in lines[1]
    assert "+1 [+0.293, +1.71], outside the noise (unpaired" in lines[1]  # 0.5 · √2
    theirs = open_compare(**in_the_link(app))
    assert [m.value for m in theirs.markdown if "cheapest is" in m.value or "best is" in m.value] == lines


def test_evaluation_is_recommended_for_traces_with_images_only(runs: Path) -> None:
    for file in (runs / "toy" / "traces" / EXITS).glob("samples-*.parquet"):
        file.unlink()
    (command,) = [block.value for block in open_compare().code if block.value.startswith("deediff evaluate")]
    assert command.split()[2:] == [str(runs / "toy" / "traces" / FULL)]


def test_another_checkpoint_samples_trace_a_again_from_the_same_noise(runs: Path) -> None:
    assert not [b for b in open_app("compare").button if b.key == "sample checkpoint"]  # there is one only
    write_run(runs / "other")
    for file in (runs / "other" / "checkpoints").iterdir():
        shutil.copy(file, runs / "toy" / "checkpoints" / file.name.replace("100", "200"))
    app = open_app("compare", trace=EXITS)
    assert app.selectbox(key="other checkpoint").options == ["200"]
    app.button(key="sample checkpoint").click().run()
    (job,) = app.session_state["kept jobs"]
    job.join(60)
    made, first = (deediff.read_trace(runs / "toy" / "traces" / name) for name in (f"{EXITS}-checkpoint-200", EXITS))
    assert made.meta.settings.checkpoint == "200.safetensors"
    for name in ("policy", "steps", "seed", "num_samples"):
        assert getattr(made.meta.settings, name) == getattr(first.meta.settings, name)
    assert made.path.name in open_compare().dataframe[0].value["trace"].tolist()


def test_a_trace_becomes_a_everywhere(runs: Path) -> None:
    app = open_compare(trace=FULL)
    app.button(key=f"A toy/{EXITS}").click().run()
    assert app.selectbox(key="trace").value == EXITS
    app.button(key=f"B toy/{FULL}").click().run()
    assert app.selectbox(key="b").value == FULL


def test_a_link_reopens_the_order_of_the_table_with_its_ticks(runs: Path) -> None:
    app = open_compare(picked=f"toy/{EXITS}")
    app.selectbox(key="sort").set_value("layer_ratio").run()
    orders = {False: [EXITS, FULL], True: [FULL, EXITS]}
    for falling, expected in orders.items():
        app.toggle(key="falling").set_value(falling).run()
        theirs = open_compare(**in_the_link(app))
        for one in (app, theirs):
            assert one.dataframe[0].value["trace"].tolist() == expected
            assert one.session_state["compare table"]["selection"]["rows"] == [expected.index(EXITS)]


def test_the_filter_narrows_the_table_and_says_what_it_does_not_know(runs: Path) -> None:
    app = open_compare()
    app.text_input(key="filter").set_value("threshold").run()
    assert app.dataframe[0].value["trace"].tolist() == [EXITS]
    ratio = app.dataframe[0].value["layer_ratio"].iloc[0]
    app.text_input(key="filter").set_value(f"layer_ratio>{ratio + 1e-6:.6f}").run()
    assert app.dataframe[0].value["trace"].tolist() == [FULL]
    app.text_input(key="filter").set_value("colour<3").run()
    assert "colour" in sentences(app)
    assert len(app.dataframe[0].value) == 2


def test_several_runs_are_compared(runs: Path) -> None:
    shutil.copytree(runs / "toy", runs / "toy2")
    app = open_compare()
    app.multiselect(key="runs").set_value(["toy", "toy2"]).run()
    assert app.dataframe[0].value["run"].tolist() == ["toy", "toy", "toy2", "toy2"]
    app.multiselect(key="runs").set_value([]).run()
    assert "Choose a run" in sentences(app)


def test_the_front_counts_what_nothing_beats(runs: Path) -> None:
    app = open_compare()
    table = app.dataframe[0].value
    cost, value = table["gflops_per_step"].to_numpy(), table["image_change"].to_numpy()
    beaten = [
        bool(np.any((cost <= c) & (value <= v) & ((cost < c) | (value < v)))) for c, v in zip(cost, value, strict=True)
    ]
    assert any(f"{beaten.count(False)} of 2 traces are on the Pareto front" in title for title in titles(app))
