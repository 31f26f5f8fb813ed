"""U-ViT blocks on a CPU, without gradients: one fused call per block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deediff.models.backbone import Backbone
from deediff.models.uvit import Attention, Block, Mlp, UViT

BlockCall = Callable[[Tensor, Tensor | None], Tensor]
MAX_TOKENS = 128  # up to which the fused call is the faster one, on the CPUs measured


def prepared_block(net: Backbone, i: int) -> BlockCall:
    """`net.block(i, …)` without gradients, for many calls between which neither weights nor modules change.

    A fused call where it is faster and gives the same result up to rounding: see `_is_unmodified`.
    """
    if isinstance(net, UViT) and net.pos_embed.shape[1] <= MAX_TOKENS and _is_unmodified(net, i):
        return _fused(net.blocks[i])
    return partial(net.block, i)


def _is_unmodified(net: UViT, i: int) -> bool:
    """Whether block i runs the code of `uvit.py` on a CPU: no other method, no replaced module, no hook registered."""
    own = getattr(net.block, "__func__", None) is UViT.block
    return (
        own
        and hasattr(torch, "_transformer_encoder_layer_fwd")
        and all(
            type(module) in (Block, Attention, Mlp, nn.Linear, nn.LayerNorm)
            and not (module._forward_pre_hooks or module._forward_hooks)
            and all(p.device.type == "cpu" for p in module.parameters(recurse=False))
            for module in net.blocks[i].modules()
        )
    )


def _fused(block: Block) -> BlockCall:
    """The block with its present weights in the native call of `nn.TransformerEncoderLayer`.

    A single call also keeps Python's global lock free for the other workers.
    """
    attn, skip_linear = block.attn, block.skip_linear
    bias = attn.qkv.weight.new_zeros(len(attn.qkv.weight)) if attn.qkv.bias is None else attn.qkv.bias
    norms = [*block.norm1.parameters(), *block.norm2.parameters()]
    arguments: tuple[Any, ...] = (
        *(block.dim, attn.num_heads, attn.qkv.weight, bias, *attn.proj.parameters()),
        *(True, True),  # GELU; norms before attention and MLP
        *(block.norm1.eps, *norms, *block.mlp.parameters()),
    )

    def run(x: Tensor, skip: Tensor | None = None) -> Tensor:  # (B, L, D) → (B, L, D)
        if skip_linear is not None:
            assert skip is not None
            x = F.linear(torch.cat((x, skip), dim=-1), skip_linear.weight, skip_linear.bias)
        return torch._transformer_encoder_layer_fwd(x, *arguments)

    return run
