"""The trainer: resume is exact, frozen is frozen, and every field explains itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

import deediff
from deediff.checkpoints import load_checkpoint
from deediff.datasets import load_images, load_labels
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.models.heads import HEADS
from deediff.models.objectives import ExitsObjective
from tests.conftest import REPO, TINY
from trainer import batches, loop
from trainer.presets import METHODS, PRESETS, Method, TrainConfig
from trainer.run import main

TOY = [
    "uvit_tiny", "--model.img-size", "16", "--model.embed-dim", "64", "--model.num-heads", "2", "--model.depth", "4",
    "--device", "cpu",
    "--backbone.steps", "6", "--exits.steps", "4", "--backbone.batch-size", "4", "--exits.batch-size", "4",
    "--save-every", "2", "--log-every", "1", "--sample-every", "0",
]  # fmt: skip


def train(images: Path, out: Path, *more: str) -> int:
    return main([*TOY, "--dataset", str(images), "--out", str(out), *more])


STILL = ("--ema", "0", "--backbone.weight-decay", "0", "--exits.weight-decay", "0")  # only a gradient moves a weight
CLASSES = ("--model.num-classes", "4", "--label-dropout", "0.3")  # of `class_folder`, and one that means none


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    """Four images in each of three classes; the class is the brightness."""
    for number, name in enumerate("abc"):
        (tmp_path / "classes" / name / "more").mkdir(parents=True)
        for i in range(4):
            folder = tmp_path / "classes" / name / ("more" if i else "")
            Image.new("RGB", (16, 16), (number * 100,) * 3).save(folder / f"{i}.png")
    return tmp_path / "classes"


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run)[0].state_dict()


def test_two_stages_and_what_they_leave_behind(image_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(image_folder, run, "--sample-every", "5") == 0
    info = json.loads((run / "run.json").read_text())
    assert info["status"] == "done"
    assert info["images_seen"] == 24
    assert info["config"]["model"]["embed_dim"] == 64
    assert {p.stem for p in (run / "checkpoints").glob("*.safetensors")} == {"6", "10"}
    metrics = pd.read_parquet(run / "metrics.parquet")
    assert metrics["step"].tolist() == list(range(1, 11))
    assert metrics["stage"].tolist() == ["backbone"] * 6 + ["exits"] * 4
    assert metrics["loss_simple"].notna().all()
    assert metrics["loss_uncertainty"].notna().sum() == 4
    assert (run / "samples" / "5.png").exists()
    assert list((run / "tensorboard").iterdir())
    assert not (run / "resume.pt").exists()
    before, after = deediff.load(run / "checkpoints" / "6.safetensors"), deediff.load(run)
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(value, after.backbone.state_dict()[name])  # frozen
    fresh = before.backbone.make_head().state_dict()  # what every head starts from
    assert not torch.equal(fresh["decoder_pred.weight"], after.heads[0].decoder_pred.weight)


def test_bfloat16_trains_nearly_the_same(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "fine", "--precision", "float32") == 0
    assert train(image_folder, tmp_path / "coarse", "--precision", "bfloat16") == 0
    fine, coarse = (pd.read_parquet(tmp_path / run / "metrics.parquet")["loss_total"] for run in ("fine", "coarse"))
    assert not (fine == coarse).all()
    assert coarse.to_list() == pytest.approx(fine.to_list(), rel=0.05)


class Killed(BaseException):
    """Like kill -9: nothing may catch it."""


@pytest.mark.parametrize(("kill_at", "classes"), [(3, False), (6, False), (7, False), (9, False), (9, True)])
def test_resume_equals_uninterrupted(
    image_folder: Path, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, classes: bool
) -> None:
    images, more = (class_folder, CLASSES) if classes else (image_folder, ())
    assert train(images, tmp_path / "whole", *more) == 0
    update = loop.Training._update_ema

    def dies(self: loop.Training, stage_step: int) -> None:
        if self.step == kill_at:
            raise Killed
        update(self, stage_step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_update_ema", dies)
        with pytest.raises(Killed):
            train(images, tmp_path / "killed", *more)
    assert train(images, tmp_path / "killed", *more) == 0
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    steps = pd.read_parquet(tmp_path / "killed" / "metrics.parquet")["step"].tolist()
    assert steps == list(range(1, 11))


def test_init_starts_from_another_run_and_carries_its_images(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "first") == 0
    more = ("--init", str(tmp_path / "first"), "--backbone.steps", "0")
    assert train(image_folder, tmp_path / "second", *more) == 0
    assert json.loads((tmp_path / "second" / "run.json").read_text())["images_seen"] == 24
    first, second = deediff.load(tmp_path / "first"), deediff.load(tmp_path / "second")
    for name, value in first.backbone.state_dict().items():
        assert torch.equal(value, second.backbone.state_dict()[name])


def test_training_lowers_the_loss(image_folder: Path, tmp_path: Path) -> None:
    more = ("--backbone.steps", "60", "--exits.steps", "0", "--backbone.batch-size", "16", "--backbone.warmup", "5")
    assert train(image_folder, tmp_path / "run", *more, "--sample-every", "0") == 0
    loss = pd.read_parquet(tmp_path / "run" / "metrics.parquet")["loss_simple"]
    assert loss.tail(10).mean() < 0.7 * loss.head(10).mean()


def test_every_batch_covers_all_timesteps_and_is_shared_out(image_folder: Path) -> None:
    config = PRESETS["uvit_tiny"][1]
    data, schedule, size = load_images(str(image_folder), 32, 3), Schedule(), config.backbone.batch_size
    whole = batches.batch_at(config, config.backbone, data, schedule, 5, batches.Processes())
    strata = torch.arange(size) / size * 1000
    assert ((whole[1].sort().values - strata).abs() <= 1000 / size + 1).all()
    halves = [
        batches.batch_at(config, config.backbone, data, schedule, 5, batches.Processes(rank, 2)) for rank in (0, 1)
    ]
    for i in range(3):
        assert torch.equal(whole[i][0::2], halves[0][i])
        assert torch.equal(whole[i][1::2], halves[1][i])


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


def test_other_settings_do_not_overwrite_a_run(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(image_folder, tmp_path / "run") == 0
    before = weights(tmp_path / "run")
    assert train(image_folder, tmp_path / "run", "--seed", "1") == 2
    assert "was trained with other settings (seed)" in capsys.readouterr().err
    assert all(torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images below"):
        load_images(str(tmp_path), 32, 3)


def test_a_data_set_that_is_nowhere(tmp_path: Path) -> None:
    said = r"mnist was not found in .* or point --data-root, or the environment's DEEDIFF_DATA"
    with pytest.raises(UserError, match=said):
        load_images("mnist", 32, 1, root=tmp_path, download=False)


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("cifar10", 3)])
def test_real_data_sets_load(shared: Path, name: str, channels: int) -> None:
    data = load_images(name, 32, channels, root=shared / "data", train=False, download=False)
    batch = data[torch.tensor([0, 9999])]
    assert batch.shape == (2, channels, 32, 32)
    assert batch.dtype == torch.uint8
    if name == "mnist":
        assert not batch[..., :2, :].any()  # padded, not resized
        assert batch.max() > 200


def test_torchvision_operators_are_declared_only_when_missing() -> None:
    """After the repair both libraries import, and nothing more is declared."""
    code = "from deediff import _torchvision as fix; import torchvision, torch_fidelity; "
    code += "assert not fix.declare_missing_operators()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)


@pytest.mark.slow
def test_two_processes_train_like_one(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "one") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trainer.run", *TOY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["--dataset", str(image_folder), "--out", str(tmp_path / "two")]
    subprocess.run([*command, *arguments], check=True, cwd=REPO, env=environment, timeout=300)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.slow
def test_a_preset_learns_real_digits(shared: Path, tmp_path: Path) -> None:
    args = ["mnist_tiny", "--data-root", str(shared / "data"), "--out", str(tmp_path / "run"), "--sample-every", "0"]
    assert main([*args, "--backbone.steps", "60", "--exits.steps", "40", "--device", "cpu"]) == 0
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics[metrics["stage"] == "backbone"]["loss_simple"].iloc[-1] < 0.2  # ε ≈ x_t alone gives more
    exits = metrics[metrics["stage"] == "exits"]
    assert exits["loss_total"].notna().all()


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_resume_file_is_a_sentence(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "resume.pt").write_bytes(content)
    assert train(image_folder, tmp_path / "run") == 2
    assert "resume.pt is not a file of plain tensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--ema", "nan"], "expected a decay in [0, 1)"),
        (["--backbone.steps", "-1"], "steps of a stage is -1, expected 0 or more"),
        (["--log-every", "0"], "must be 1 or more"),
        (["--model.num-heads", "0"], "must be 1 or more"),
    ],
)
def test_settings_that_make_no_sense(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str
) -> None:
    assert train(image_folder, tmp_path / "run", *args) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_frozen_backbone_needs_no_gradients_and_others_do(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "base", "--exits.steps", "0") == 0
    base = weights(tmp_path / "base")
    moved = {}
    for strategy in ("frozen", "finetuned"):
        run, more = tmp_path / strategy, ("--init", str(tmp_path / "base"), "--backbone.steps", "0", "--ema", "0")
        assert train(image_folder, run, *more, "--strategy", strategy) == 0
        moved[strategy] = [k for k, v in weights(run).items() if k in base and not torch.equal(v, base[k])]
        seen = json.loads((run / "run.json").read_text())["images_seen"]
        assert seen == 24 + (16 if strategy == "finetuned" else 0)
    assert moved["frozen"] == []
    assert len(moved["finetuned"]) > 40


def test_scratch_trains_everything_at_once(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "run", "--strategy", "scratch") == 0
    assert pd.read_parquet(tmp_path / "run" / "metrics.parquet")["stage"].tolist() == ["exits"] * 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images_seen"] == 16


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_what_they_should(frozen: bool) -> None:
    """Frozen means frozen; with the errors of the blog's code the target pulls on the backbone as well."""
    torch.manual_seed(0)
    x, t, noise = torch.randn(3, 3, 16, 16), torch.tensor([3, 400, 999]), torch.randn(3, 3, 16, 16)

    def backbone_gradient(method: Method) -> float | None:
        model = EarlyExitModel(UViT(TINY)).add_exits(method.uem_config(), method.heads)
        objective = ExitsObjective(model, frozen, method.losses())
        terms = objective(x, t, noise)
        (terms["total"] - terms["simple"]).backward()
        assert all(p.grad is not None for p in model.uem.parameters())
        assert model.backbone.norm.weight.requires_grad is not frozen
        grad = model.backbone.in_blocks[0].mlp.fc1.weight.grad
        return None if grad is None else float(grad.abs().sum())

    only_u = {"beta_ual": 0.0, "layer_weight": 0.0}
    if frozen:
        assert backbone_gradient(Method()) is None
        return
    assert backbone_gradient(Method(**only_u)) > 0
    assert backbone_gradient(Method(detach=True, **only_u)) == 0
    assert backbone_gradient(Method(detach=True, detach_target=False, **only_u)) > 0
    assert backbone_gradient(Method(detach=True)) > 0  # Eq. 8 trains the backbone through the heads


