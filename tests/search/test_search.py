"""A search of the tiny model: what is sampled, kept, resumed, validated and written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import deediff
from deediff.cli import main
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.plans.file import find_plan, read_validation
from deediff.plans.text import steps_from_text
from deediff.plans.trials import read_trials
from deediff.quality.progress import EvaluationCancelled, Progress
from deediff.search import SearchSettings, measure_plan
from deediff.search.cache import FeatureCache
from deediff.search.judge import Judge, make_judge
from deediff.search.start import uniform_plan
from deediff.search.validate import Validation
from tests.conftest import REPO, make_model, make_run
from tests.search.toy import COUNTS, IMAGES, toy_metric, toy_search

PLAN = Plan((PlanStep(999, 0, "input"), PlanStep(600), PlanStep(300, 3)), 13, clip_x0=True)


def studies(run: Path) -> list[Any]:
    storage = f"sqlite:///{run / 'search' / 'study.db'}"
    return [optuna.load_study(study_name=n, storage=storage) for n in optuna.get_all_study_names(storage)]


def make_toy_judge(run: Path, images: Path, **fields: Any) -> Judge:
    settings = SearchSettings(metric="fd-toy", reference=str(images), device="cpu", **fields)
    with toy_metric():
        return make_judge(deediff.load(run), deediff.Schedule(), run, settings, Progress())


def test_a_search_writes_validated_plans(run: Path, image_folder: Path) -> None:
    states = list[Any]()
    front = toy_search(run, image_folder, on_state=states.append)
    assert json.loads((run / "front.json").read_text()) == front
    points = front["all"]["points"]
    assert points
    assert [p["evaluations"] for p in points] == sorted(p["evaluations"] for p in points)
    for point in points:
        plan = find_plan(point["plan"], run)
        record = read_validation(run / "plans" / f"{point['plan']}.json")
        assert record is not None
        assert (record["metric"], record["images"], record["seed"]) == ("fd-toy", IMAGES, 1)
        assert record["searched"]["seed"] == 0
        assert set(record["metrics"]) == {"fd-toy", "kid-toy", "fd-pixels"}
        assert record["compared_with"][0]["plan"] == "4-uniform"
        assert list(plan.timesteps) == point["timesteps"]
        steps = list(deediff.sample(deediff.load(run), plan=plan, num_samples=2))
        assert len(steps) == len(plan.steps)
    assert len(front["uniform"]["points"]) == 6
    assert states[-1].task.startswith("validated plans")
    assert any(state.task == "search" and state.best for state in states)


def test_plans_of_another_protocol_are_kept(run: Path, image_folder: Path) -> None:
    """A search that would replace validated numbers by others is refused before it begins."""
    toy_search(run, image_folder, choices="full")
    before = {file: file.read_bytes() for file in [run / "front.json", *(run / "plans").glob("*.json")]}
    for other in ({"seed": 1}, {"validation_images": IMAGES // 2}):
        with pytest.raises(UserError, match=r"validated by another protocol \(different: (seed|images)\): rename"):
            toy_search(run, image_folder, choices="ends", minutes=60, **other)
    assert before == {file: file.read_bytes() for file in before}


def test_a_clone_without_the_study_measures_the_same_plans_again(run: Path, image_folder: Path) -> None:
    """The plans of front.json get the same numbers; nothing that only the study knows is lost."""
    front = toy_search(run, image_folder, choices="full")
    trials = (run / "trials.json").read_bytes()
    shutil.rmtree(run / "search")
    again = toy_search(run, image_folder, choices="full", only="validation")
    assert (run / "trials.json").read_bytes() == trials
    for found in (front, again):
        found["full"].pop("validation_seconds")
    assert again == front


def test_a_search_of_one_budget_keeps_the_plans_of_others(run: Path, image_folder: Path) -> None:
    first = toy_search(run, image_folder, choices="full", minutes=0.15)["full"]["points"]
    again = toy_search(run, image_folder, choices="full", budgets=(4,), only="validation")["full"]["points"]
    assert {point["plan"] for point in first} <= {point["plan"] for point in again}
    assert [point["evaluations"] for point in again] == sorted(point["evaluations"] for point in again)


def test_every_measured_plan_is_listed(run: Path, image_folder: Path) -> None:
    """trials.json holds cost, score and steps of each finished trial; another kind of search keeps them."""
    toy_search(run, image_folder, choices="full")
    toy_search(run, image_folder, choices="ends")
    listed = read_trials(run)
    assert set(listed) == {"full", "ends"}
    for study in studies(run):
        trials = listed[study.study_name.partition("-")[0]]
        finished = [trial for trial in study.get_trials() if trial.user_attrs.get("distances")]
        assert [trial.score for trial in trials] == pytest.approx(
            [trial.user_attrs["distances"][str(COUNTS[1])] for trial in finished], abs=1e-4
        )
        plans = [Plan.from_json(trial.user_attrs["plan"]) for trial in finished]
        assert [steps_from_text(trial.steps) for trial in trials] == [plan.steps for plan in plans]


def test_a_plan_of_ones_own_is_measured_like_those_of_a_search(run: Path, image_folder: Path) -> None:
    rival = uniform_plan(13, deediff.Schedule(), 4)
    settings = SearchSettings(metric="fd-toy", reference=str(image_folder), validation_images=IMAGES, device="cpu")
    with toy_metric():
        record = measure_plan(run, "mine", PLAN, rival, settings)
        validation = Validation(FeatureCache(make_toy_judge(run, image_folder), run / "search"), 1, IMAGES)
        expected = validation.point(validation.of(PLAN, "mine"))
    assert find_plan("mine", run) == PLAN
    assert read_validation(run / "plans" / "mine.json") == record
    assert record["metrics"] == expected["metrics"]
    assert record["seed"] == 1
    assert set(record["compared_with"][0]["differences"]) == {"fd-toy", "kid-toy", "fd-pixels"}


def test_searches_that_end_at_the_same_time_keep_each_other(run: Path, image_folder: Path) -> None:
    front = toy_search(run, image_folder, choices="full")

    def another_ends(_: Any) -> None:
        (run / "front.json").write_text(json.dumps(front | {"full": {**front["full"], "trials": 999}}))

    found = toy_search(run, image_folder, choices="ends", on_state=another_ends)
    assert found["full"]["trials"] == 999
    assert found["ends"]["points"]
    assert json.loads((run / "front.json").read_text()) == found


def test_the_command_prints_the_front(
    run: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = list[Any]()

    def small(folder: Path, settings: SearchSettings, **options: Any) -> dict[str, Any]:
        calls.append((settings, options["only"]))
        return toy_search(folder, image_folder, choices=settings.choices, only=None)

    monkeypatch.setattr("deediff.cli.search.search", small)
    assert main(["search", str(run), "--choices", "ends", "--seed", "3", "--validate-only"]) == 0
    assert calls == [(SearchSettings(choices="ends", seed=3), "validation")]
    printed = capsys.readouterr().out
    assert "4-uniform" in printed
    assert "-ends" in printed
    assert main(["search", str(run), "--choices", "ends", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"plans", "uniform", "trials", "rank_correlations", "origins"} <= found.keys()
    assert {"plan", "evaluations", "fd-toy", "kid-toy", "fd-pixels", "searched", "steps"} == found["plans"][0].keys()


def test_plans_are_validated_on_noise_that_no_search_has_seen(
    run: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: dict[str, set[int]] = {"search": set(), "validation": set()}
    phase, draw = "search", Judge.draw

    def watched(self: Judge, plan: Plan, seed: int, samples: range) -> Any:
        seeds[phase].add(seed)
        return draw(self, plan, seed, samples)

    monkeypatch.setattr(Judge, "draw", watched)
    toy_search(run, image_folder, only="search", choices="full")
    phase = "validation"
    toy_search(run, image_folder, only="validation", choices="full")
    assert seeds["search"] == {0}
    assert seeds["validation"] == {1}
    every = [SearchSettings(seed=seed) for seed in range(50)]
    assert not {s.search_seed for s in every} & {s.validation_seed for s in every}


def test_the_same_plan_gets_the_same_number(run: Path, image_folder: Path, tmp_path: Path) -> None:
    first, other = (make_toy_judge(run, image_folder, batch_size=size) for size in (64, 3))
    whole = first.draw(PLAN, 0, range(8)).features
    parts = [other.draw(PLAN, 0, samples).features for samples in (range(5), range(5, 8))]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-2)
    with toy_metric():
        assert first.measured(whole) == first.measured(first.draw(PLAN, 0, range(8)).features)
    cache = FeatureCache(first, tmp_path)
    np.testing.assert_array_equal(cache.features(PLAN, 0, 5), whole[:5])
    np.testing.assert_allclose(cache.features(PLAN, 0, 8), whole, atol=1e-2)
    first.draw = None  # type: ignore[assignment,method-assign]  # everything is in the cache
    np.testing.assert_allclose(cache.features(PLAN, 0, 8), whole, atol=1e-2)


def test_a_plan_does_not_differ_from_itself(run: Path, image_folder: Path, tmp_path: Path) -> None:
    with toy_metric():
        validation = Validation(FeatureCache(make_toy_judge(run, image_folder), tmp_path), 1, IMAGES)
        plan, other = (validation.of(p, "a") for p in (PLAN, Plan(PLAN.steps[:2], 13, clip_x0=True)))
    (row,) = validation.differences(plan, [plan])
    assert row["saving"] == 0
    assert all(value == {"value": 0, "low": 0, "high": 0} for value in row["differences"].values())
    (row,) = validation.differences(plan, [other])
    assert all(value["low"] < value["high"] for value in row["differences"].values())


def test_a_killed_search_goes_on(run: Path, image_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.search.toy", str(run), str(image_folder)]
    process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        trials = next(int(line) for line in process.stdout if int(line) >= 5)
    finally:
        process.kill()
        process.wait()
    (killed,) = studies(run)
    before = {t.number: (t.values, t.user_attrs) for t in killed.trials if t.state.is_finished()}
    assert len(before) >= trials
    toy_search(run, image_folder, only="search", minutes=0.02)
    (after,) = studies(run)
    assert len([t for t in after.trials if t.state.is_finished()]) > len(before)
    assert {n: (after.trials[n].values, after.trials[n].user_attrs) for n in before} == before
    lost = [t for t in after.trials if t.state.name == "RUNNING"]
    assert len(lost) <= 1, "the trial that ran"
    again = [t for t in after.trials if t.state.name != "RUNNING"]
    assert all(t.user_attrs["digest"] in {other.user_attrs["digest"] for other in again} for t in lost)


def test_a_search_can_be_cancelled(run: Path, image_folder: Path) -> None:
    with pytest.raises(EvaluationCancelled):
        toy_search(run, image_folder, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], r"no built-in metric fits images of shape \(3, 16\): choose with --metric"),
        (["--metric", "fd-cifar"], r"was not trained on cifar10 or mnist: name real images with --reference"),
        (["--metric", "prc", "--reference", "x"], "metric 'prc' is not a distance that a search can minimise"),
        (["--metric", "nonsense"], "metric 'nonsense' is not a distance"),
        (["--minutes", "0"], "minutes is 0, expected more than 0"),
        (["--seed", "-1"], "the seed is -1, expected 0 or more"),
        (["--choices", "some"], "invalid choice 'some'"),
        (["--budgets", "0"], r"budgets are \[0\.0\], expected numbers of 2 … 10"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str], sentence: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(run), *options]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(sentence, error)


def test_a_search_needs_a_run_with_a_checkpoint(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkpoint in"):
        deediff_search(tmp_path / "empty")
    with pytest.raises(UserError, match="is no run folder"):
        deediff_search(run / "checkpoints" / "7.safetensors")


def deediff_search(path: Path) -> None:
    from deediff.search import search

    search(path)


def test_a_storage_of_another_run_is_refused(run: Path, image_folder: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    toy_search(run, image_folder, only="search", storage=storage, choices="full", minutes=0.001)
    other = make_run(tmp_path / "other", make_model(seed=1))
    with pytest.raises(UserError, match="holds a search of another checkpoint"):
        toy_search(other, image_folder, only="search", storage=storage, choices="full")
    with pytest.raises(UserError, match="storage nonsense cannot be opened"):
        toy_search(run, image_folder, only="search", storage="nonsense", choices="full")


def test_nothing_is_reported_before_a_plan_was_measured(run: Path, image_folder: Path) -> None:
    with pytest.raises(UserError, match="search for more minutes"):
        toy_search(run, image_folder, only="validation")


def test_optuna_is_imported_by_a_search_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, deediff.search, deediff.cli.search; assert 'optuna' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'deediff\[search\]'"):
        deediff_search(run)
