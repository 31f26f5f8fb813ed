"""Claims compared with results: each can hold, fail and be undecided; missing rows are named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO
from tests.trainer.suites.test_suite import run
from trainer.run import main
from trainer.suites.claims import CLAIMS, as_markdown, verdicts
from trainer.suites.tables import SUITES

FLAT, RISING = [0.3, 0.2, 0.1, 0.1, 0.1], [0.3, 0.2, 0.1, 0.2, 0.1]


def measured(saved: float, quality: float, noise: float = 0.1, **more: Any) -> dict[str, Any]:
    value = {"value": quality, "low": quality - noise, "high": quality + noise, "floor": 0.1}
    line = {"num_blocks": 5, "layer_reduction_pct": saved, "mean_exit_layer": [1.0, 4.0, 5.0], "layer_0_pct": 0.0}
    return line | {"gflops": 1.0, "gflops_per_image": 50.0, "timestep_share": 0.95, "fd-mnist": value} | more


WORLD = {  # results with which every claim holds
    "U-ViT": measured(0, 5.0, gflops_per_image=80.0),
    "MLP per layer, frozen": measured(41, 5.4),
    "MLP per layer, frozen, τ = 0.05": measured(10, 5.1),
    "MLP per layer, frozen, τ = 0.1": measured(50, 9.0, layer_0_pct=3.0),
    "MLP per layer, fine-tuned": measured(45, 7.0),
    "MLP per layer, scratch": measured(44, 8.0),
    "MLP, 4 losses, fine-tuned": measured(45, 6.0),
    "MLP per timestep, frozen": measured(0.2, 5.0),
    "MLP per timestep, frozen: the first sample's timestep for the whole batch": measured(20, 5.0),
    "MLP per layer and timestep, frozen": measured(0.2, 5.0),
    "attention per layer, frozen": measured(41, 5.6, gflops=1.2),
    "attention per layer, fine-tuned": measured(44, 7.0, gflops=1.2),
    "attention per layer, scratch": measured(44, 8.0, gflops=1.2),
    "attention, 4 losses, fine-tuned": measured(45, 6.0),
    "best static schedule": measured(41, 6.0),
    "fewer steps": measured(0, 6.0),
    "a smaller network": measured(0, 6.0),
    "dual backbone": measured(40, 5.1),
    "ASE's schedule": measured(40, 5.4),
}
TRENDS = {
    "MLP per layer, frozen": {"mean_uncertainty": [RISING] * 3},
    "MLP per layer, fine-tuned": {"mean_uncertainty": [FLAT] * 3},
    "MLP per layer, scratch": {"mean_uncertainty": [FLAT] * 3},
    "MLP, 4 losses, fine-tuned": {"mean_uncertainty": [FLAT] * 3},
}
Changes = dict[str, dict[str, Any]]
FALSE: dict[str, list[Changes]] = {  # beginning of a claim: results with which it does not hold
    "exits are very early": [
        {"MLP per layer, frozen": {"mean_exit_layer": [4.0, 4.0, 4.0]}},
        {"MLP per layer, frozen": {"mean_exit_layer": [1.0, 4.0, 4.0]}},
    ],
    "with a frozen backbone u rises": [
        {"trends/MLP per layer, frozen": {"mean_uncertainty": [RISING, FLAT, RISING]}},
    ],
    "fine-tuning makes u": [{"trends/MLP per layer, fine-tuned": {"mean_uncertainty": [FLAT, FLAT, RISING]}}],
    "training from scratch makes": [{"trends/MLP per layer, scratch": {"mean_uncertainty": [FLAT, RISING, FLAT]}}],
    "the fourth loss makes": [{"trends/MLP, 4 losses, fine-tuned": {"mean_uncertainty": [RISING, FLAT, FLAT]}}],
    "layer 0": [
        {"MLP per layer, frozen, τ = 0.05": {"layer_0_pct": 2.0}},
        {"MLP per layer, frozen": {"layer_0_pct": 2.0}},
        {"MLP per layer, frozen, τ = 0.1": {"layer_0_pct": 0.1}},
    ],
    "τ ≤ 0.05 hardly": [
        {"MLP per layer, frozen, τ = 0.05": measured(10, 5.8), "MLP per layer, frozen": measured(41, 8.0)},
        {"MLP per layer, frozen, τ = 0.05": measured(10, 5.1), "MLP per layer, frozen": measured(41, 5.2)},
    ],
    "fine-tuned backbones exit": [
        {"MLP per layer, fine-tuned": measured(39, 7.0)},
        {"MLP per layer, fine-tuned": measured(45, 5.0)},
        {"attention per layer, fine-tuned": measured(45, 5.0)},
    ],
    "training from scratch gives": [
        {"MLP per layer, scratch": measured(44, 6.0)},
        {"attention per layer, scratch": measured(44, 6.0)},
    ],
    "with UEMs per timestep": [{"MLP per timestep, frozen": measured(30, 5.0)}],
    "with UEMs per layer": [{"MLP per layer and timestep, frozen": measured(30, 5.0)}],
    "attention UEMs": [
        {"attention per layer, frozen": measured(30, 5.3, gflops=1.2)},
        {"attention per layer, frozen": measured(41, 5.3, gflops=0.9)},
        {"attention per layer, fine-tuned": measured(30, 5.3, gflops=1.2)},
    ],
    "the fourth loss gives": [
        {"MLP, 4 losses, fine-tuned": measured(20, 6.0)},
        {"MLP, 4 losses, fine-tuned": measured(45, 7.5)},
        {"attention, 4 losses, fine-tuned": measured(45, 7.5)},
    ],
    "40 % fewer": [
        {"MLP per layer, frozen": measured(30, 5.4), "attention per layer, frozen": measured(30, 5.4)},
        {"MLP per layer, frozen": measured(41, 6.0), "attention per layer, frozen": measured(41, 6.0)},
    ],
    "early exit beats a static": [{"best static schedule": measured(41, 5.0)}],
    "early exit beats fewer": [{"fewer steps": measured(0, 5.0)}],
    "early exit beats a smaller": [
        {"a smaller network": measured(0, 5.0)},
        {"a smaller network": measured(0, 6.0, gflops_per_image=40.0)},
    ],
    "a shallow network": [
        {"dual backbone": measured(40, 5.7)},
        {"dual backbone": measured(40, 5.1, gflops_per_image=60.0)},
    ],
    "the timestep determines": [{"attention per layer, fine-tuned": {"timestep_share": 0.5}}],
    "a fixed exit layer": [
        {"ASE's schedule": measured(40, 6.0)},
        {"ASE's schedule": measured(40, 5.4, gflops_per_image=70.0)},
    ],
}
UNSURE: dict[str, Changes] = {  # beginning of a claim: results with which it is undecided
    "τ ≤ 0.05 hardly": {"MLP per layer, frozen": measured(41, 6.0, noise=2.0)},
    "fine-tuned backbones exit": {"MLP per layer, fine-tuned": measured(45, 7.0, noise=2.0)},
    "training from scratch gives": {"MLP per layer, scratch": measured(45, 7.5, noise=1.0)},
    "the fourth loss gives": {"MLP, 4 losses, fine-tuned": measured(45, 6.5, noise=1.0)},
    "40 % fewer": {
        "MLP per layer, frozen": measured(41, 6.0, noise=2.0),
        "attention per layer, frozen": measured(41, 9.0),
    },
    "early exit beats a static": {"best static schedule": measured(41, 5.0, noise=1.0)},
    "a shallow network": {"dual backbone": measured(40, 5.7, noise=1.0)},
    "a fixed exit layer": {"ASE's schedule": measured(40, 6.0, noise=2.0)},
}


def write(folder: Path, rows: dict[str, Any], trends: dict[str, Any]) -> Path:
    for name, content in (("table1", rows), ("trends", trends)):
        lines = [{"name": row, "measured": values} for row, values in content.items()]
        (folder / f"suite-{name}.json").write_text(json.dumps({"rows": lines}))
    return folder


def verdict(folder: Path, beginning: str) -> str:
    return next(line["verdict"] for line in verdicts(folder) if line["claim"].startswith(beginning))


def changed(folder: Path, changes: Changes) -> Path:
    """WORLD with changes in some rows."""
    rows, trends = copy.deepcopy(WORLD), copy.deepcopy(TRENDS)
    for name, change in changes.items():
        (trends if name.startswith("trends/") else rows)[name.removeprefix("trends/")].update(change)
    return write(folder, rows, trends)


def test_every_claim_can_hold(tmp_path: Path) -> None:
    lines = verdicts(write(tmp_path, WORLD, TRENDS))
    thresholds = next(line for line in lines if line["claim"].startswith("τ ≤"))
    assert thresholds["verdict"] == "does not hold"  # it contradicts the claim of AdaDiff
    assert {line["verdict"] for line in lines if line is not thresholds} == {"holds"}
    assert verdict(changed(tmp_path, {"MLP per layer, frozen": measured(41, 5.6)}), "τ ≤") == "holds"


@pytest.mark.parametrize("beginning", FALSE)
def test_every_claim_can_be_wrong(beginning: str, tmp_path: Path) -> None:
    for changes in FALSE[beginning]:
        assert verdict(changed(tmp_path, changes), beginning) == "does not hold", changes


@pytest.mark.parametrize("beginning", UNSURE)
def test_qualities_whose_intervals_overlap_decide_nothing(beginning: str, tmp_path: Path) -> None:
    assert verdict(changed(tmp_path, UNSURE[beginning]), beginning) == "inside the noise"


def test_a_claim_about_both_uems_is_judged_by_those_that_were_measured(tmp_path: Path) -> None:
    rows = {name: row for name, row in WORLD.items() if not name.startswith("attention")}
    lines = {line["claim"]: line for line in verdicts(write(tmp_path, rows, TRENDS))}
    fourth = next(line for claim, line in lines.items() if claim.startswith("the fourth loss gives"))
    assert fourth["verdict"] == "holds"
    assert "attention" not in fourth["measured"]
    attention = next(line for claim, line in lines.items() if claim.startswith("attention UEMs"))
    assert attention["verdict"] == "not measured"


def test_every_claim_is_tried_and_measured_by_a_suite_that_has_its_rows() -> None:
    assert len(FALSE) == len(CLAIMS)
    assert all(any(claim.text.startswith(beginning) for beginning in FALSE) for claim in CLAIMS)
    names = {row.name for rows in SUITES.values() for row in rows}
    assert set(WORLD) | set(TRENDS) <= names


def test_claims_without_results_name_the_missing_row(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("table4", tmp_path, shared)
    capsys.readouterr()
    assert main(["claims", "--out", str(tmp_path)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(CLAIMS)
    scratch = next(line for line in table if line.startswith("| training from scratch gives"))
    assert "| not measured | no row “MLP per layer, scratch” | the quality is worse than fine-tuned" in scratch
    assert scratch.endswith("| python -m trainer.run suite:table1 |")
    assert "% of the decisions" in next(line for line in table if line.startswith("| layer 0"))


def test_a_quality_without_an_interval_is_not_judged(tmp_path: Path) -> None:
    bare = {"value": 9.0, "low": None, "high": None, "floor": 0.1}
    folder = changed(tmp_path, {"best static schedule": {"fd-mnist": bare}})
    line = next(line for line in verdicts(folder) if line["claim"].startswith("early exit beats a static"))
    assert (line["verdict"], line["measured"]) == ("not measured", "no row “best static schedule” with an interval")


def test_the_included_table_is_that_of_the_included_results() -> None:
    runs = REPO / "runs"
    assert (runs / "CLAIMS.md").read_text(encoding="utf-8") == as_markdown(verdicts(runs)) + "\n"


def test_results_of_two_scales_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, WORLD, TRENDS)
    (tmp_path / "suite-table4.json").write_text(json.dumps({"scale": "paper", "rows": []}))
    assert main(["claims", "--out", str(tmp_path)]) == 2
    assert "holds results of several scales" in capsys.readouterr().err


def test_a_folder_without_results_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--out", str(tmp_path)]) == 2
    assert "holds no results of suites" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda file: file.pop("rows"), "suite-table1.json lacks 'rows'"),
        (lambda file: file["rows"][0].pop("name"), "suite-table1.json, row 0 lacks 'name'"),
        (lambda file: file["rows"][1].pop("measured"), "suite-table1.json, row 1 lacks 'measured'"),
        (lambda file: file["rows"].__setitem__(2, None), "suite-table1.json, row 2 is 'None'"),
        (lambda file: file["rows"][1]["measured"].pop("gflops"), "row 1, measured lacks 'gflops'"),
        (lambda file: file["rows"][0]["measured"]["fd-mnist"].pop("value"), "measured, fd-mnist lacks 'value'"),
    ],
)
def test_a_damaged_results_file_is_a_sentence(
    damage: Callable[[Any], None], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, WORLD, TRENDS) / "suite-table1.json"
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    assert main(["claims", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.startswith("error: ")
    assert "delete it and run its suite again" in said