@pytest.mark.parametrize("strategy", ["frozen", "finetuned", "scratch"])
@pytest.mark.parametrize("name", list(METHODS))
def test_each_method_trains_and_samples(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, strategy: str
) -> None:
    description, config = PRESETS["uvit_tiny"]
    monkeypatch.setitem(PRESETS, "uvit_tiny", (description, dataclasses.replace(config, method=METHODS[name])))
    more = ("--strategy", strategy, "--backbone.steps", "2", "--exits.steps", "20", "--exits.warmup", "2")
    assert train(image_folder, tmp_path / "run", *more, "--model.depth", "12") == 0  # AdaDiff's layers are of 13
    loss = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert loss[["loss_uncertainty", "loss_ual", "loss_layer"]].tail(20).notna().all(axis=None)
    model = deediff.load(tmp_path / "run")
    steps = list(deediff.sample(model, num_samples=2, policy="threshold:1", steps=2))
    assert all((s.exit_layer == min(model.uem.layers)).all() for s in steps)


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


def test_every_weight_that_a_training_asks_for_gets_a_gradient() -> None:
    """With two UEMs only two heads are trained: processes that share out a batch wait for what gets no gradient."""
    torch.manual_seed(0)
    for heads in HEADS:
        model = EarlyExitModel(UViT(TINY)).add_exits(Method(layers=(3, 9)).uem_config(), heads)
        objective = ExitsObjective(model, frozen=False)
        objective(torch.randn(2, 3, 16, 16), torch.tensor([3, 999]), torch.randn(2, 3, 16, 16))["total"].backward()
        assert all((p.grad is not None) == p.requires_grad for p in objective.parameters())
        asked = [all(p.requires_grad for p in head.parameters()) for head in model.heads]
        assert asked == {"each": [i in (3, 9) for i in range(13)], "shared": [True], "decoder": []}[heads]


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_other_predictions_are_trained_for(image_folder: Path, tmp_path: Path, kind: str) -> None:
    assert train(image_folder, tmp_path / "run", "--prediction", kind) == 2  # the identity start answers ε
    assert train(image_folder, tmp_path / "run", "--prediction", kind, "--start", "official") == 0
    assert deediff.load(tmp_path / "run").prediction == kind


