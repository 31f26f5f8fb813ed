"""A sample recomputed from its seed equals the recorded one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deediff
from deediff.datasets import to_uint8
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.recording.recompute import recompute
from tests.conftest import sample_trace

STEPS, SAMPLES, BATCH = 6, 7, 3


def make_trace(run: Path, policy: str, solver: str = "ddim", **settings: object) -> deediff.Trace:
    folder = run / "traces" / f"{solver}-{len(list(run.glob('traces/*')))}"
    sample_trace(run, folder, SAMPLES, policy, solver, STEPS, seed=5, batch_size=BATCH, **settings)  # type: ignore[arg-type]
    return deediff.read_trace(folder)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)), dtype=int)


@pytest.mark.parametrize(
    ("policy", "solver", "settings"),
    [
        ("threshold:0.45", "ddim", {}),
        ("threshold:0.45", "ddpm", {"record": "full"}),
        ("fixed:4", "dpm-solver++", {}),
        ("threshold:0.5,min:2", "ddim", {"eta": 1.0, "spacing": "linspace"}),
        ("batch-mean:0.48", "ddpm", {}),
    ],
)
def test_a_recomputed_sample_is_the_one_of_the_trace(
    policy: str, solver: str, settings: dict[str, object], run: Path
) -> None:
    trace, model = make_trace(run, policy, solver, **settings), deediff.load(run)
    rows = trace.exit_layers()
    if policy.startswith("threshold"):
        assert len(np.unique(rows)) > 1
    for number in (0, 4, SAMPLES - 1):
        steps = list(recompute(trace, number, model, Schedule()))
        assert [s.timestep for s in steps] == trace.timesteps
        np.testing.assert_array_equal(torch.cat([s.exit_layer for s in steps]).numpy(), rows[number])
        image = to_uint8(steps[-1].x)[0].permute(1, 2, 0).numpy().astype(int)
        png = trace.samples(range(number, number + 1))["png"].iloc[0]
        assert np.abs(image - pixels(png)).max() <= 2


def test_its_full_network_twin_starts_from_the_same_noise(run: Path) -> None:
    exits, full, model = make_trace(run, "threshold:0.45"), make_trace(run, "never"), deediff.load(run)
    last = list(recompute(exits, 4, model, Schedule(), policy="never"))[-1]
    image = to_uint8(last.x)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(image - pixels(full.samples([4])["png"].iloc[0])).max() <= 2


def test_a_trace_of_other_weights_is_refused(run: Path) -> None:
    trace, model = make_trace(run, "never"), deediff.load(run)
    write_json(trace.path / "trace.json", {**read_json(trace.path / "trace.json"), "checkpoint_sha256": "0" * 64})
    with pytest.raises(UserError, match="other weights"):
        recompute(deediff.read_trace(trace.path), 0, model, Schedule())


def test_a_policy_file_that_has_changed_is_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps({"exit_layer": [3]}))
    trace, model = make_trace(run, f"schedule:{file}"), deediff.load(run)
    assert next(recompute(trace, 0, model, Schedule())).exit_layer.tolist() == [3]
    file.write_text(json.dumps({"exit_layer": [4]}))
    with pytest.raises(UserError, match="has changed"):
        recompute(trace, 0, model, Schedule())


def test_a_sample_that_does_not_exist_is_refused(run: Path) -> None:
    trace, model = make_trace(run, "never"), deediff.load(run)
    with pytest.raises(UserError, match=f"no sample {SAMPLES}"):
        recompute(trace, SAMPLES, model, Schedule())


def test_a_bounded_threshold_is_no_plain_one(run: Path) -> None:
    trace = make_trace(run, "threshold:0.5,min:2")
    assert trace.threshold is None
    assert trace.what_if_limit is None  # u after the forced and the late exits is unknown
    assert make_trace(run, "threshold:0.5").threshold == 0.5
