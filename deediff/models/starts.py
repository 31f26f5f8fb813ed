"""Initialisations with known structure, so that training on few images need not learn it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from deediff.models.backbone import Backbone
from deediff.models.dit import DiT
from deediff.models.uvit import UViT


@torch.no_grad()
def identity_start_(net: UViT) -> UViT:
    """Initialise in place so that the untrained network predicts ε ≈ x_t.

    Training takes about a thousand steps to learn this prediction, because six randomly initialised skip projections
    in a row destroy it. Here an orthogonal map embeds every patch, each long skip starts as the mean of its two inputs,
    and the output layer inverts the embedding.
    """
    patch_dim = net.cfg.patch_size**2 * net.cfg.in_chans
    if patch_dim > net.dim:
        raise ValueError(f"an identity start needs width ≥ {patch_dim} (patch² × channels), this model has {net.dim}")
    basis = torch.empty(net.dim, patch_dim)
    nn.init.orthogonal_(basis)  # columns: one direction per pixel of a patch
    # LayerNorm divides by the token's RMS: sqrt(patch_dim / dim) for unit-variance noise.
    rms = math.sqrt(patch_dim / net.dim)
    p, c = net.cfg.patch_size, net.cfg.in_chans
    net.patch_embed.proj.weight.copy_(rearrange(basis, "d (p1 p2 c) -> d c p1 p2", p1=p, p2=p, c=c))
    assert net.patch_embed.proj.bias is not None
    net.patch_embed.proj.bias.zero_()
    net.decoder_pred.weight.copy_(basis.T * rms)
    for block in net.out_blocks:
        half_eye = torch.eye(net.dim) / 2
        block.skip_linear.weight.copy_(torch.cat([half_eye, half_eye], dim=1))  # type: ignore[union-attr, operator]
    if isinstance(net.final_layer, nn.Conv2d):
        nn.init.dirac_(net.final_layer.weight)
        assert net.final_layer.bias is not None
        net.final_layer.bias.zero_()
    return net


@torch.no_grad()
def local_start_(net: UViT) -> UViT:
    """`identity_start_` in place, with attention that starts with high weights on neighbouring patches.

    The published position embeddings start so small beside the patches that attention cannot tell tokens apart, and on
    few images the network denoises each patch alone for a long time. Here they are 2-D sines and cosines as large as a
    patch of noise, in the directions orthogonal to the patches. Queries and keys of each head start as the same random
    projection of them, which makes those of neighbours similar (Trockman & Kolter, ICML 2023, "Mimetic
    initialization").
    """
    identity_start_(net)
    patch_dim, side = net.patch_dim, net.cfg.img_size // net.cfg.patch_size
    count = (net.dim - patch_dim) // 4  # frequencies
    if count < 1:
        raise ValueError(
            f"a local start needs width ≥ {patch_dim + 4} (patch² × channels + 4), this model has {net.dim}"
        )
    free = torch.linalg.qr(net.patch_embed.proj.weight.flatten(1), mode="complete").Q[
        :, patch_dim : patch_dim + 4 * count
    ]
    position = position_code(side, count)  # (patches, 4·count)
    position *= math.sqrt(patch_dim) / position.norm(dim=1).square().mean().sqrt()
    net.pos_embed[0, net.extras :] = position @ free.T
    net.decoder_pred.weight.mul_(math.sqrt(2))  # the squared norm of the tokens has doubled
    head_dim = net.dim // net.cfg.num_heads
    for i in range(net.num_blocks):
        queries, keys, _ = net.blocks[i].attn.qkv.weight.unflatten(0, (3, net.cfg.num_heads, head_dim))
        for query, key in zip(queries, keys, strict=True):
            projection = nn.init.orthogonal_(torch.empty(head_dim, 4 * count)) @ free.T
            query.copy_(projection)
            key.copy_(projection)
    return net


@torch.no_grad()
def identity_dit_(net: DiT) -> DiT:
    """`identity_start_` of a DiT, whose blocks start as the identity anyway.

    An orthogonal map embeds every patch in directions that the position embedding does not use, and the output layer
    inverts it.
    """
    fixed = torch.cat([net.pos_embed[0], torch.ones(1, net.dim)])  # positions, and the mean that LayerNorm subtracts
    used = int(torch.linalg.matrix_rank(fixed))
    if net.patch_dim + used > net.dim:
        raise ValueError(
            f"an identity start needs width ≥ {net.patch_dim + used} (patch² × channels + {used} of the positions), "
            f"this model has {net.dim}"
        )
    free = torch.linalg.svd(fixed).Vh[used:]  # (dim − used, dim)
    mix = nn.init.orthogonal_(torch.empty(len(free), net.patch_dim))
    basis = free.T @ mix  # (dim, patch_dim) columns: one direction per pixel of a patch
    p, c = net.cfg.patch_size, net.cfg.in_chans
    net.x_embedder.proj.weight.copy_(rearrange(basis, "d (p1 p2 c) -> d c p1 p2", p1=p, p2=p, c=c))
    variance = net.pos_embed[0].var(dim=1, correction=0).mean() + net.patch_dim / net.dim  # of a token of noise
    net.final_layer.linear.weight.copy_(basis.T * variance.sqrt())
    return net


def position_code(side: int, count: int) -> Tensor:
    """Sines and cosines of each patch's row and column, `count` frequencies each: (side², 4·count), centred."""
    angle = torch.linspace(math.pi / (2 * side), math.pi, count) * (torch.arange(side) + 0.5)[:, None]
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)  # (side, 2·count)
    code = torch.cat([wave.repeat_interleave(side, dim=0), wave.repeat(side, 1)], dim=1)  # rows, columns
    return code - code.mean(dim=0)


def identity_(net: Backbone) -> Backbone:
    """The identity start of a U-ViT or DiT, in place. Raises ValueError for other networks, and narrow ones."""
    if isinstance(net, DiT):
        return identity_dit_(net)
    return identity_start_(_uvit(net, "identity", "U-ViTs and DiTs"))


def local_(net: Backbone) -> Backbone:
    """The local start of a U-ViT, in place. Raises ValueError for other networks, and narrow ones."""
    return local_start_(_uvit(net, "local", "U-ViTs"))


def _uvit(net: Backbone, start: str, known: str) -> UViT:
    if not isinstance(net, UViT):
        raise ValueError(f"start {start!r} is for {known} only, this is a {type(net).__name__}: use 'official'")
    return net


STARTS: dict[str, Callable[[Backbone], Backbone]] = {"identity": identity_, "local": local_}
