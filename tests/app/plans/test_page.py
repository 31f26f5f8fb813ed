"""*Plans*: the fronts, strips and numbers on screen are those of the run's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.jobs.queue import Session
from app.jobs.search import SearchJob
from app.widgets.plans.figures import GROUPS
from app.widgets.plans.found import front_table
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.plans.file import write_plan
from deediff.plans.front import read_front
from tests.app.helpers import BLOCKS, figure, in_the_link, open_app, sentences, titles

STEPS = (
    PlanStep(999, 0, "gaussian"),
    PlanStep(700, 3),
    PlanStep(500, network="../b"),
    PlanStep(300, "policy"),
    PlanStep(200),
    PlanStep(90, 0, "output:0"),
)


def point(name: str, evaluations: float, value: float, **more: Any) -> dict[str, Any]:
    metrics = {"fd-mnist": {"value": value, "low": value - 0.2, "high": value + 0.3}}
    return {
        "plan": name,
        "steps": "1 full",
        "evaluations": evaluations,
        "gflops_per_image": evaluations / 2,
        "metrics": metrics,
        **more,
    }


@pytest.fixture
def searched(runs: Path) -> Path:
    run = runs / "toy"
    write_plan(run / "plans" / "2.30-all.json", Plan(STEPS, BLOCKS))
    write_plan(run / "plans" / "4.00-full.json", Plan((PlanStep(900), PlanStep(200)), BLOCKS))
    change = {"value": -0.1, "low": -0.3, "high": 0.1}
    rival = {"plan": "12-uniform", "evaluations": 12.0, "saving": 0.81}
    rivals = [rival | {"differences": {"fd-mnist": change, "fd-pixels": change}}]
    worse = {"value": 0.2, "low": 0.1, "high": 0.3}  # by the second distance
    exploited = [rival | {"differences": {"fd-mnist": change, "fd-pixels": worse}}]
    front = {
        "metric": "fd-mnist",
        "guards": ["fd-pixels"],
        "images": 2048,
        "reference": "mnist-train",
        "full_gflops": 0.5,
        "uniform": {"points": [point("4-uniform", 4, 7.0), point("12-uniform", 12, 5.0)]},
        "full": {"points": [point("4.00-full", 4, 6.0)]},
        "all": {
            "points": [
                point("2.30-all", 2.3, 5.05, compared_with=rivals, searched={"value": 4.8}),
                point("1.10-all", 1.1, 4.0, compared_with=exploited),
            ]
        },
    }
    (run / "front.json").write_text(json.dumps(front))
    return run


def test_the_page_says_what_the_cheapest_equal_plan_saves(searched: Path) -> None:
    app = open_app("plans")
    assert not app.error
    title = "2.30-all: the images of 12 uniform steps for 81% less"
    assert title in titles(app)
    lines = {trace["name"]: trace for trace in figure(app, "fronts")["data"] if trace.get("showlegend", True)}
    exits = lines["timesteps and exits"]
    assert (exits["x"], exits["y"]) == ([0.55, 1.15], [4.0, 5.05])
    front = read_front(searched)
    assert front is not None
    table = front_table(front).set_index("plan")
    assert table.loc["2.30-all", ["fd-mnist low", "fd-mnist high", "on the search's noise"]].tolist() == pytest.approx(
        [4.85, 5.35, 4.8]
    )


def test_each_step_has_the_mark_of_what_runs_there(searched: Path) -> None:
    marks = {trace["name"]: trace for trace in figure(open_app("plans"), "plan strips")["data"]}
    cheap = {name: [x for x, y in zip(t["x"], t["y"], strict=True) if y == "2.30-all"] for name, t in marks.items()}
    expected = ("Gaussian", "early exit", "another network", "policy decides", "full network", "ε reused")
    assert cheap == {name: [step.timestep] for name, step in zip(expected, STEPS, strict=True)}
    assert set(marks) <= set(GROUPS)


def test_the_chosen_plan_is_compared_with_its_rivals_and_kept_in_the_link(searched: Path) -> None:
    app = open_app("plans", plan="2.30-all")
    assert app.dataframe[0].value.to_dict("records") == [
        {"compared with": "12-uniform", "GFLOPs per image": 6.0, "saving": "81%"}
        | dict.fromkeys(("fd-mnist", "fd-pixels"), "-0.100 [-0.300, +0.100]")
    ]
    assert f"deediff sample {searched} --plan 2.30-all" in app.code[0].value
    app.selectbox(key="plan").set_value("4.00-full").run()
    assert in_the_link(app)["plan"] == "4.00-full"
    assert not app.dataframe


def test_the_steps_of_the_chosen_plan_are_shown_where_they_were_measured(searched: Path) -> None:
    change = {"evaluations": 3.3, "fd-mnist": {"value": 0.2, "low": 0.1, "high": 0.3}}
    rows = [{"timestep": 999, "step": "gaussian", "made_full": change, "left_out": None}]
    write_plan(
        searched / "plans" / "2.30-all.json",
        Plan(STEPS, BLOCKS),
        {"contributions": {"metric": "fd-mnist", "images": 2048, "seed": 1, "rows": rows}},
    )
    assert open_app("plans", plan="2.30-all").dataframe[1].value.to_dict("records") == [
        {
            "timestep": "999",
            "step": "gaussian",
            "full network instead: fd-mnist": "+0.20 [+0.10, +0.30]",
            "without this step: fd-mnist": "–",
        }
    ]


def test_without_plans_the_page_names_the_command(runs: Path) -> None:
    app = open_app("plans")
    assert "No plan of this run has been validated yet" in sentences(app)
    assert app.code[0].value == f"deediff search {runs / 'toy'}"


def test_a_damaged_file_is_a_sentence_and_the_rest_is_drawn(searched: Path) -> None:
    (searched / "front.json").write_text('{"metric": 3}')
    (searched / "plans" / "bad.json").write_text("{}")
    app = open_app("plans")
    assert not app.exception
    assert "is not a readable front" in sentences(app)
    assert "bad.json: a plan lacks format_version" in sentences(app)


def test_a_search_is_a_job_that_survives_its_tab(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("deediff.search.search", lambda run, **fields: calls.append((run, fields)))
    job = SearchJob(Session("a"), runs / "toy", "ends", 3.0)
    assert job.kept
    job.run()
    assert job.status.state == "done"
    [(run, fields)] = calls
    assert (run, fields["choices"], fields["minutes"]) == (runs / "toy", "ends", 3.0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs Optuna, which is not installed: pip install"):
        SearchJob(Session("a"), runs / "toy", "all", 3.0)
