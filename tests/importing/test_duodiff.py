"""Checkpoints of the DuoDiff repository."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff.cli import main
from deediff.importing.checkpoint import import_checkpoint
from deediff.models import EarlyExitModel, UViT
from tests.conftest import TINY

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


def test_a_training_checkpoint_with_optimizer_and_arguments_is_imported(tmp_path: Path) -> None:
    """Its file holds the weights beside the optimiser's state, the parsed arguments and counters."""
    state = duodiff_state(UViT(TINY), attention_probes())
    arguments = Namespace(log_path=Path("logs"), exp_name="6266130", lr=2e-4)
    saved = {"step": 5, "model_state_dict": state, "optimizer_state_dict": {"state": {}}, "args": arguments}
    torch.save(saved, tmp_path / "training.pth")
    model = deediff.load(import_checkpoint(tmp_path / "training.pth", tmp_path / "a", "duodiff", num_heads=2))
    torch.save(state, tmp_path / "plain.pth")
    plain = deediff.load(import_checkpoint(tmp_path / "plain.pth", tmp_path / "b", "duodiff", num_heads=2))
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


def test_parameter_names_of_older_versions_are_imported_with_their_behaviour(tmp_path: Path) -> None:
    """Older versions evaluated the UEM of block 5 a second time before the middle block."""
    probes = attention_probes()
    old = {f"in_blocks_classifiers.{i}": probes[str(i)] for i in range(6)}
    old |= {"mid_block_classifier": probes["6"]} | {f"out_blocks_classifiers.{i}": probes[str(7 + i)] for i in range(6)}
    state = duodiff_state(UViT(TINY), {})
    state |= {f"{name}.{key}": value for name, probe in old.items() for key, value in probe.items()}
    model = import_duodiff(tmp_path, state)
    for layer in range(13):
        probe = probes[str(5 if layer == 6 else layer)]
        assert torch.equal(model.uem.q[layer], probe["q"][0])
        assert torch.equal(model.uem.weight_kv[layer].weight, probe["weight_kv.weight"])
        assert torch.equal(model.uem.classification[layer][2].bias, probe["classification.2.bias"])


def test_clamped_uncertainties_are_reported_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    net, run = UViT(TINY).eval(), str(tmp_path / "run")
    torch.save(duodiff_state(net, attention_probes()), tmp_path / "attention.pth")
    taken = ["import", str(tmp_path / "attention.pth"), "--layout", "duodiff", "--num-heads", "2"]
    assert main([*taken, "--out", run]) == 0
    assert "u is clamped to [0, 1]" in capsys.readouterr().out
    assert "clamped to [0, 1]" in json.loads((tmp_path / "run" / "run.json").read_text())["notes"][0]
    command = ["sample", run, "--policy", "threshold:0.2", "--record", "full", "--steps", "3", "--num-samples", "8"]
    assert main([*command, "--batch-size", "4", "--out", f"{run}/traces/t", "--json"]) == 0
    trace = deediff.read_trace(f"{run}/traces/t")
    u = np.concatenate([trace.uncertainty(part) for part in trace.parts])
    cut = int(((u == 0) | (u == 1)).sum())
    assert 0 < cut < u.size == 8 * 3 * 13
    assert trace.meta.clamped == {"count": cut, "of": u.size}
    note = json.loads(capsys.readouterr().out)["note"]
    assert note == f"{cut} of {u.size} uncertainties outside [0, 1] were clamped"
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    plain = ["import", str(tmp_path / "plain.pth"), "--layout", "uvit", "--num-heads", "2", "--out"]
    assert main([*plain, str(tmp_path / "plain")]) == 0
    assert "clamped to" not in capsys.readouterr().out


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
