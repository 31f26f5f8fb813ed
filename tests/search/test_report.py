"""front.json and the plan files after several searches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deediff.plans.file import read_validation
from tests.search.toy import toy_search


@pytest.mark.slow  # several searches
def test_comparisons_with_a_plan_that_is_another_one_now_are_dropped(run: Path, image_folder: Path) -> None:
    toy_search(run, image_folder, choices="full", minutes=0.15)
    front = toy_search(run, image_folder, choices="ends", minutes=0.15)
    old, kept = front["full"]["points"][0]["plan"], front["full"]["points"][-1]["plan"]
    mine = front["ends"]["points"][0]
    assert {old, kept} <= {row["plan"] for row in mine["compared_with"]}
    front["full"]["points"][0]["timesteps"][-1] += 1  # as if another plan had had this name
    (run / "front.json").write_text(json.dumps(front))
    front = toy_search(run, image_folder, choices="full", only="validation")
    mine = front["ends"]["points"][0]
    record = read_validation(run / "plans" / f"{mine['plan']}.json")
    assert record is not None
    for rows in (mine["compared_with"], record["compared_with"]):
        names = {row["plan"] for row in rows}
        assert old not in names
        assert {kept, "12-uniform"} <= names