def conditional(dropout: float) -> TrainConfig:
    config = PRESETS["uvit_tiny"][1]
    model = dataclasses.replace(config.model, img_size=16, num_classes=4 if dropout else 3)
    return dataclasses.replace(config, model=model, label_dropout=dropout)


def test_every_image_comes_with_its_class(class_folder: Path) -> None:
    data, labels, procs = load_images(str(class_folder), 16, 3), load_labels(str(class_folder)), batches.Processes()
    config = conditional(0.0)
    batch = batches.batch_at(config, config.backbone, data, Schedule(), 2, procs, labels)
    assert torch.equal(batch.labels * 100, batch.images[:, 0, 0, 0].long())
    assert set(batch.labels.tolist()) == {0, 1, 2}


def test_labels_are_dropped_as_often_as_asked_and_nothing_else_moves(class_folder: Path) -> None:
    data, labels, procs = load_images(str(class_folder), 16, 3), load_labels(str(class_folder)), batches.Processes()
    config, dropped, total = conditional(0.15), 0, 0
    for step in range(12):
        arguments = (config, config.backbone, data, Schedule(), step)
        batch, plain = batches.batch_at(*arguments, procs, labels), batches.batch_at(*arguments, procs)
        assert plain.labels is None
        assert all(torch.equal(a, b) for a, b in zip(batch[:3], plain[:3], strict=True))
        kept = batch.labels != 3
        assert torch.equal(batch.labels[kept] * 100, batch.images[kept, 0, 0, 0].long())
        halves = [batches.batch_at(*arguments, batches.Processes(rank, 2), labels).labels for rank in (0, 1)]
        assert torch.equal(torch.stack(halves, dim=1).flatten(), batch.labels)
        dropped, total = dropped + int((~kept).sum()), total + len(kept)
    assert dropped / total == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / total) ** 0.5)


