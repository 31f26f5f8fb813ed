"""Others' checkpoints, and files that are not what they say."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import deediff
from deediff.checkpoints import load_checkpoint, save_checkpoint
from deediff.cli import main
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.importing.checkpoint import import_checkpoint
from deediff.importing.exit_layers import import_exit_layers
from deediff.importing.pickled import load_pickled
from deediff.models import PRESETS, EarlyExitModel, UViT, UViTConfig
from deediff.models.official import uvit_config
from tests.conftest import TINY, make_model


@pytest.mark.parametrize(
    "config",
    [TINY, replace(TINY, num_classes=4), replace(TINY, mlp_time_embed=True, qkv_bias=True), replace(TINY, conv=False)],
)
def test_an_official_state_dict_gives_the_same_network(tmp_path: Path, config: object) -> None:
    net = UViT(config)  # type: ignore[arg-type]
    torch.save(net.state_dict(), tmp_path / "official.pth")
    run = import_checkpoint(tmp_path / "official.pth", tmp_path / "run", num_heads=2, images_seen=640)
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


@pytest.mark.parametrize(("width", "depth", "heads"), [(512, 12, 8), (768, 16, 12), (1024, 20, 16), (1152, 28, 16)])
def test_the_official_sizes_have_their_number_of_heads_at_any_resolution(width: int, depth: int, heads: int) -> None:
    """S, M, L and H; H has 72 channels per head, also on the 64×64 latents of ImageNet 512."""
    for pixels, patch, channels, classes in ((32, 2, 4, 1001), (64, 4, 4, 1001), (64, 4, 3, 0)):
        wanted = UViTConfig(pixels, patch, channels, width, depth, heads, num_classes=classes, conv=False)
        with torch.device("meta"):
            assert uvit_config(UViT(wanted).state_dict()) == wanted


@pytest.mark.parametrize(("classes", "null_label"), [(0, False), (1000, False), (1001, True)])
def test_the_last_label_means_none_where_the_official_models_were_trained_so(
    tmp_path: Path, classes: int, null_label: bool
) -> None:
    torch.save(UViT(replace(TINY, num_classes=classes)).state_dict(), tmp_path / "official.pth")
    run = import_checkpoint(tmp_path / "official.pth", tmp_path / "run", num_heads=2)
    assert deediff.load(run).null_label == null_label


def test_the_warm_start_imports(shared: Path, tmp_path: Path) -> None:
    model = deediff.load(import_checkpoint(shared / "checkpoints" / "uvit_tiny_cifar10.pth", tmp_path / "run"))
    assert model.num_blocks == 13
    assert model.uem is None


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="holds code and was not run"):
        import_checkpoint(tmp_path / "evil.pth", tmp_path / "run")
    assert "executed" not in capsys.readouterr().out


def test_other_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        import_checkpoint(tmp_path / "text.pth", tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        import_checkpoint(tmp_path / "none.pth", tmp_path / "run")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not an official U-ViT state dict"):
        import_checkpoint(tmp_path / "other.pth", tmp_path / "run")
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
        import_checkpoint(tmp_path / "empty.pth", tmp_path / "run")
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


def adadiff_state(net: UViT) -> dict[str, torch.Tensor]:
    """Names and shapes as in AdaDiff's checkpoints: one probe per block, (patch² × channels, width)."""
    state = dict(net.state_dict())
    for i in range(net.num_blocks):
        state[f"lte_classifer.{i}.lte.weight"] = torch.randn(48, 32) * 0.3
        state[f"lte_classifer.{i}.lte.bias"] = torch.randn(48) * 0.3
    return state


