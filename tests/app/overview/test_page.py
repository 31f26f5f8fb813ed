"""*Overview*: its sentences, figures and table are counted from the files of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from app.widgets.glossary import WORDS, words_in
from deediff.json_files import read_json, write_json
from deediff.plans import Plan, PlanStep
from deediff.plans.file import write_plan
from deediff.quality.results import Quality, write_quality
from tests.app import helpers
from tests.app.helpers import BLOCKS, EXITS, FULL, SAMPLES, STEPS, figure, open_app, sentences, titles, unpacked
from tests.conftest import sample_trace

GUARD = "fd-pixels"
FULL_KINDS = ("uniform", "hand", "full")


def between(value: float, spread: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def point(plan: str, evaluations: float, value: float, **changes: tuple[float, float]) -> dict[str, Any]:
    """`changes`: differences of metric and guard from a rival, whose name has _ for -."""
    rivals = [
        {"plan": rival.replace("_", "-"), "differences": {"fd-mnist": between(a), GUARD: between(b)}}
        for rival, (a, b) in changes.items()
    ]
    return {
        "plan": plan,
        "steps": "s",
        "timesteps": [999, 500],
        "evaluations": evaluations,
        "gflops_per_image": evaluations / 2,
        "metrics": {"fd-mnist": between(value), GUARD: between(0.02)},
        "compared_with": rivals,
    }


@pytest.fixture
def searched(runs: Path) -> Path:
    """The run with a front: exits are better at 2 and 5 evaluations, equal at 12; one plan exploits the metric."""
    run = runs / "toy"
    front = {
        "metric": "fd-mnist",
        "guards": [GUARD],
        "images": 2048,
        "reference": "mnist-train",
        "full_gflops": 0.5,
        "uniform": {"points": [point("4-uniform", 4.0, 8.0), point("12-uniform", 12.0, 5.0)]},
        "hand": {"points": [point("7-hand", 7.0, 5.1)]},
        "full": {
            "points": [
                point("2.00-full", 2.0, 9.0, **{"12_uniform": (4.0, 0.5)}),
                point("8.00-full", 8.0, 4.9, **{"12_uniform": (-0.05, 0.0)}),
            ]
        },
        "all": {
            "points": [
                point(
                    "2.05-all",
                    2.05,
                    6.0,
                    **{"12_uniform": (1.0, 0.0), "2.00_full": (-3.0, 0.0), "4_uniform": (-2.0, 0.0)},
                ),
                point(
                    "3.90-all",
                    3.9,
                    4.0,
                    **{"12_uniform": (-1.0, 0.5), "4_uniform": (-4.0, 0.5), "8.00_full": (-0.9, 0.5)},
                ),
                point(
                    "5.00-all",
                    5.0,
                    5.0,
                    **{"12_uniform": (0.05, 0.0), "8.00_full": (0.05, 0.0), "4_uniform": (-3.0, 0.0)},
                ),
            ]
        },
    }
    write_json(run / "front.json", front)
    steps = (PlanStep(999, 0, "gaussian"), PlanStep(500), PlanStep(20, 4))
    write_plan(run / "plans" / "5.00-all.json", Plan(steps, BLOCKS))
    return run


def counts(trace: Path) -> np.ndarray:
    """(layers + 1, steps) samples that exit at each layer, from the Parquet rows alone."""
    rows = pd.concat([pq.read_table(file).to_pandas() for file in sorted(trace.glob("part-*.parquet"))])
    table = np.zeros((BLOCKS + 1, STEPS), int)
    np.add.at(table, (rows["exit_layer"], rows["step"]), 1)
    return table


def texts(app: Any) -> str:
    return " ".join([*titles(app), *(element.value for element in app.markdown)])


def cells(app: Any) -> list[list[str]]:
    """The rows of the table of budgets."""
    table = next(element.value for element in app.markdown if element.value.startswith("| budget"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_first_answer_is_the_saving_against_the_cheapest_full_network(searched: Path) -> None:
    app = open_app(None)
    assert not app.error
    title = "Yes: the images of 12 uniform steps cost 2.5 GFLOPs with exits, 4 without (−38%)"
    assert title in texts(app)
    content = json.loads((searched / "front.json").read_text())
    drawn = {trace["name"]: trace for trace in figure(app, "worth")["data"] if trace.get("name")}
    for kind, name in (("all", "plans with exits"), ("full", "full network, searched")):
        assert drawn[name]["x"] == [p["gflops_per_image"] for p in content[kind]["points"]]
        assert drawn[name]["y"] == [p["metrics"]["fd-mnist"]["value"] for p in content[kind]["points"]]
    lines = {name: trace["line"]["width"] for name, trace in drawn.items()}
    assert max(lines, key=lines.__getitem__) == "full network, searched"  # the line to beat


def test_the_table_holds_the_best_of_both_at_three_budgets(searched: Path, tables: dict[str, pd.DataFrame]) -> None:
    content = json.loads((searched / "front.json").read_text())
    rows = cells(open_app(None))
    assert [row[-1] for row in rows] == [":green-badge[better]", ":green-badge[better]", ":blue-badge[equal]"]
    for row in rows:
        assert row[0].endswith(" GFLOPs per image")
        budget = float(row[0].split()[0]) / content["full_gflops"]
        for cell, kinds in zip(row[1:3], (FULL_KINDS, ("all",)), strict=True):
            found = [p for kind in kinds for p in content[kind]["points"] if p["evaluations"] <= budget + 0.1]
            found = [p for p in found if p["plan"] != "3.90-all"]  # which the guard finds worse
            best = min(found, key=lambda p: p["metrics"]["fd-mnist"]["value"])
            assert cell.startswith(f"`{best['plan']}`: {best['metrics']['fd-mnist']['value']:.2f} [")
    assert rows[0][3] == "−3.000 [−3.100, −2.900]"
    table = tables["budgets"].set_index("budget")
    assert table.loc[2, "difference of fd-mnist low"] == pytest.approx(-3.1)
    assert table.loc[5, "plan with exits"] == "5.00-all"
    content["all"]["points"].append(point("9.00-all", 9.0, 4.8, **{"8.00_full": (0.3, 0.0)}))
    write_json(searched / "front.json", content)
    last = cells(open_app(None))[-1]
    assert last[2].startswith("`9.00-all`")
    assert last[-1] == ":red-badge[worse by fd-mnist]"
    content["all"]["points"] = [p for p in content["all"]["points"] if p["plan"] == "3.90-all"]
    write_json(searched / "front.json", content)
    assert [row[-1] for row in cells(open_app(None))][-1] == ":red-badge[worse by fd-pixels]"
    content["all"]["points"][0]["compared_with"] = []
    write_json(searched / "front.json", content)
    assert [row[-1] for row in cells(open_app(None))][-1] == ":gray-badge[not compared]"


def test_no_plan_that_is_cheaper_means_no(searched: Path) -> None:
    content = read_json(searched / "front.json")
    content["full"]["points"][1] |= {"evaluations": 4.5, "gflops_per_image": 2.25}
    write_json(searched / "front.json", content)
    assert "No: the images of 12 uniform steps cost 2.25 GFLOPs without exits, 2.5 with them" in texts(open_app(None))
    content["all"]["points"].pop()
    write_json(searched / "front.json", content)
    assert "No: no plan with exits gives the images of 12 uniform steps" in texts(open_app(None))


def test_one_distance_alone_gives_no_verdict(searched: Path) -> None:
    write_json(searched / "front.json", read_json(searched / "front.json") | {"guards": []})
    app = open_app(None)
    assert "Unknown: the plans were judged by fd-mnist alone" in texts(app)
    assert {row[-1] for row in cells(app)} <= {":gray-badge[no guard]", ":gray-badge[not compared]"}


def test_the_exits_are_those_of_the_rows_above_the_steps_of_the_plan(searched: Path) -> None:
    for link in ({"trace": EXITS}, {"trace": FULL, "tau": "0.1"}):  # the full network's trace has no exits
        data = figure(open_app(None, **link), "where")["data"]
        shown = unpacked(data[0]["z"])
        np.testing.assert_allclose(shown, counts(searched / "traces" / EXITS) / SAMPLES, rtol=1e-6)
        marks = {trace["name"]: trace["x"] for trace in data if trace.get("yaxis") == "y2"}
        assert marks == {"Gaussian": [999], "full network": [500], "early exit": [20]}


def test_a_chosen_cell_is_marked_and_a_default_one_is_not(searched: Path) -> None:
    def boxes(**link: str) -> int:
        shapes = figure(open_app(None, trace=EXITS, **link), "where")["layout"]["shapes"]
        return sum(shape["type"] == "rect" for shape in shapes)

    assert boxes() == 0
    assert boxes(layer="3") > 0


def test_what_an_exit_loses_is_that_of_the_calibration(runs: Path) -> None:
    calibration = helpers.calibrate_run(runs)
    file = runs / "toy" / "checkpoints" / "100.calibration.json"
    mse = calibration.squared_error.mean(axis=1).astype(float)
    content = {"checkpoint_sha256": calibration.info["checkpoint_sha256"], "images": 16, "dataset": "toy"}
    tables = {"timesteps": [0, 300, 600, 999], "mse": mse.tolist()}
    write_json(file, content | {"split": "test", "tables": tables})
    shown = unpacked(figure(open_app(None), "why")["data"][0]["z"])  # (N, T')
    wanted = np.sqrt(np.maximum(mse[:, :-1] - mse[:, -1:], 0))[::-1].T
    np.testing.assert_allclose(shown, wanted, atol=1e-6)
    assert wanted.max() > 0
    write_json(file, content | {"checkpoint_sha256": "other"})
    assert "belongs to other weights" in sentences(open_app(None))
    write_json(file, content)
    assert "is not a readable calibration" in sentences(open_app(None))


def test_recorded_deviations_are_shown_before_it(runs: Path) -> None:
    run, name = runs / "toy", "deviations"
    sample_trace(run, run / "traces" / name, 3, "never", "ddim", STEPS, batch_size=3, record="full", deviations=True)
    shown = unpacked(figure(open_app(None, trace=name), "why")["data"][0]["z"])
    rows = pd.concat([pq.read_table(file).to_pandas() for file in (run / "traces" / name).glob("part-*.parquet")])
    mean = np.stack([np.stack(rows[rows["step"] == s]["deviation"]).mean(axis=0) for s in range(STEPS)])
    np.testing.assert_allclose(shown, mean.T, rtol=1e-5)


def test_measured_steps_of_the_plan_come_first(searched: Path) -> None:
    file = searched / "plans" / "5.00-all.json"
    changes = [{"fd-mnist": between(value)} for value in (0.3, 2.0, 0.1)]
    rows = [
        {"timestep": step["timestep"], "step": "full", "made_full": None, "left_out": change}
        for step, change in zip(read_json(file)["steps"], changes, strict=True)
    ]
    found = {"metric": "fd-mnist", "images": 2048, "seed": 1, "rows": rows}
    write_json(file, read_json(file) | {"validation": {"contributions": found}})
    app = open_app(None)
    assert "The step at t = 500 (full) matters most: without it fd-mnist changes by +2.00" in texts(app)
    assert figure(app, "why")["data"][1]["y"] == [0.3, 2.0, 0.1]


def test_without_fronts_the_evaluated_traces_answer(runs: Path) -> None:
    assert "No trace of this run has been evaluated either" in sentences(open_app(None))
    for name, value in ((FULL, 5.0), (EXITS, 9.0)):
        protocol = ("toy", "key", 50_000, None, None, "", "cpu")
        quality = Quality("fd-mnist", "fd-mnist", value, value - 1, value + 1, "jackknife", SAMPLES, *protocol)
        write_quality(runs / "toy" / "traces" / name, [quality])
    app = open_app(None)
    assert f"`deediff search {runs / 'toy'}`" in " ".join(caption.value for caption in app.caption)
    full, exits = figure(app, "worth")["data"]
    assert (full["y"], exits["y"]) == ([5.0], [9.0])
    cost = read_json(runs / "toy" / "traces" / FULL / "trace.json")["cost"]
    assert full["x"][0] == pytest.approx(STEPS * (cost["embed"] + sum(cost["blocks"]) + cost["decode"]))
    assert "With exits at best fd-mnist 9 " in texts(app)
    assert not any(element.value.startswith("| budget") for element in app.markdown)


def test_a_run_with_nothing_names_every_command(runs: Path) -> None:
    shutil.rmtree(runs / "toy" / "traces")
    app = open_app(None)
    assert not app.exception
    commands = " ".join([code.value for code in app.code] + [caption.value for caption in app.caption])
    for command in ("search", "sample", "calibrate"):
        assert f"deediff {command} {runs / 'toy'}" in commands
    assert f"deediff search {runs / 'mine'}" in commands


def test_damaged_files_are_sentences_and_the_rest_is_drawn(searched: Path) -> None:
    (searched / "front.json").write_text('{"metric": 3}')
    app = open_app(None)
    assert not app.exception
    assert "is not a readable front" in sentences(app)
    assert "What am I looking at?" in titles(app)


def test_every_page_that_an_answer_links_to_gets_the_selection(searched: Path) -> None:
    links = {e.proto.page: e.proto.query_string for e in open_app(None, trace=EXITS, layer="3").get("page_link")}
    assert set(links) == {"plans", "trends", "uncertainty"}
    for query in links.values():
        assert f"trace={EXITS}" in query
        assert "layer=3" in query


def test_links_of_when_exit_trends_was_the_first_page_still_open_it(runs: Path) -> None:
    assert figure(open_app(None, trace=EXITS, tau="0.1", also="0.15"), "exit heatmap")
    app = open_app(None, trace=EXITS, tau="0.12", t="999", layer="2")  # the selection alone is that of Overview
    assert app.selectbox(key="trace").value == EXITS
    assert app.slider(key="tau").value == pytest.approx(0.12)
    assert figure(app, "where")


def test_words_are_explained_beside_the_title_that_uses_them_and_in_the_glossary(searched: Path) -> None:
    app = open_app(None)
    title = next(element for element in app.subheader if "12 uniform steps cost" in element.value)
    for name in ("uniform steps", "GFLOPs", "fd-…", "guard"):
        word = next(word for word in WORDS if word.name == name)
        assert (word.meaning in title.help) == (name != "guard")
    for word in WORDS:
        assert f"**{word.name}**: {word.meaning}" in texts(app)


def test_a_word_within_another_is_not_that_word() -> None:
    assert [word.name for word in words_in("exit layers at τ = 0.1")] == ["exit layer", "threshold τ"]
    assert [word.name for word in words_in("fd-pixels")] == [GUARD]
    assert words_in("utility, atlas, planet, restep") == []
