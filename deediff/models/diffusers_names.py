"""Parameter names of `diffusers` for the networks that both libraries have."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EMBEDDERS = {  # ours → theirs, the same weights in each block
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}
ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
IN_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}


def dit_to_diffusers(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """State dict of a `DiT` → that of a `DiTTransformer2DModel`. Its position embedding is fixed, and not stored."""
    found: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        pairs = {f"{theirs}.{part}": f"{ours}.{part}" for ours, theirs in ENDS.items()}
        for i in range(depth):
            block = f"transformer_blocks.{i}"
            pairs |= {f"{block}.norm1.emb.{theirs}.{part}": f"{ours}.{part}" for ours, theirs in EMBEDDERS.items()}
            pairs |= {f"{block}.{theirs}.{part}": f"blocks.{i}.{ours}.{part}" for ours, theirs in IN_BLOCK.items()}
            qkv = state[f"blocks.{i}.attn.qkv.{part}"].chunk(3)
            found |= {f"{block}.attn1.to_{name}.{part}": value for name, value in zip("qkv", qkv, strict=True)}
        found |= {theirs: state[ours] for theirs, ours in pairs.items() if ours in state}
    return found


def dit_from_diffusers(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Inverse of `dit_to_diffusers`. Raises KeyError, naming it, if a tensor is missing."""
    found: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        pairs = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in ENDS.items()}
        pairs |= {
            f"{ours}.{part}": f"transformer_blocks.0.norm1.emb.{theirs}.{part}" for ours, theirs in EMBEDDERS.items()
        }
        pairs.pop("y_embedder.embedding_table.bias", None)
        for i in range(depth):
            block = f"transformer_blocks.{i}"
            pairs |= {f"blocks.{i}.{ours}.{part}": f"{block}.{theirs}.{part}" for ours, theirs in IN_BLOCK.items()}
            found[f"blocks.{i}.attn.qkv.{part}"] = torch.cat(
                [state[f"{block}.attn1.to_{name}.{part}"] for name in "qkv"]
            )
        found |= {ours: state[theirs] for ours, theirs in pairs.items()}
    return found