def test_an_adadiff_checkpoint_gives_its_confidence_one_layer_later(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UViT(TINY).eval()
    state = adadiff_state(net)
    torch.save(state, tmp_path / "adadiff.pth")
    run = import_checkpoint(tmp_path / "adadiff.pth", tmp_path / "run", "adadiff", num_heads=2)
    model = deediff.load(run)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        eps, u = model.all_exits(x, t)
        states = list(net.states(x, t))
        for block in range(12):
            weight, bias = (state[f"lte_classifer.{block}.lte.{part}"] for part in ("weight", "bias"))
            confidence = (states[block + 1][:, 1:] @ weight.T + bias).sigmoid().mean((1, 2))
            torch.testing.assert_close(u[block + 1], 1 - confidence)
            torch.testing.assert_close(eps[block + 1], net.decode(states[block + 1]))
    assert u[0].isnan().all()
    steps = list(deediff.sample(model, num_samples=2, policy="threshold:0.5", steps=2))
    assert all((s.exit_layer >= 1).all() for s in steps)


HEADS = [*(f"in_blocks_heads.{i}" for i in range(6)), "mid_block_head", *(f"out_blocks_heads.{i}" for i in range(6))]


def duodiff_state(net: UViT, probes: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Names and shapes as in the DuoDiff repository's checkpoints."""
    state = {f"uvit.{name}": value for name, value in net.state_dict().items()}
    for head in HEADS:
        fresh = net.make_head().state_dict()
        state |= {f"{head}.{name}": value + torch.randn_like(value) * 0.1 for name, value in fresh.items()}
    return state | {f"matrix.{k}.{name}": value for k, probe in probes.items() for name, value in probe.items()}


def import_duodiff(folder: Path, state: dict[str, torch.Tensor]) -> EarlyExitModel:
    torch.save(state, folder / "duodiff.pth")
    return deediff.load(import_checkpoint(folder / "duodiff.pth", folder / "run", "duodiff", num_heads=2))


@pytest.mark.parametrize("scope", ["layer", "timestep", "layer_timestep"])
def test_a_duodiff_checkpoint_with_mlp_probes(tmp_path: Path, scope: str) -> None:
    torch.manual_seed(0)
    net = UViT(TINY).eval()
    keys = {
        "layer": [f"{i}" for i in range(13)],
        "timestep": [f"{t}" for t in range(1000)],
        "layer_timestep": [f"{i}, {t}" for i in range(13) for t in range(1000)],
    }[scope]
    probes = {k: {"classifier.0.weight": torch.randn(1, 32), "classifier.0.bias": torch.randn(1)} for k in keys}
    state = duodiff_state(net, probes)
    model = import_duodiff(tmp_path, state)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        eps, u = model.all_exits(x, t)
        states = list(net.states(x, t))
        for i in (0, 5, 12):
            for b in range(2):
                key = {"layer": f"{i}", "timestep": f"{t[b]}", "layer_timestep": f"{i}, {t[b]}"}[scope]
                weight, bias = probes[key]["classifier.0.weight"][0], probes[key]["classifier.0.bias"]
                torch.testing.assert_close(u[i, b], (states[i][b] @ weight + bias).sigmoid().mean())
            head = {k.removeprefix(HEADS[i] + "."): v for k, v in state.items() if k.startswith(HEADS[i] + ".")}
            fresh = net.make_head()
            fresh.load_state_dict(head)
            torch.testing.assert_close(eps[i], fresh(states[i]))


def attention_probes() -> dict[str, dict[str, torch.Tensor]]:
    return {
        str(i): {
            "q": torch.randn(1, 1, 1, 32),
            "weight_kv.weight": torch.randn(64, 32) * 0.2,
            "weight_kv.bias": torch.randn(64) * 0.2,
            "classification.0.weight": torch.randn(32, 32) * 0.3,
            "classification.0.bias": torch.randn(32) * 0.3,
            "classification.2.weight": torch.randn(1, 32) * 0.6,
            "classification.2.bias": torch.full((1,), 0.5),
        }
        for i in range(13)
    }


def test_what_a_training_of_that_repository_saved_is_read(tmp_path: Path) -> None:
    """Weights among the optimiser's state, the command line and counters."""
    state = duodiff_state(UViT(TINY), attention_probes())
    arguments = Namespace(log_path=Path("logs"), exp_name="6266130", lr=2e-4)
    saved = {"step": 5, "model_state_dict": state, "optimizer_state_dict": {"state": {}}, "args": arguments}
    torch.save(saved, tmp_path / "training.pth")
    model = deediff.load(import_checkpoint(tmp_path / "training.pth", tmp_path / "a", "duodiff", num_heads=2))
    torch.save(state, tmp_path / "plain.pth")
    plain = deediff.load(import_checkpoint(tmp_path / "plain.pth", tmp_path / "b", "duodiff", num_heads=2))
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


def test_older_names_of_that_repository_are_read_as_its_older_code_did(tmp_path: Path) -> None:
    """Before the middle block that code asked the UEM of the block before once more."""
    probes = attention_probes()
    old = {f"in_blocks_classifiers.{i}": probes[str(i)] for i in range(6)}
    old |= {"mid_block_classifier": probes["6"]} | {f"out_blocks_classifiers.{i}": probes[str(7 + i)] for i in range(6)}
    state = duodiff_state(UViT(TINY), {})
    state |= {f"{name}.{key}": value for name, probe in old.items() for key, value in probe.items()}
    model = import_duodiff(tmp_path, state)
    for layer in range(13):
        asked = probes[str(5 if layer == 6 else layer)]
        assert torch.equal(model.uem.q[layer], asked["q"][0])
        assert torch.equal(model.uem.weight_kv[layer].weight, asked["weight_kv.weight"])
        assert torch.equal(model.uem.classification[layer][2].bias, asked["classification.2.bias"])


def test_what_is_clamped_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    net, run = UViT(TINY).eval(), str(tmp_path / "run")
    torch.save(duodiff_state(net, attention_probes()), tmp_path / "attention.pth")
    taken = ["import", str(tmp_path / "attention.pth"), "--layout", "duodiff", "--num-heads", "2"]
    assert main([*taken, "--out", run]) == 0
    assert "what leaves [0, 1] is cut to it" in capsys.readouterr().out
    assert "cut to it" in json.loads((tmp_path / "run" / "run.json").read_text())["notes"][0]
    command = ["sample", run, "--policy", "threshold:0.2", "--record", "full", "--steps", "3", "--num-samples", "8"]
    assert main([*command, "--batch-size", "4", "--out", f"{run}/traces/t", "--json"]) == 0
    trace = deediff.read_trace(f"{run}/traces/t")
    u = np.concatenate([trace.uncertainty(part) for part in trace.parts])
    cut = int(((u == 0) | (u == 1)).sum())
    assert 0 < cut < u.size == 8 * 3 * 13
    assert trace.meta["clamped"] == {"count": cut, "of": u.size}
    note = json.loads(capsys.readouterr().out)["note"]
    assert note == f"{cut} of {u.size} uncertainties left [0, 1] and were cut to it"
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    plain = ["import", str(tmp_path / "plain.pth"), "--layout", "uvit", "--num-heads", "2", "--out"]
    assert main([*plain, str(tmp_path / "plain")]) == 0
    assert "cut to it" not in capsys.readouterr().out


def test_a_duodiff_checkpoint_with_attention_probes_is_clamped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UViT(TINY).eval()
    probes = attention_probes()
    model = import_duodiff(tmp_path, duodiff_state(net, probes))
    x, t = torch.randn(16, 3, 16, 16), torch.full((16,), 700)
    with torch.no_grad():
        _, u = model.all_exits(x, t)
        states = list(net.states(x, t))
        for i in (0, 7, 12):
            p = probes[str(i)]
            k, v = (states[i][:, 1:] @ p["weight_kv.weight"].T + p["weight_kv.bias"]).chunk(2, dim=-1)
            pooled = ((k @ p["q"][0, 0].T / 32**0.5).softmax(1) * v).sum(1)
            hidden = torch.nn.functional.silu(pooled @ p["classification.0.weight"].T + p["classification.0.bias"])
            expected = (hidden @ p["classification.2.weight"].T)[:, 0] + p["classification.2.bias"]
            torch.testing.assert_close(u[i], expected.clamp(0, 1), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath"])
def test_a_path_of_any_system_and_python_is_read_as_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module, kind = name.rsplit(".", 1)
    if module == "pathlib._local":  # where Python 3.13 has it
        there = ModuleType(module)
        setattr(there, kind, type(kind, (), {"__module__": module}))
        monkeypatch.setitem(sys.modules, module, there)

    class Pickled:
        def __reduce__(self) -> tuple[type, tuple[str, ...]]:
            return getattr(sys.modules[module], kind), ("logs", "run 1")

    torch.save({"args": Namespace(log_path=Pickled())}, tmp_path / "training.pth")
    path = load_pickled(tmp_path / "training.pth")["args"].log_path
    assert path.parts == ("logs", "run 1")
    assert not hasattr(path, "open")


@pytest.mark.parametrize("layout", ["adadiff", "duodiff"])
def test_a_plain_uvit_is_not_taken_for_one_with_exits(tmp_path: Path, layout: str) -> None:
    torch.save(UViT(TINY).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(UserError, match="has no"):
        import_checkpoint(tmp_path / "plain.pth", tmp_path / "run", layout, num_heads=2)
