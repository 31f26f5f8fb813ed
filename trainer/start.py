"""The start of a training: checks of its configuration, labels and initial weights."""

from __future__ import annotations

import torch
from torch import Tensor

from deediff.checkpoints import load_checkpoint
from deediff.datasets import Images, load_labels
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, make_backbone
from deediff.photos.options import PhotoOptions
from trainer.config import NO_DATA, TrainConfig


def check_config(config: TrainConfig, schedule: Schedule, processes: int) -> None:
    """Raises UserError for a model, exits, stages or a batch size that cannot be trained, before any data is loaded."""
    if config.backbone.batch_size % processes or config.exits.batch_size % processes:
        raise UserError(f"batch_size is not a multiple of the {processes} processes: change one of them")
    if config.dataset == NO_DATA:
        _check_no_data(config)
    if config.method.target == "full" and config.strategy != "frozen":
        raise UserError(
            f"--method.target full needs a backbone that stays as it is, not --strategy {config.strategy}: "
            "leave one of them out"
        )
    if config.exits_only and (config.init is None or config.backbone.steps or config.strategy != "frozen"):
        raise UserError(
            "--exits-only needs a backbone that stays as it is: give --init, --backbone.steps 0 and --strategy frozen"
        )
    if not config.backbone.steps and config.init is None and config.strategy != "scratch":
        raise UserError("--backbone.steps is 0, but exits need a trained backbone: give a checkpoint with --init")
    try:
        with torch.device("meta"):  # shapes only
            model = EarlyExitModel(make_backbone(config.model))
            if config.exits.steps:
                add_exits(model, config, schedule)
    except ValueError as error:
        raise UserError(str(error)) from None


def add_exits(model: EarlyExitModel, config: TrainConfig, schedule: Schedule) -> EarlyExitModel:
    """The same model with fresh UEMs and output heads. Raises ValueError for options that do not fit it."""
    method = config.method
    model.exit_target = method.target
    return model.add_exits(method.uem_config(), method.heads, schedule.num_timesteps, head=method.head)


def _check_no_data(config: TrainConfig) -> None:
    """Raises UserError for what needs images."""
    if config.init is None:
        raise UserError("--data none trains exits of a trained network: give it with --init")
    if config.backbone.steps or config.strategy != "frozen":
        raise UserError(
            "--data none has no images to train the backbone with: give --backbone.steps 0 and --strategy frozen"
        )
    if config.method.target != "full":
        raise UserError("--data none has no drawn noise to predict: give --method.target full")
    if not config.exits.steps:
        raise UserError("--data none trains exits only, and --exits.steps is 0: give it 1 or more")


def photo_options(config: TrainConfig) -> PhotoOptions:
    """How a training reads a folder of images: a file that breaks after the first step does not stop it."""
    return PhotoOptions(config.background, config.skip_bad, replace_lost=True)


def training_labels(config: TrainConfig, images: Images | None) -> Tensor | None:
    """The class of each image; None for an unconditional model, or without images.

    Raises UserError when they do not fit the model.
    """
    expected = config.model.num_classes
    if not expected or images is None:
        return None
    labels = load_labels(config.dataset, config.data_root, images=images)
    classes, null_label = int(labels.max()) + 1, config.label_dropout > 0
    if expected != classes + null_label:
        extra = ", and label dropout needs one more, the null label" if null_label else ""
        raise UserError(
            f"{config.dataset} has {classes} classes{extra}: give --model.num-classes {classes + null_label} "
            f"instead of {expected}"
        )
    return labels


def initial_model(config: TrainConfig, device: torch.device) -> tuple[EarlyExitModel, int]:
    """A model without exits, and the images that trained it: fresh, or the backbone of --init.

    Raises UserError when --init is another model.
    """
    torch.manual_seed(config.seed)
    images_seen = 0
    if config.init is None:
        model = EarlyExitModel(make_backbone(config.model, config.start), prediction=config.prediction)
    else:
        trained, info = load_checkpoint(config.init)
        with torch.device("meta"):
            expected = make_backbone(config.model).config()
        found = trained.backbone.config()
        if found != expected:
            different = [name for name, value in expected.items() if found.get(name) != value]
            raise UserError(f"--init {config.init} has another model (different: {', '.join(different)})")
        if trained.prediction != config.prediction:
            raise UserError(
                f"--init {config.init} predicts {trained.prediction}: give --prediction {trained.prediction}"
            )
        images_seen = int(info["images_seen"])
        trained.train().requires_grad_(True)
        model = EarlyExitModel(trained.backbone, prediction=trained.prediction)
        model.schedule, model.class_names = trained.schedule, trained.class_names
        model.null_label = trained.null_label
    if config.dataset != NO_DATA:
        model.null_label = config.label_dropout > 0
    elif config.label_dropout and not model.null_label:
        raise UserError(f"--init {config.init} has no label that means no class: leave --label-dropout out")
    return model.to(device), images_seen
