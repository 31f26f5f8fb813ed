"""The class of a sample is shown by its name."""

from __future__ import annotations

from pathlib import Path

import deediff
from app.state.classes import class_of
from deediff.json_files import read_json, write_json
from tests.app.helpers import EXITS, open_app


def test_a_sample_has_the_name_of_its_class(runs: Path) -> None:
    run = runs / "toy"
    trace = deediff.read_trace(run / "traces" / EXITS)
    assert class_of(trace, 4) is None
    info = {**read_json(run / "run.json"), "class_names": ["cat", "dog", "10"]}
    write_json(run / "run.json", info)
    assert class_of(trace, 4) is None  # an unconditional model
    write_json(run / "run.json", info | {"config": {"model": {"num_classes": 4}}})
    assert [class_of(trace, number) for number in range(4)] == ["cat", "dog", "10", "cat"]
    content = read_json(trace.path / "trace.json")
    write_json(trace.path / "trace.json", {**content, "classes": [2, 1]})
    trace = deediff.read_trace(trace.path)
    assert [class_of(trace, number) for number in range(4)] == ["10", "dog", "10", "dog"]
    app = open_app("sample", trace=EXITS, sample="1")
    assert any("class dog" in text.value for text in app.markdown)
