"""Claims about plans: the verdict is that of the validated numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deediff.errors import UserError
from trainer.suites.plan_claims import plan_verdicts


def point(name: str, evaluations: float, value: float, **more: Any) -> dict[str, Any]:
    return {"plan": name, "evaluations": evaluations, "metrics": {"fd-mnist": {"value": value}}, **more}


def compared(name: str, saving: float) -> dict[str, Any]:
    change = {"value": 0.05, "low": -0.1, "high": 0.2}
    return {"plan": name, "saving": saving, "differences": {"fd-mnist": change}}


def write_front(folder: Path, evaluations: float, value: float) -> None:
    rows = [compared("12-uniform", 1 - evaluations / 12), compared("6.00-ends", 1 - evaluations / 6)]
    front = {
        "metric": "fd-mnist",
        "images": 2048,
        "uniform": {"points": [point("8-uniform", 8, 5.2), point("12-uniform", 12, 5.0)]},
        "ends": {"points": [point("4.00-ends", 4, 5.4), point("6.00-ends", 6, 5.0)]},
        "all": {"points": [point("a", evaluations, value, compared_with=rows), point("b", 9.0, 4.9)]},
    }
    (folder / "mnist_tiny").mkdir(exist_ok=True)
    (folder / "mnist_tiny" / "front.json").write_text(json.dumps(front))


@pytest.mark.parametrize(
    ("evaluations", "value", "verdicts"),
    [
        (3.5, 5.09, ["holds", "holds"]),  # within 2 %, 71 % and 42 % cheaper
        (4.0, 5.09, ["does not hold", "does not hold"]),  # 67 % and 33 %
        (3.65, 5.0, ["does not hold", "does not hold"]),  # 69.6 % and 39.2 %
    ],
)
def test_a_claim_holds_for_the_cheapest_plan_of_equal_quality(
    evaluations: float, value: float, verdicts: list[str], tmp_path: Path
) -> None:
    write_front(tmp_path, evaluations, value)
    rows = list(plan_verdicts(tmp_path))
    assert [row["verdict"] for row in rows] == verdicts
    assert f"{evaluations:.2f} evaluations against fd-mnist 5.00 at 12.00 evaluations" in rows[0]["measured"]
    assert "paired difference +0.05 [-0.10, +0.20], N = 2,048" in rows[1]["measured"]


def test_a_plan_of_worse_quality_does_not_count(tmp_path: Path) -> None:
    write_front(tmp_path, 3.0, 5.11)
    file = tmp_path / "mnist_tiny" / "front.json"
    front = json.loads(file.read_text())
    del front["all"]["points"][1]
    del front["ends"]
    file.write_text(json.dumps(front))
    first, second = plan_verdicts(tmp_path)
    assert (first["verdict"], first["measured"][:23]) == ("does not hold", "no plan is within 2 % o")
    assert second["verdict"] == "not measured"
    write_front(tmp_path, 3.0, 5.0)
    front = json.loads(file.read_text())
    del front["all"]["points"][0]["compared_with"][1]
    file.write_text(json.dumps(front))
    first, second = plan_verdicts(tmp_path)
    assert (first["verdict"], second["verdict"]) == ("holds", "not measured")


def test_without_fronts_there_is_no_row_and_a_damaged_one_is_a_sentence(tmp_path: Path) -> None:
    assert list(plan_verdicts(tmp_path)) == []
    write_front(tmp_path, 3.0, 5.0)
    (tmp_path / "mnist_tiny" / "front.json").write_text('{"metric": "fd-mnist", "all": {}, "uniform": {}}')
    with pytest.raises(UserError, match=r"front\.json is damaged"):
        list(plan_verdicts(tmp_path))
