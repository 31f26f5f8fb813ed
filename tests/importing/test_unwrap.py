"""Checkpoints as people have them: one loader for all, and what the file cannot tell is asked for."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import deediff
from deediff.cli import main
from deediff.diffusion.schedule import STABLE_DIFFUSION, Schedule
from deediff.errors import UserError
from deediff.importing.checkpoint import Untold, import_checkpoint
from deediff.importing.pickled import load_pickled
from deediff.json_files import read_json
from deediff.models import DiT, DiTConfig, UViT
from tests.conftest import TINY

State = dict[str, Tensor]


def network(**changes: Any) -> UViT:
    torch.manual_seed(0)
    return UViT(replace(TINY, **changes))


def prefixed(*prefixes: str) -> Callable[[State], Any]:
    return lambda state: {"".join(prefixes) + name: value for name, value in state.items()}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


LAYERS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    **{prefix: prefixed(prefix) for prefix in ("module.", "_orig_mod.", "model.", "ema.", "net.nnet.")},
    "compiled in parallel": prefixed("module.", "_orig_mod."),
    "parallel, compiled": prefixed("_orig_mod.", "module."),
    "compiled blocks": lambda state: {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in state.items()},
    **{
        name: lambda state, name=name: {name: state, "epoch": 3, "lr": np.float64(0.1)}
        for name in ("state_dict", "model", "ema", "params_ema", "nnet_ema", "model_state_dict")
    },
    "averaged beside": lambda state: {"model": zeros(state), "ema": state, "opt": {"state": {}, "param_groups": [1]}},
    "averaged prefix": lambda state: prefixed("model.")(zeros(state)) | prefixed("ema.")(state),
    "nested twice": lambda state: {"state_dict": {"ema": prefixed("module.")(state)}},
    "another name": lambda state: {"optimizer": {"state": {0: {"step": torch.ones(1)}}}, "my_net": state},
    "counter": lambda state: {"n_averaged": torch.tensor(5)} | prefixed("module.")(state),
    "loss beside": lambda state: prefixed("model.")(state) | {"loss.logvar": torch.zeros(3)},
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("layout", ["auto", "uvit"])
def test_every_wrapping_gives_the_same_network(tmp_path: Path, layer: str, layout: str) -> None:
    net = network()
    torch.save(LAYERS[layer](net.state_dict()), tmp_path / "w.pth")
    model = deediff.load(import_checkpoint(tmp_path / "w.pth", tmp_path / "run", layout, num_heads=2))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in model.backbone.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    net = network()
    torch.save({name: value.to(dtype) for name, value in net.state_dict().items()}, tmp_path / "w.pth")
    model = deediff.load(import_checkpoint(tmp_path / "w.pth", tmp_path / "run", "auto", num_heads=2))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, net.state_dict()[name].to(dtype).float())


def test_safetensors_are_read_whatever_their_name(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pth"):
        save_file(network().state_dict(), tmp_path / name)
        import_checkpoint(tmp_path / name, tmp_path / f"run-{name}", "auto", num_heads=2)
    torch.save(network().state_dict(), tmp_path / "pickled.safetensors")
    import_checkpoint(tmp_path / "pickled.safetensors", tmp_path / "run", "auto", num_heads=2)
    with pytest.raises(UserError, match="attention heads is 0, expected 1 or more"):
        import_checkpoint(tmp_path / "pickled.safetensors", tmp_path / "other", "auto", num_heads=0)


def test_folders_of_an_official_training_are_opened(tmp_path: Path) -> None:
    for step in (900, 1000):
        folder = tmp_path / "ckpts" / f"{step}.ckpt"
        folder.mkdir(parents=True)
        for name, state in (("nnet", zeros(network().state_dict())), ("nnet_ema", network(depth=4).state_dict())):
            torch.save(state if step == 1000 else {}, folder / f"{name}.pth")
    for k, path in enumerate((tmp_path, tmp_path / "ckpts", tmp_path / "ckpts" / "1000.ckpt")):
        model = deediff.load(import_checkpoint(path, tmp_path / f"run{k}", "auto", num_heads=2))
        assert model.num_blocks == 5
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"other holds no weights: expected a file, or the folder N\.ckpt"):
        import_checkpoint(tmp_path / "other", tmp_path / "run", "auto")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.pth", "x")


NO_WEIGHTS: dict[str, Callable[[Path], object]] = {
    "a pointer of Git LFS": lambda p: p.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "an HTML page": lambda p: p.write_text("\n<!DOCTYPE html><html><title>Google Drive</title></html>"),
    "HTML page": lambda p: p.write_bytes(b"\xef\xbb\xbf<!doctype html>"),  # with a byte order mark
    "text that begins with 'Entry not found'": lambda p: p.write_text("Entry not found"),
    "an XML page": lambda p: p.write_text("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
    "it is empty": lambda p: p.write_bytes(b""),
    "a zip archive": zipped,
    "a gzip archive": lambda p: p.write_bytes(gzip.compress(b"x")),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    NO_WEIGHTS[kind](tmp_path / "w.pth")
    with pytest.raises(UserError, match=f"^[^(]*w.pth is not a file of plain tensors: [^()]*{kind}[^()]*$"):
        import_checkpoint(tmp_path / "w.pth", tmp_path / "run", "auto")


class Unsafe:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_advice_to_load_unsafely_is_not_repeated(tmp_path: Path) -> None:
    torch.save({"x": Unsafe()}, tmp_path / "w.pth")
    with pytest.raises(UserError) as error:
        load_pickled(tmp_path / "w.pth")
    text = str(error.value)
    assert "print" in text
    assert not any(word in text for word in ("weights_only", "trust", "safe_globals", "option", "arbitrary"))


def test_missing_extra_and_misshapen_tensors_are_named_by_example(tmp_path: Path) -> None:
    state = network().state_dict()
    del state["norm.weight"]
    state |= {"surplus.weight": torch.zeros(1), "norm.bias": torch.zeros(7)}
    torch.save(state, tmp_path / "w.pth")
    sentence = (
        r"lacks 1 tensors, for example backbone\.norm\.weight and has 1 more, for example backbone\.surplus\.weight"
    )
    with pytest.raises(UserError, match=sentence + r" and has backbone\.norm\.bias of shape \(7,\), not \(32,\)"):
        import_checkpoint(tmp_path / "w.pth", tmp_path / "run", "auto", num_heads=2)


def test_the_guess_of_a_layout_says_why(tmp_path: Path) -> None:
    torch.save(DiT(DiTConfig(img_size=16, embed_dim=32, depth=2, num_heads=2)).state_dict(), tmp_path / "w.pt")
    run = import_checkpoint(tmp_path / "w.pt", tmp_path / "run", "auto", num_heads=2)
    notes = read_json(run / "run.json")["notes"]
    assert "layout dit: it has x_embedder.proj.weight and blocks.0.mlp.fc1.weight" in notes
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"of no known layout .* its tensors are named conv\.weight"):
        import_checkpoint(tmp_path / "w.pt", tmp_path / "other", "auto")


def test_attention_heads_of_an_unknown_size_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pth")
    command = ["import", str(tmp_path / "w.pth"), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "no preset has width 32 and depth 12" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--num-heads", "4"]) == 0
    assert deediff.load(tmp_path / "run").backbone.cfg.num_heads == 4


@pytest.mark.parametrize(("given", "expected"), [("--null-label", True), ("--no-null-label", False)])
def test_whether_the_last_label_means_none_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, expected: bool
) -> None:
    torch.save(network(num_classes=11).state_dict(), tmp_path / "w.pth")
    command = ["import", str(tmp_path / "w.pth"), "--out", str(tmp_path / "run"), "--num-heads", "2"]
    assert main(command) == 2
    assert "give --null-label or --no-null-label" in capsys.readouterr().err
    assert main([*command, given]) == 0
    assert deediff.load(tmp_path / "run").null_label is expected


def test_the_schedule_of_stable_diffusion() -> None:
    assert float(STABLE_DIFFUSION.alphas_bar[500]) == pytest.approx(0.276, abs=0.002)
    assert float(Schedule().alphas_bar[500]) == pytest.approx(0.078, abs=0.001)


@pytest.mark.parametrize(
    ("channels", "name", "expected"),
    [(3, "auto", 0.078), (4, "auto", 0.276), (4, "linear", 0.078), (3, "stable-diffusion", 0.276)],
)
def test_a_uvit_of_latents_has_the_schedule_of_stable_diffusion(
    tmp_path: Path, channels: int, name: str, expected: float
) -> None:
    torch.save(network(in_chans=channels).state_dict(), tmp_path / "w.pth")
    run = import_checkpoint(tmp_path / "w.pth", tmp_path / "run", "auto", untold=Untold(2, schedule=name))
    model = deediff.load(run)
    assert float(model.schedule.alphas_bar[500]) == pytest.approx(expected, abs=0.002)
    (step,) = deediff.sample(model, num_samples=1, timesteps=[500], steps=1)
    *_, own = deediff.sample(model, num_samples=1, timesteps=[500], schedule=model.schedule)
    *_, other = deediff.sample(model, num_samples=1, timesteps=[500], schedule=Schedule(1000, 1e-3, 0.03))
    assert torch.equal(step.x, own.x)
    assert not torch.equal(step.x, other.x)


def test_the_schedule_of_other_channels_is_asked_for(tmp_path: Path) -> None:
    torch.save(network(in_chans=8).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"8 channels, .* give it with --schedule"):
        import_checkpoint(tmp_path / "w.pth", tmp_path / "run", "auto", num_heads=2)
