"""Others' checkpoints, and files that are not what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff.checkpoints import load_checkpoint, save_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.importing import import_exit_layers, import_uvit, uvit_config
from deediff.models import PRESETS, EarlyExitModel, UViT
from tests.conftest import TINY, make_model


@pytest.mark.parametrize(
    "config",
    [TINY, replace(TINY, num_classes=4), replace(TINY, mlp_time_embed=True, qkv_bias=True), replace(TINY, conv=False)],
)
def test_an_official_state_dict_gives_the_same_network(tmp_path: Path, config: object) -> None:
    net = UViT(config)  # type: ignore[arg-type]
    torch.save(net.state_dict(), tmp_path / "official.pth")
    run = import_uvit(tmp_path / "official.pth", tmp_path / "run", num_heads=2, images_seen=640)
    model, info = load_checkpoint(run)
    assert model.backbone.config() == net.config()
    assert info["images_seen"] == 640
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    y = torch.tensor([0, 1]) if net.num_classes else None
    with torch.no_grad():
        torch.testing.assert_close(model(x, t, y), net(x, t, y))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_are_recognised_with_their_number_of_heads(preset: str) -> None:
    with torch.device("meta"):
        state = UViT(PRESETS[preset]).state_dict()
    assert uvit_config(state) == PRESETS[preset]


def test_the_warm_start_imports(shared: Path, tmp_path: Path) -> None:
    model = deediff.load(import_uvit(shared / "checkpoints" / "uvit_tiny_cifar10.pth", tmp_path / "run"))
    assert model.num_blocks == 13
    assert model.uem is None


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="holds code and was not run"):
        import_uvit(tmp_path / "evil.pth", tmp_path / "run")
    assert "executed" not in capsys.readouterr().out


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        import_uvit(tmp_path / "text.pth", tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        import_uvit(tmp_path / "none.pth", tmp_path / "run")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not an official U-ViT state dict"):
        import_uvit(tmp_path / "other.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_exit_layers_out_of_range_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mlp=np.full((10, 4), 14))
    with pytest.raises(UserError, match="expected exit layers 0 … 13"):
        import_exit_layers(tmp_path / "a.npz", tmp_path / "run")
    np.savez(tmp_path / "b.npz", other=np.full((10, 4), 13))
    with pytest.raises(UserError, match="say --uem mlp or --uem attention"):
        import_exit_layers(tmp_path / "b.npz", tmp_path / "run")


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


def test_a_checkpoint_that_does_not_fit_its_json(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "1.safetensors", EarlyExitModel(UViT(TINY)), Schedule(), 1, 64)
    info = path.with_suffix(".json")
    info.write_text(info.read_text().replace('"embed_dim": 32', '"embed_dim": 64'))
    with pytest.raises(UserError, match="does not fit the model its JSON describes"):
        deediff.load(path)


def test_more_files_that_are_not_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        import_uvit(tmp_path / "empty.pth", tmp_path / "run")
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"neither a folder nor a readable \.npz"):
        import_exit_layers(tmp_path / "empty.npz", tmp_path / "run")
    np.savez(tmp_path / "out.npz", **{"mlp_/../../elsewhere": np.full((10, 4), 13)})
    with pytest.raises(UserError, match="expected letters, digits"):
        import_exit_layers(tmp_path / "out.npz", tmp_path / "run")
    (tmp_path / "sets").mkdir()
    torch.save({"a": torch.zeros(3)}, tmp_path / "sets" / "1.pt")
    with pytest.raises(UserError, match=r"are not tensors \(timesteps, samples\)"):
        import_exit_layers(tmp_path / "sets", tmp_path / "run")


def test_a_checkpoint_whose_json_was_not_written_yet_is_passed_over(run: Path) -> None:
    """A kill between the two files must not hide the older, whole checkpoint."""
    (run / "checkpoints" / "9.safetensors").write_bytes(b"half a checkpoint")
    assert deediff.load(run).num_blocks == 13


@pytest.mark.parametrize("schedule", ['{"num_timesteps": 3.5}', '{"beta_end": 5}', '{"beta_start": "x"}'])
def test_a_schedule_that_makes_no_sense(run: Path, schedule: str) -> None:
    file = run / "checkpoints" / "7.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schedule": json.loads(schedule)}))
    with pytest.raises(UserError, match="does not fit the model its JSON describes"):
        deediff.load(run)
