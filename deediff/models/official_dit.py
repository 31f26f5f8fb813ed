"""State dicts of the DiT repository → models, by their parameter names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from deediff.errors import UserError
from deediff.models.dit import DiT, DiTConfig
from deediff.models.early_exit import EarlyExitModel
from deediff.models.presets import DITS
from deediff.models.tensors import known_heads, load_by_name


def dit_config(state: Mapping[str, Tensor], num_heads: int | None = None) -> DiTConfig:
    """Config of an official DiT, from the shapes of its tensors.

    The number of attention heads does not affect the shapes: it is that of a preset with the same width and depth.
    Raises UserError for another network, and where no preset has that width and depth.
    """
    try:
        dim, in_chans, patch_size, _ = state["x_embedder.proj.weight"].shape
        patches = state["pos_embed"].shape[1]
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"this is not an official DiT state dict: it has no {error}") from None
    except (ValueError, IndexError):
        raise UserError("this is not an official DiT state dict: its tensors have other shapes") from None
    labels = state.get("y_embedder.embedding_table.weight")
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    heads = {(preset.embed_dim, preset.depth): preset.num_heads for preset in DITS.values()}
    return DiTConfig(
        img_size=round(patches**0.5) * patch_size,
        patch_size=patch_size,
        in_chans=in_chans,
        embed_dim=dim,
        depth=depth,
        num_heads=known_heads(num_heads, heads, dim, depth),
        mlp_ratio=hidden / dim,
        num_classes=0 if labels is None else len(labels),
    )


def read_dit(state: Mapping[str, Tensor], num_heads: int | None = None) -> EarlyExitModel:
    """Model with these weights; the outputs for σ are left out. Raises UserError or ValueError if they do not fit."""
    config = dit_config(state, num_heads)
    tensors = {f"backbone.{name}": predicting_epsilon(name, value, config) for name, value in state.items()}
    model = EarlyExitModel(DiT(config))
    load_by_name(model, tensors)
    model.null_label = config.num_classes > 1  # the last label, which the official code adds to the classes
    return model


def predicting_epsilon(name: str, value: Tensor, config: DiTConfig) -> Tensor:
    """A tensor of the network without the outputs that predict σ: the last C of each pixel's 2·C values."""
    pixels, channels = config.patch_size**2, config.in_chans
    if not name.startswith("final_layer.linear.") or len(value) != pixels * 2 * channels:
        return value
    return value.unflatten(0, (pixels, 2 * channels))[:, :channels].flatten(0, 1)
