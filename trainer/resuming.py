"""The settings of a training against those of the run that it resumes: which may differ."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deediff.checkpoints import find_checkpoint
from deediff.errors import UserError
from deediff.json_files import read_json
from trainer.config import Method, TrainConfig

MACHINE = {"device", "data_root", "out"}  # not in run.json
FREE = {"skip_bad", "save_dtype", "exits_only", "save_every", "sample_every", "log_every"}  # never change the weights
SAFE = {"ema", "precision"} | {  # change the training from here on, which stays one training
    f"{stage}.{name}" for stage in ("backbone", "exits") for name in ("lr", "warmup", "weight_decay", "betas")
}
SAFE |= {"backbone.clip_grad", "exits.clip_grad"}
NEW = {"background": "white", "label_dropout": 0.0, "precision": "auto", "exits_only": False}  # of runs before them


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON values, without the fields that depend on the machine."""
    settings: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))  # tuples to lists
    for field in MACHINE:
        del settings[field]
    if config.init is not None:
        file = find_checkpoint(config.init)
        settings["init"] = f"{file.parent.parent.name}/{file.stem}"
    return settings


def check_settings(folder: Path, config: TrainConfig) -> list[dict[str, Any]]:
    """All changes of settings that the run in this folder has seen, those of this configuration included.

    A change that keeps it one training is accepted with a note: learning rates, other hyperparameters of the
    optimiser, and the length of a stage that has not ended. Raises UserError for every other one, and for a run that
    is complete.
    """
    if not (folder / "run.json").exists():
        return []
    run = read_json(folder / "run.json")
    stored = NEW | (run.get("config") or {})
    if "method" in stored:
        stored["method"] = dataclasses.asdict(Method()) | stored["method"]  # fields that are newer than the run
    before, given = _flat(stored), _flat(settings_of(config))
    different = {name: (before.get(name), value) for name, value in given.items() if before.get(name) != value}
    different = {name: pair for name, pair in different.items() if name not in FREE}
    step = int(run.get("step") or 0)
    may = SAFE | _stages_to_come(before, given, step) if run.get("status") != "done" else set()
    if unsafe := [name for name in different if name not in may]:
        raise UserError(
            f"{folder} was trained with other settings ({', '.join(unsafe)}): "
            "repeat them to resume, or choose another folder with --out"
        )
    if different:
        changes = ", ".join(f"{name} {old} → {new}" for name, (old, new) in different.items())
        print(f"note: {folder} resumes at step {step} with other settings: {changes}", file=sys.stderr)
    new = [{"step": step, "setting": name, "from": old, "to": value} for name, (old, value) in different.items()]
    return [*(run.get("changes") or []), *new]


def _stages_to_come(before: Mapping[str, Any], given: Mapping[str, Any], step: int) -> set[str]:
    """The stages' numbers of steps that may change: neither their old end nor their new one has been passed."""
    first, found = int(before.get("backbone.steps") or 0), set()
    for name, start in (("backbone.steps", 0), ("exits.steps", first)):
        if start + min(int(before.get(name) or 0), given[name]) > step:
            found.add(name)
    return found


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by names with a dot."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    return found
