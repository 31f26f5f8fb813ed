"""Configurations: every field has a help text, and bad values are one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.toy import train
from trainer.run import main


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mnist_tiny", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("Peak learning rate", "Pixels per side of one token's patch", "Decay of the exponential moving"):
        assert words in text
    assert main(["--help"]) == 0
    assert "uvit_small" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["nothing"], "unknown preset 'nothing'"),
        (["uvit_tiny", "--dataset", "nowhere"], "'nowhere' is neither cifar10, mnist nor an existing folder"),
        (["uvit_tiny", "--model.patch-size", "5"], "patch size 5 does not divide image size 32"),
        (["uvit_tiny", "--backbone.steps", "0"], "give a checkpoint with --init"),
        (["uvit_tiny", "--init", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
        (["uvit_tiny", "--device", "cuda"], "device cuda is not available on this machine"),
    ],
)
def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    image_folder: Path,
    args: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(image_folder.parent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    data = [] if "--dataset" in args or len(args) == 1 else ["--dataset", str(image_folder)]
    assert main([*args, *data]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_wrong_type_exits_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["uvit_tiny", "--backbone.steps", "many"]) == 2
    assert "backbone.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--ema", "nan"], "expected a decay in [0, 1)"),
        (["--backbone.steps", "-1"], "steps of a stage is -1, expected 0 or more"),
        (["--log-every", "0"], "must be 1 or more"),
        (["--model.num-heads", "0"], "must be 1 or more"),
        (["--backbone.lr", "inf"], "lr of a stage is inf, expected a number above 0"),
        (["--backbone.clip-grad", "nan"], "clip_grad of a stage is nan, expected 0 or more"),
        (["--exits.weight-decay", "-1"], "weight_decay of a stage is -1.0, expected 0 or more"),
        (["--backbone.betas", "0.9", "1.5"], r"betas of a stage are (0.9, 1.5), expected two numbers in [0, 1)"),
        (["--method.lambda-u", "nan"], "lambda_u is nan, expected 0 or more"),
        (["--seed", "-1"], "seed is -1, expected 0 or more"),
    ],
)
def test_values_out_of_range(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str
) -> None:
    assert train(image_folder, tmp_path / "run", *args) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--method.uem", "attention", "--method.timestep-embedding"], "an attention UEM has no timestep_embedding"),
        (["--method.uem", "attention", "--model.embed-dim", "60"], "width 60 is not a multiple of the 8 attention"),
        (["--method.layers", "1", "5"], "expected some of 0 … 4"),
        (["--method.map", "--method.tokens", "all"], "it reads image tokens: leave tokens out"),
    ],
)
def test_exits_that_cannot_be_built_are_refused_before_the_backbone_is_trained(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str
) -> None:
    assert train(image_folder, tmp_path / "run", *args) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert train(image_folder, tmp_path / "run", *args, "--exits.steps", "0") == 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--model.num-classes", "7"], "has 3 classes: give --model.num-classes 3 instead of 7"),
        (["--model.num-classes", "3", "--label-dropout", "0.1"], "label dropout needs one more, the null label: give"),
        (["--label-dropout", "0.1"], "above 0 only with classes"),
    ],
)
def test_classes_that_do_not_fit(
    class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str
) -> None:
    assert train(class_folder, tmp_path / "run", *args) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
