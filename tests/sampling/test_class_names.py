"""Classes by their names, as their folders are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import deediff
from deediff.cli import main
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.sampling.condition import class_numbers
from tests.conftest import TINY, make_model
from tests.trainer.toy import CLASSES, train


def named(*names: str) -> deediff.EarlyExitModel:
    model = make_model(config=replace(TINY, num_classes=len(names)))
    model.class_names = names
    return model


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("cat", "dog"), (0, 1)),
        (("dog,cat",), (1, 0)),
        (("ice cream, dog",), (2, 1)),
        (("salt, pepper",), (3,)),
        ((2, "dog"), (2, 1)),
        (("0", "2"), (0, 2)),
        (("0,dog",), (0, 1)),
    ],
)
def test_names_numbers_and_lists_of_them(given: tuple[int | str, ...], expected: tuple[int, ...]) -> None:
    assert class_numbers(named("cat", "dog", "ice cream", "salt, pepper"), given) == expected


def test_names_that_are_numbers_are_names() -> None:
    model = named("1", "2", "10")
    assert class_numbers(model, ("10", "1,2")) == (2, 0, 1)
    assert class_numbers(model, (2,)) == (2,)
    assert class_numbers(named("a", "u\u0308"), ("\u00fc",)) == (1,)  # the same letter, decomposed in a folder's name
    with pytest.raises(UserError, match="unknown class '0', expected some of 1, 2, 10"):
        class_numbers(model, ("0",))


def test_an_unknown_class_is_a_sentence() -> None:
    with pytest.raises(UserError, match="unknown class 'horse', expected some of cat, dog"):
        list(deediff.sample(named("cat", "dog"), num_samples=1, steps=1, classes=("horse",)))
    with pytest.raises(UserError, match="unknown class 'cat', expected numbers, for example 0,3"):
        class_numbers(make_model(config=replace(TINY, num_classes=3)), ("cat",))


def test_names_of_folders_reach_checkpoints_and_traces(class_folder: Path, tmp_path: Path) -> None:
    """The folders are called 1, 2 and 10: natural order is not the order of letters."""
    for old, new in (("a", "10"), ("b", "1"), ("c", "2")):
        (class_folder / old).rename(class_folder / new)
    run = tmp_path / "run"
    assert train(class_folder, run, *CLASSES) == 0
    assert read_json(run / "run.json")["class_names"] == ["1", "2", "10"]
    model = deediff.load(run)
    assert model.class_names == ("1", "2", "10")
    sampling = ["sample", str(run), "--steps", "2", "--num-samples", "2", "--out"]
    assert main([*sampling, str(run / "traces" / "t"), "--classes", "10,1"]) == 0
    trace = deediff.read_trace(run / "traces" / "t")
    assert trace.meta.settings is not None
    assert trace.meta.settings.classes == (2, 0)
    by_name, by_number = (list(deediff.sample(model, num_samples=2, steps=2, classes=c)) for c in (["10", "1"], [2, 0]))
    assert torch.equal(by_name[-1].x, by_number[-1].x)
    assert main([*sampling, str(run / "traces" / "u"), "--classes", "lion"]) == 2
