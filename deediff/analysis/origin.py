"""Network, UEM and training of a trace, from the files of its run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.models import model_name
from deediff.storage import AnyPath
from deediff.traces.reader import Trace

STRATEGIES = ("frozen", "finetuned", "scratch")
SCOPES = {"layer": "per layer", "timestep": "per timestep", "layer_timestep": "per layer and timestep"}


@dataclass(frozen=True)
class Origin:
    """Network, UEM and training; None: unknown, or not applicable."""

    model: str | None = None  # name of the preset, or blocks × width, patch and image
    dataset: str | None = None  # of the training
    uem: str | None = None  # "mlp per layer", then the settings that differ from the defaults
    strategy: str | None = None  # of the backbone while the exits were trained: one of STRATEGIES
    losses: str | None = None  # "3", "4" (with L_L, Eq. 10), or their weights if these are not 1
    imported: bool = False  # from files of another code base


def origin_of(trace: Trace) -> Origin:
    """The origin of a trace in a run folder; empty for other traces and for checkpoints that were replaced since."""
    if trace.path.parent.name != "traces":
        return Origin()
    folder = trace.path.parent.parent
    info = _read(folder / "run.json")
    imported = info.get("status") == "imported"
    if trace.meta.imported:
        return _of_exit_layers(trace, info)
    checkpoint = _read(
        folder
        / "checkpoints"
        / f"{((trace.meta.settings and trace.meta.settings.checkpoint) or '').removesuffix('.safetensors')}.json"
    )
    if not checkpoint or checkpoint.get("sha256") != trace.meta.checkpoint_sha256:
        return Origin()
    uem, config = checkpoint.get("uem"), info.get("config")
    config = config if isinstance(uem, dict) and isinstance(config, dict) else None  # of a training with exits
    return Origin(
        model=_model_name(checkpoint.get("backbone")),
        dataset=info.get("dataset"),
        uem=_uem_name(uem, checkpoint.get("heads"), trace.num_blocks) if isinstance(uem, dict) else None,
        strategy=config.get("strategy", "frozen") if config else None,
        losses=_losses(config) if config else None,
        imported=imported,
    )


def _read(file: AnyPath) -> dict[str, Any]:
    try:
        return read_json(file)
    except UserError:  # missing or damaged
        return {}


def _of_exit_layers(trace: Trace, info: Mapping[str, Any]) -> Origin:
    """The name of published exit layers gives UEM, scope, strategy, and `4losses`."""
    name = re.fullmatch(rf"(mlp|attention)_({'|'.join(SCOPES)})_({'|'.join(STRATEGIES)})(_4losses)?", trace.path.name)
    if name is None:
        return Origin(info.get("model"), uem=trace.meta.uem, imported=True)
    uem, scope, strategy, fourth = name.groups()
    return Origin(info.get("model"), None, f"{uem} {SCOPES[scope]}", strategy, "4" if fourth else "3", imported=True)


def _model_name(config: Any) -> str | None:
    try:
        return model_name(config)
    except (TypeError, ValueError):
        return None


def _uem_name(config: Mapping[str, Any], heads: str | None, num_blocks: int) -> str:
    name = config.get("name")
    words = [f"{name} {SCOPES.get(str(config.get('scope', 'layer')))}"]
    usual = {"mlp": "all", "attention": "image"}.get(str(name))
    if config.get("map"):
        words.append("map")
    elif (tokens := config.get("tokens", usual)) != usual:
        words.append(f"{tokens} tokens")
    if config.get("timestep_embedding"):
        words.append("timestep embedding")
    if config.get("aggregation", "mean") == "max":
        words.append("max")
    if config.get("detach"):
        words.append("detached")
    if len(layers := config.get("layers") or range(num_blocks)) < num_blocks:
        words.append(f"{len(layers)} of {num_blocks} layers")
    if (heads or "each") != "each":
        words.append(f"heads: {heads}")
    return ", ".join(words)


def _losses(config: Mapping[str, Any]) -> str:
    """The loss weights of Eq. 9 and 10; configurations of old runs have them at the top level, without `method`."""
    method = config.get("method")
    method = method if isinstance(method, dict) else config
    weights = [float(method.get(key, usual)) for key, usual in WEIGHTS.items()]
    if weights[:2] == [1, 1] and weights[2] in (0, 1):
        return "4" if weights[2] else "3"
    return "λ {:g}, β {:g}, L_L {:g}".format(*weights)


WEIGHTS = {"lambda_u": 1.0, "beta_ual": 1.0, "layer_weight": 0.0}  # and their defaults
