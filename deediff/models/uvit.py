"""U-ViT (Bao et al., CVPR 2023, "All are Worth Words"), with the parameter names of the official code.

Every input is a token: the image's patches, the timestep and, if there are classes, the label. The first half of the
blocks is connected to the second by long skips.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from deediff.models.backbone import Backbone, BackboneConfig, check_inputs
from deediff.models.embedding import timestep_embedding


@dataclass(frozen=True)
class UViTConfig(BackboneConfig):
    """Shape of a U-ViT. The defaults are U-ViT-S/2 on CIFAR-10."""

    img_size: int = 32
    """Image height and width in pixels."""
    patch_size: int = 2
    """Pixels per side of one token's patch."""
    in_chans: int = 3
    """Image channels."""
    embed_dim: int = 512
    """Width D of the tokens."""
    depth: int = 12
    """Blocks without the middle one, as in the official code: depth 12 is 6 + 1 + 6 = 13 blocks."""
    num_heads: int = 8
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Hidden width of each block's MLP, as a multiple of D."""
    qkv_bias: bool = False
    """Whether queries, keys and values have a bias."""
    mlp_time_embed: bool = False
    """Whether an MLP follows the sinusoidal timestep embedding."""
    num_classes: int = 0
    """Classes of a conditional model (adds a class token); 0 is unconditional."""
    conv: bool = True
    """Whether a 3×3 convolution follows the unpatchified output."""
    normalize_timesteps: bool = False
    """Whether the timestep embedding is of t/1000 instead of t in 0…999."""

    @property
    def num_blocks(self) -> int:
        """N."""
        return self.depth + 1

    def __str__(self) -> str:
        return (
            f"U-ViT {self.in_chans}×{self.img_size}×{self.img_size}, {self.num_blocks} blocks, "
            f"width {self.embed_dim}, patch {self.patch_size}"
        )

    def __post_init__(self) -> None:
        if min(self.img_size, self.in_chans, self.embed_dim, self.num_heads) < 1 or self.num_classes < 0:
            raise ValueError("image size, channels, width and attention heads must be 1 or more")
        if self.patch_size < 1 or self.img_size % self.patch_size:
            raise ValueError(
                f"patch size {self.patch_size} does not divide image size {self.img_size}: choose one that does"
            )
        if self.depth < 2 or self.depth % 2:
            raise ValueError(f"depth is {self.depth}, expected an even number ≥ 2 (depth + 1 blocks are built)")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"width {self.embed_dim} is not a multiple of the {self.num_heads} attention heads")


class Attention(nn.Module):
    """Multi-head self-attention. (B, L, D) → (B, L, D)."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, L, head_dim) each
        x = F.scaled_dot_product_attention(q, k, v)  # (B, heads, L, head_dim)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, L, D)


class Mlp(nn.Module):
    """(B, L, D) → (B, L, D)."""

    def __init__(self, dim: int, hidden: int, approximate: str = "none"):  # of the GELU: "none" or "tanh"
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class Block(nn.Module):
    """Pre-norm transformer block; a long skip is concatenated to its input and projected back to width D."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, skip: bool):
        super().__init__()
        self.dim = dim
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.skip_linear = nn.Linear(2 * dim, dim) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:  # (B, L, D) → (B, L, D)
        if self.skip_linear is not None:
            assert skip is not None
            x = self.skip_linear(torch.cat([x, skip], dim=-1))  # (B, L, 2·D) → (B, L, D)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Non-overlapping patches as tokens. (B,C,H,W) → (B, patches, D)."""

    def __init__(self, patch_size: int, in_chans: int, dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        patches = rearrange(x, "b c (h p1) (w p2) -> b (h w) (c p1 p2)", p1=self.patch_size, p2=self.patch_size)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)  # the convolution as a matrix product


def unpatchify(patches: Tensor, p: int) -> Tensor:
    """(B, patches, p·p·C) → (B,C,H,W), for square images."""
    side = math.isqrt(patches.shape[1])
    return rearrange(patches, "b (h w) (p1 p2 c) -> b c (h p1) (w p2)", h=side, p1=p, p2=p)


class OutputHead(nn.Module):
    """Output head g_i of an exit, of the same layers as U-ViT's decoder. (B, L, D) → (B,C,H,W)."""

    def __init__(self, config: UViTConfig, extras: int):
        super().__init__()
        self.extras, self.patch_size = extras, config.patch_size
        self.norm = nn.LayerNorm(config.embed_dim)
        self.decoder_pred = nn.Linear(config.embed_dim, config.patch_size**2 * config.in_chans)
        self.final_layer: nn.Module = (
            nn.Conv2d(config.in_chans, config.in_chans, 3, padding=1) if config.conv else nn.Identity()
        )
        self.apply(_init_official)

    def forward(self, state: Tensor) -> Tensor:
        patches = self.decoder_pred(self.norm(state[:, self.extras :]))  # (B, patches, p·p·C)
        image: Tensor = self.final_layer(unpatchify(patches, self.patch_size))
        return image


