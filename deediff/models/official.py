"""State dicts of the U-ViT, AdaDiff, DuoDiff and DiT repositories → models, by their parameter names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deediff.errors import UserError
from deediff.models.early_exit import EarlyExitModel
from deediff.models.official_dit import read_dit
from deediff.models.presets import UVITS
from deediff.models.tensors import known_heads, load_by_name
from deediff.models.uvit import UViT, UViTConfig

State = Mapping[str, Tensor]
UNGUIDED = 1000  # ImageNet 64×64 models have no label for "no class"; in the others it is the last label


def uvit_config(state: State, num_heads: int | None = None, normalize_timesteps: bool = False) -> UViTConfig:
    """Config of an official U-ViT, from the shapes of its tensors.

    The number of attention heads does not affect the shapes: it is that of a preset with the same width and depth.
    Raises UserError for another network, and where no preset has that width and depth.
    """
    try:
        dim, in_chans, patch_size, _ = state["patch_embed.proj.weight"].shape
        tokens = state["pos_embed"].shape[1]
        hidden = state["mid_block.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"this is not an official U-ViT state dict: it has no {error}") from None
    except (ValueError, IndexError):
        raise UserError("this is not an official U-ViT state dict: its tensors have other shapes") from None
    num_classes = state["label_emb.weight"].shape[0] if "label_emb.weight" in state else 0
    side = round((tokens - (2 if num_classes else 1)) ** 0.5)
    depth = 2 * len({key.split(".")[1] for key in state if key.startswith("in_blocks.")})
    heads = {(preset.embed_dim, preset.depth): preset.num_heads for preset in UVITS.values()}
    return UViTConfig(
        img_size=side * patch_size,
        patch_size=patch_size,
        in_chans=in_chans,
        embed_dim=dim,
        depth=depth,
        num_heads=known_heads(num_heads, heads, dim, depth),
        mlp_ratio=hidden / dim,
        qkv_bias="mid_block.attn.qkv.bias" in state,
        mlp_time_embed="time_embed.0.weight" in state,
        num_classes=num_classes,
        conv="final_layer.weight" in state,
        normalize_timesteps=normalize_timesteps,
    )


def _adadiff_exits(state: State, num_blocks: int) -> tuple[dict[str, Any], str, dict[str, Tensor]]:
    """UEM config, kind of heads, and the UEM's tensors, from AdaDiff's `lte_classifer.{block}.lte`.

    AdaDiff's UEMs read the output of a block, so the UEM of block i belongs to layer i+1, and that of the last block is
    unused. They predict confidence, and 1 − σ(z) = σ(−z): negated weights give the uncertainty.
    """
    names = [f"lte_classifer.{i}.lte" for i in range(num_blocks - 1)]
    config = {"name": "mlp", "tokens": "image", "map": True, "detach": True, "layers": list(range(1, num_blocks))}
    tensors = {part: -torch.cat([state[f"{name}.{part}"] for name in names]) for part in ("weight", "bias")}
    return config, "decoder", {f"uem.{part}": tensor for part, tensor in tensors.items()}


def _renamed(state: State, half: int) -> State:
    """A state dict with the UEM names of the DuoDiff repository's older code (`…_classifiers`) as in its later code.

    The older code evaluated the UEM of the last in-block again before the middle block, and never
    `mid_block_classifier`.
    """
    layers = {f"in_blocks_classifiers.{i}.": [i] for i in range(half)}
    layers[f"in_blocks_classifiers.{half - 1}."] = [half - 1, half]
    layers |= {f"out_blocks_classifiers.{i}.": [half + 1 + i] for i in range(half)}
    found = dict(state)
    for prefix, numbers in layers.items():
        for key in [key for key in state if key.startswith(prefix)]:
            found |= {f"matrix.{i}.{key.removeprefix(prefix)}": state[key] for i in numbers}
    return found


def _duodiff_exits(state: State, num_blocks: int) -> tuple[dict[str, Any], str, dict[str, Tensor]]:
    """UEM config, kind of heads, and tensors, from DuoDiff's `matrix.{layer, timestep, or both}` and `…_heads`."""
    state = _renamed(state, num_blocks // 2)
    keys = {key.split(".")[1] for key in state if key.startswith("matrix.")}
    ordered = sorted(keys, key=lambda key: [int(n) for n in re.findall(r"\d+", key)])
    half = num_blocks // 2
    sources = [f"in_blocks_heads.{i}" for i in range(half)]
    sources += ["mid_block_head", *(f"out_blocks_heads.{i}" for i in range(half))]
    tensors = {
        f"heads.{i}.{key.removeprefix(source + '.')}": value
        for i, source in enumerate(sources)
        for key, value in state.items()
        if key.startswith(source + ".")
    }
    if any(re.fullmatch(r"matrix\..*\.q", key) for key in state):
        heads = state[f"matrix.{ordered[0]}.q"].shape[1]
        tensors["uem.q"] = torch.cat([state[f"matrix.{key}.q"] for key in ordered])
        for position, key in enumerate(ordered):
            for part in ("weight_kv.", "classification."):
                module, rest = part.rstrip("."), f"matrix.{key}.{part}"
                names = [name for name in state if name.startswith(rest)]
                tensors |= {f"uem.{module}.{position}.{n.removeprefix(rest)}": state[n] for n in names}
        return {"name": "attention", "num_heads": heads, "tokens": "image", "squash": "clamp"}, "each", tensors
    both = any(len(re.findall(r"\d+", key)) == 2 for key in keys)
    scope = "layer_timestep" if both else "layer" if len(keys) == num_blocks else "timestep"
    for part in ("weight", "bias"):
        tensors[f"uem.{part}"] = torch.cat([state[f"matrix.{key}.classifier.0.{part}"] for key in ordered])
    return {"name": "mlp", "scope": scope}, "each", tensors


LAYOUTS = {  # prefix of the backbone's names, and the function that reads the exits, if there are any
    "uvit": ("", None),
    "adadiff": ("", _adadiff_exits),
    "duodiff": ("uvit.", _duodiff_exits),
    "dit": ("", None),
}


def read_state(
    state: State, layout: str = "uvit", num_heads: int | None = None, normalize_timesteps: bool = False
) -> EarlyExitModel:
    """Model with these weights. UserError, KeyError, ValueError, RuntimeError or IndexError if they do not fit."""
    if layout == "dit":
        return read_dit(state, num_heads)
    prefix, read_exits = LAYOUTS[layout]
    backbone = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if layout == "adadiff":
        backbone = {k: v for k, v in backbone.items() if not k.startswith("lte_classifer.")}
    model = EarlyExitModel(UViT(uvit_config(backbone, num_heads, normalize_timesteps)))
    tensors: dict[str, Tensor] = {}
    if read_exits is not None:
        uem, heads, tensors = read_exits(state, model.num_blocks)
        model.add_exits(uem, heads)
    load_by_name(model, {f"backbone.{k}": v for k, v in backbone.items()} | tensors)
    model.null_label = model.backbone.num_classes not in (0, 1, UNGUIDED)
    return model
