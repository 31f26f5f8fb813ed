"""Timesteps given one by one, and clipped images, obey the sampler's laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import deediff
from deediff.cli import main
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.recording.recompute import recompute
from deediff.sampling import Step, sample
from deediff.settings import SamplingSettings
from tests.conftest import TAU, comparable, make_model, record
from tests.sampling.common import Case, assert_same_x

MODEL = make_model()
SETTINGS: list[dict[str, Any]] = [
    {"timesteps": (999, 640, 410, 90)},
    {"timesteps": (700, 300), "solver": "dpm-solver++", "clip_x0": True},
    {"steps": 4, "spacing": "log-snr", "solver": "ddpm", "clip_x0": True, "dynamic_threshold": 0.9},
]


def steps_of(**fields: Any) -> list[Step]:
    return list(sample(MODEL, policy=f"threshold:{TAU}", **{"num_samples": 6, "seed": 3, **fields}))


def test_spaced_timesteps_given_one_by_one_are_the_same_sampling() -> None:
    spaced = steps_of(steps=5)
    given = steps_of(timesteps=[step.timestep for step in spaced])
    for a, b in zip(spaced, given, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.exit_layer, b.exit_layer)


def test_the_network_is_evaluated_at_the_given_timesteps() -> None:
    assert [step.timestep for step in steps_of(timesteps=(999, 640, 90))] == [999, 640, 90]
    assert SamplingSettings(timesteps=(999, 640, 90)).steps == 3


@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_a_batch_equals_its_samples_alone(case: Case, fields: dict[str, Any]) -> None:
    fields = {**fields, "num_samples": 6, "seed": 3, "policy": f"threshold:{case.tau}"}
    together, alone = case.steps(batch_size=6, **fields), case.steps(batch_size=1, **fields)
    count = len(together)
    for s, step in enumerate(together):
        singles = [alone[sample * count + s] for sample in range(6)]
        assert_same_x(step.x, torch.cat([one.x for one in singles]))
        assert torch.equal(step.exit_layer, torch.cat([one.exit_layer for one in singles]))


def test_a_clipped_prediction_stays_within_the_image_range() -> None:
    plain, clipped = steps_of(steps=4), steps_of(steps=4, clip_x0=True)
    assert max(float(step.x0.abs().max()) for step in plain) > 1.5
    assert max(float(step.x0.abs().max()) for step in clipped) <= 1
    assert torch.equal(plain[0].exit_layer, clipped[0].exit_layer)  # the network's input differs from step 1 on only


@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_a_trace_records_them_and_is_recomputed_from_them(run: Path, fields: dict[str, Any]) -> None:
    trace = record(run, "t", policy="threshold:0.5", **fields)
    settings = trace.meta.settings
    assert settings is not None
    assert settings.timesteps == tuple(trace.timesteps)
    assert (settings.clip_x0, settings.dynamic_threshold) == (
        fields.get("clip_x0", False),
        fields.get("dynamic_threshold"),
    )
    steps = list(recompute(trace, 4, deediff.load(run), Schedule()))
    assert [int(step.exit_layer) for step in steps] == trace.exit_layers()[4].tolist()
    before = comparable(trace)
    (trace.path / "part-00001.parquet").unlink()
    assert comparable(record(run, "t", policy="threshold:0.5", **fields)) == before


def test_another_clipping_is_another_trace(run: Path) -> None:
    record(run, "t")
    with pytest.raises(UserError, match=r"holds another trace \(different: clip_x0\)"):
        record(run, "t", clip_x0=True)


def test_the_command_line_takes_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(run), "--num-samples", "2", "--out", str(run / "traces" / "t"), "--json"]
    assert main([*command, "--timesteps", "999,500,20", "--clip-x0"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    trace = deediff.read_trace(run / "traces" / "t")
    assert trace.timesteps == [999, 500, 20]
    for words, sentence in (
        (["--timesteps", "999,x"], "is not a list of timesteps"),
        (["--timesteps", "20,500"], "timestep 500 follows 20"),
        (["--timesteps", "500,20", "--steps", "3"], "2 timesteps are given, but 3 steps: leave steps out"),
        (["--timesteps", "500,20", "--spacing", "log-snr"], "one by one, so leave spacing out"),
        (["--timesteps", "1000,20"], "timestep 1000 is out of range"),
        (["--dynamic-threshold", "0.9"], "needs clip_x0"),
        (["--clip-x0", "--dynamic-threshold", "2"], "expected a percentile in (0, 1]"),
    ):
        assert main([*command[:-2], str(run / "traces" / "bad"), *words]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert len(error.strip().splitlines()) == 1
        assert not (run / "traces" / "bad").exists()