class TimestepHead(nn.Module):
    """An output head whose linear map is interpolated over t. (B, L, D), (B,) → (B,C,H,W).

    It has `KNOTS` maps, at evenly spaced timesteps from 0 to T−1. They start as that of `head`.
    """

    KNOTS = 5
    reads_timestep = True

    def __init__(self, head: OutputHead, num_timesteps: int):
        super().__init__()
        self.extras, self.patch_size = head.extras, head.patch_size
        self.spacing = (num_timesteps - 1) / (self.KNOTS - 1)  # timesteps between two knots
        self.norm, self.final_layer = head.norm, head.final_layer
        linear = head.decoder_pred
        self.weight = nn.Parameter(linear.weight.detach().repeat(self.KNOTS, 1, 1))  # (knots, p·p·C, D)
        self.bias = nn.Parameter(linear.bias.detach().repeat(self.KNOTS, 1))

    def forward(self, state: Tensor, t: Tensor) -> Tensor:
        position = t / self.spacing  # (B,) in 0 … knots − 1
        k = position.long().clamp(max=self.KNOTS - 2)
        share = (position - k)[:, None]
        bias = torch.lerp(self.bias[k], self.bias[k + 1], share)  # (B, p·p·C)
        weight = torch.lerp(self.weight[k], self.weight[k + 1], share[:, None])  # (B, p·p·C, D)
        tokens = self.norm(state[:, self.extras :])  # (B, patches, D)
        patches = torch.baddbmm(bias[:, None], tokens, weight.mT)  # (B, patches, p·p·C)
        image: Tensor = self.final_layer(unpatchify(patches, self.patch_size))
        return image


def _init_official(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class UViT(Backbone):
    """`depth/2` blocks, a middle block, and `depth/2` blocks with long skips from the first ones."""

    def __init__(self, config: UViTConfig):
        super().__init__()
        c = self.cfg = config
        self.num_blocks, self.dim = c.num_blocks, c.embed_dim
        self.in_chans, self.img_size, self.num_classes = c.in_chans, c.img_size, c.num_classes
        self.extras = 2 if c.num_classes else 1  # class (if any), time
        self.patch_dim = c.patch_size**2 * c.in_chans

        def block(skip: bool) -> Block:
            return Block(c.embed_dim, c.num_heads, c.mlp_ratio, c.qkv_bias, skip)

        self.patch_embed = PatchEmbed(c.patch_size, c.in_chans, c.embed_dim)
        self.time_embed: nn.Module = nn.Identity()
        if c.mlp_time_embed:
            hidden = 4 * c.embed_dim
            self.time_embed = nn.Sequential(nn.Linear(c.embed_dim, hidden), nn.SiLU(), nn.Linear(hidden, c.embed_dim))
        if c.num_classes:
            self.label_emb = nn.Embedding(c.num_classes, c.embed_dim)
        tokens = self.extras + (c.img_size // c.patch_size) ** 2
        self.state_size = tokens * c.embed_dim
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, c.embed_dim))
        self.in_blocks = nn.ModuleList(block(skip=False) for _ in range(c.depth // 2))
        self.mid_block = block(skip=False)
        self.out_blocks = nn.ModuleList(block(skip=True) for _ in range(c.depth // 2))
        self.norm = nn.LayerNorm(c.embed_dim)
        self.decoder_pred = nn.Linear(c.embed_dim, c.patch_size**2 * c.in_chans)
        self.final_layer: nn.Module = nn.Conv2d(c.in_chans, c.in_chans, 3, padding=1) if c.conv else nn.Identity()
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(_init_official)

    def embed(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        check_inputs(self, x, y)
        t = t / 1000 if self.cfg.normalize_timesteps else t
        patches = self.patch_embed(x)  # (B, patches, D)
        emb = timestep_embedding(t, self.dim).to(patches.dtype)
        tokens = [self.time_embed(emb)[:, None], patches]
        if y is not None:
            tokens.insert(0, self.label_emb(y)[:, None])
        return torch.cat(tokens, dim=1) + self.pos_embed  # (B, extras + patches, D)

    @property
    def blocks(self) -> list[Block]:
        """The N blocks in order."""
        return [*self.in_blocks, self.mid_block, *self.out_blocks]  # type: ignore[list-item]

    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        output: Tensor = self.blocks[i](state, skip)
        return output

    def skip_source(self, i: int) -> int | None:
        return None if i <= self.cfg.depth // 2 else self.cfg.depth - i  # block 7 ↔ 5, …, 12 ↔ 0

    def decode(self, state: Tensor) -> Tensor:
        patches = self.decoder_pred(self.norm(state[:, self.extras :]))  # (B, patches, p·p·C)
        image: Tensor = self.final_layer(unpatchify(patches, self.cfg.patch_size))
        return image

    def patchify(self, image: Tensor) -> Tensor:
        p = self.cfg.patch_size
        return rearrange(image, "b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=p, p2=p)

    def unpatchify(self, values: Tensor) -> Tensor:
        return unpatchify(values, 1 if values.shape[2] == 1 else self.cfg.patch_size)

    def make_head(self, layer: int = 0) -> OutputHead:
        """A head initialised with the weights of the network's own last layers."""
        head = OutputHead(self.cfg, self.extras)
        for name in ("norm", "decoder_pred", "final_layer"):
            getattr(head, name).load_state_dict(getattr(self, name).state_dict())
        return head.to(self.pos_embed.device)

    def make_timestep_head(self, num_timesteps: int) -> TimestepHead:
        return TimestepHead(self.make_head(), num_timesteps)

    def make_branch(self) -> Block:
        """Half the parameters of a block: hidden width D in the MLP."""
        block = Block(self.dim, self.cfg.num_heads, 1.0, self.cfg.qkv_bias, skip=False)
        block.apply(_init_official)
        for last in (block.attn.proj, block.mlp.fc2):  # the block starts as the identity
            nn.init.zeros_(last.weight)
        return block.to(self.pos_embed.device)

    def config(self) -> dict[str, Any]:
        return {"name": "uvit", **asdict(self.cfg)}
