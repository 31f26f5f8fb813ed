"""Traces are compared image by image at equal noise only, and their seconds on equal machines only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import deediff
from deediff.analysis.compare import comparison_table
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.plans import Plan, PlanStep
from deediff.quality.pairs import find_full, image_distances
from deediff.settings import SamplingSettings
from deediff.traces.pairing import full_twin, same_machine, same_noise, speed_up
from tests.conftest import TINY, make_model, make_run, sample_trace

CLASSES = 4  # the last one means "no class"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_model(config=replace(TINY, num_classes=CLASSES))
    model.null_label = True
    return make_run(tmp_path_factory.mktemp("pairing") / "run", model)


def trace(run: Path, name: str, policy: str, **fields: Any) -> deediff.Trace:
    folder = run / "traces" / name
    settings = {"num_samples": 4, "batch_size": 4, "steps": 2, **fields}
    return deediff.read_trace(sample_trace(run, folder, policy=policy, **settings))


DIFFERENT: list[dict[str, Any]] = [
    {"guidance": 2.0},
    {"classes": (1, 2)},
    {"eta": 0.5},
    {"seed": 1},
    {"steps": 3},
    {"solver": "ddpm"},
    {"timesteps": (999, 300)},
    {"clip_x0": True},
]


@pytest.mark.parametrize("fields", DIFFERENT, ids=lambda fields: next(iter(fields)))
def test_traces_of_other_noise_are_never_paired(run: Path, fields: dict[str, Any]) -> None:
    name = next(iter(fields))
    exits = trace(run, f"exits-{name}", "fixed:4")
    full = trace(run, f"full-{name}", "never", **fields)
    own = trace(run, f"own-{name}", "never")
    assert not same_noise(exits.meta, full.meta)
    assert same_noise(exits.meta, own.meta)
    with pytest.raises(UserError, match="do not come from the same noise"):
        image_distances(exits, full)
    assert full_twin(exits, [full]) is None
    assert full_twin(exits, [full, own]) is own
    assert speed_up(exits, [full]) is None
    row = comparison_table([exits, full]).iloc[0]
    assert pd.isna(row["speed_up"])
    assert pd.isna(row["image_change"])
    assert not pd.isna(comparison_table([exits, full, own]).iloc[0]["speed_up"])


def test_the_full_twin_of_a_folder_has_the_same_noise(run: Path, tmp_path: Path) -> None:
    copy = make_run(tmp_path / "run", deediff.load(run))
    exits = trace(copy, "exits", "fixed:4", guidance=2.0)
    trace(copy, "a-full", "never")
    assert find_full(exits) is None
    assert find_full(trace(copy, "z-full", "never", guidance=2.0)) is not None


@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 2), ("device", "another"), ("threads", 99), ("dtype", "x")]
)
def test_seconds_of_another_machine_give_no_speed_up(run: Path, field: str, value: object) -> None:
    exits, full = trace(run, "exits", "fixed:4"), trace(run, f"slow-{field}", "never")
    assert same_machine(exits.meta, full.meta)
    assert speed_up(exits, [full]) is not None
    file = full.path / "trace.json"
    content = {**read_json(file), field: value}
    if field == "dtype":
        content["dtype"] = "bfloat16"
    write_json(file, content)
    other = deediff.read_trace(full.path)
    assert same_noise(exits.meta, other.meta)
    assert not same_machine(exits.meta, other.meta)
    assert speed_up(exits, [other]) is None


@pytest.mark.parametrize("fields", [*DIFFERENT, {"clip_x0": True}], ids=lambda fields: next(iter(fields)))
def test_an_oracle_refuses_a_recording_of_other_noise(run: Path, fields: dict[str, Any]) -> None:
    own = {"steps": 2, "num_samples": 4, "batch_size": 4}
    recording = trace(run, "recording", "never", record="full", deviations=True)
    policy, model = f"oracle:1@{recording.path}", deediff.load(run)
    assert len(list(deediff.sample(model, policy=policy, **own))) == 2
    with pytest.raises(UserError, match="policy oracle"):
        deediff.sample(model, policy=policy, **{**own, **fields})
    with pytest.raises(UserError, match="policy oracle"):
        deediff.sample(model, policy=policy + ",max:9", **{**own, **fields})


def test_an_unknown_machine_gives_no_speed_up(run: Path) -> None:
    exits, full = trace(run, "exits", "fixed:4"), trace(run, "full-unknown", "never")
    unknown = [replace(each.meta, device=None) for each in (exits, full)]
    assert not same_machine(*unknown)


def test_imported_traces_have_unknown_noise() -> None:
    imported = replace(_meta(), settings=None)
    assert not same_noise(imported, imported)


def test_every_setting_survives_the_json() -> None:
    settings = SamplingSettings(
        policy="threshold:0.5,min:2",
        solver="ddpm",
        steps=4,
        timesteps=(640, 410, 90, 5),
        clip_x0=True,
        dynamic_threshold=0.9,
        eta=0.0,
        num_samples=3,
        batch_size=2,
        readout="memory:1",
        seed=5,
        record="full",
        deviations=True,
        classes=(1, 2),
        guidance=1.5,
        recalibrated=True,
        dtype="float32",
        plan=Plan(
            (PlanStep(640, 0, "gaussian"), PlanStep(410, "policy"), PlanStep(90, network="../b"), PlanStep(5, 13)),
            num_blocks=13,
            solver="ddpm",
            clip_x0=True,
            dynamic_threshold=0.9,
            name="p",
        ),
        checkpoint="7.safetensors",
        checkpoint_sha256="a",
    )
    default = vars(SamplingSettings())
    assert [name for name, value in vars(settings).items() if value == default[name]] == ["spacing", "eta"]
    again = SamplingSettings.from_json(json.loads(json.dumps(settings.to_json())))
    assert again == settings
    assert again.plan is not None
    assert again.plan.name == "p"
    spaced = replace(settings, plan=None, spacing="linspace", solver="ddim", eta=0.5)
    assert SamplingSettings.from_json(spaced.to_json()) == spaced


def _meta() -> Any:
    from deediff.cost.cost import Cost
    from deediff.settings import PolicySpec
    from deediff.traces.meta import TraceMeta

    cost = Cost(0.1, [1.0], [], [], 0.1)
    return TraceMeta(PolicySpec("imported"), 1, 1, [0], "exit", False, False, True, cost)
