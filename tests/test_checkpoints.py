"""Checkpoint files: saved, loaded, missing, corrupt."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import deediff
from deediff.checkpoints import save_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from tests.conftest import TINY, make_model


def test_checkpoint_round_trip_in_half_precision(tmp_path: Path) -> None:
    model = make_model()
    path = save_checkpoint(tmp_path / "1.safetensors", model, Schedule(), 1, 64, dtype=torch.bfloat16)
    again = deediff.load(path)
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a.bfloat16().float(), b)


def test_missing_and_corrupt_checkpoints(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match="does not exist: pass a run folder"):
        deediff.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no checkpoint in"):
        deediff.load(tmp_path)
    file = run / "checkpoints" / "7.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="corrupt or cut short"):
        deediff.load(run)


def test_a_changed_bit_of_the_weights_is_refused(run: Path) -> None:
    file = run / "checkpoints" / "7.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"7\.safetensors is not the file that was saved \(SHA-256 \w+, expected"):
        deediff.load(run)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    model = make_model()
    assert model.uem is not None
    next(model.uem.parameters()).data.flatten()[0] = value  # with NaN, no sample would exit
    path = save_checkpoint(tmp_path / "1.safetensors", model, Schedule(), 1, 64)
    with pytest.raises(UserError, match=r"uem\..* holds values that are not finite real numbers"):
        deediff.load(path)


def test_a_checkpoint_that_does_not_fit_its_json(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "1.safetensors", EarlyExitModel(UViT(TINY)), Schedule(), 1, 64)
    info = path.with_suffix(".json")
    info.write_text(info.read_text().replace('"embed_dim": 32', '"embed_dim": 64'))
    with pytest.raises(UserError, match="does not fit the model its JSON describes"):
        deediff.load(path)


def test_a_checkpoint_without_its_json_is_ignored(run: Path) -> None:
    """A trainer killed between the two files must not hide the older, complete checkpoint."""
    (run / "checkpoints" / "9.safetensors").write_bytes(b"half a checkpoint")
    assert deediff.load(run).num_blocks == 13


@pytest.mark.parametrize("schedule", ['{"num_timesteps": 3.5}', '{"beta_end": 5}', '{"beta_start": "x"}'])
def test_an_invalid_schedule_is_refused(run: Path, schedule: str) -> None:
    file = run / "checkpoints" / "7.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schedule": json.loads(schedule)}))
    with pytest.raises(UserError, match="does not fit the model its JSON describes"):
        deediff.load(run)


def test_exits_alone_give_the_same_model_as_long_as_their_base_is_there(run: Path, tmp_path: Path) -> None:
    base = run / "checkpoints" / "7.safetensors"
    model = deediff.load(base)
    changed = next(name for name in model.state_dict() if name.startswith("heads."))
    model.state_dict()[changed].add_(1.0)
    folder = run.parent / "exits" / "checkpoints"
    folder.mkdir(parents=True)
    path = save_checkpoint(folder / "9.safetensors", model, Schedule(), 9, 64, base=base)
    assert path.stat().st_size < base.stat().st_size / 10
    again = deediff.load(path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert not torch.equal(again.state_dict()[changed], deediff.load(base).state_dict()[changed])
    base.write_bytes(base.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"7\.safetensors is not the file that was saved"):
        deediff.load(path)
    base.unlink()
    with pytest.raises(UserError, match=r"holds only what differs from .*7\.safetensors, which is missing"):
        deediff.load(path)