def test_without_guidance_nobody_is_drawn_as_no_class(class_folder: Path, tmp_path: Path) -> None:
    """With label dropout the last label means none: it is for guidance, unless it is asked for by number."""
    more = ("--model.num-classes", "4", "--label-dropout", "0.15", "--sample-every", "0", *STILL)
    assert train(class_folder, tmp_path / "run", *more) == 0
    model = deediff.load(tmp_path / "run")

    def images(classes: list[int] | None) -> torch.Tensor:
        *_, last = deediff.sample(model, num_samples=8, steps=2, classes=classes)
        return last.x

    assert torch.equal(images(None), images([0, 1, 2]))
    assert not torch.equal(images(None), images([0, 1, 2, 3]))


@pytest.mark.parametrize("strategy", ["frozen", "scratch"])
def test_labels_reach_the_network(class_folder: Path, tmp_path: Path, strategy: str) -> None:
    """In both stages: what each class is embedded as is learnt, the label that means none only by dropout."""
    more = ("--model.num-classes", "3", "--strategy", strategy, "--sample-every", "4", *STILL)
    assert train(class_folder, tmp_path / "run", *more) == 0
    assert (tmp_path / "run" / "samples" / "4.png").exists()
    model = deediff.load(tmp_path / "run")
    torch.manual_seed(0)
    fresh = UViT(model.backbone.cfg).label_emb.weight  # the same seed, and it is drawn before what differs
    assert (model.backbone.label_emb.weight != fresh).any(dim=1).all()
    steps = list(deediff.sample(model, num_samples=3, policy="threshold:1", steps=2))
    assert steps[-1].x.shape == (3, 3, 16, 16)


def test_guidance_has_a_trained_label_for_none(class_folder: Path, tmp_path: Path) -> None:
    assert train(class_folder, tmp_path / "run", *CLASSES, *STILL) == 0
    torch.manual_seed(0)
    model = deediff.load(tmp_path / "run")
    assert (model.backbone.label_emb.weight[3] != UViT(model.backbone.cfg).label_emb.weight[3]).any()
    assert len(list(deediff.sample(model, num_samples=2, policy="threshold:1", steps=2, guidance=2.0))) == 2


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


def test_an_image_without_a_class_is_named(class_folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(class_folder / "loose.png")
    with pytest.raises(UserError, match=r"loose\.png has no class: expected every image in a sub-folder"):
        load_labels(str(class_folder))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_classes_of_real_data_sets(shared: Path, name: str) -> None:
    labels = load_labels(name, shared / "data", train=False)
    assert torch.bincount(labels).shape == (10,)
    assert len(labels) == 10_000
