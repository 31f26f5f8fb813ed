"""U-ViT (Bao et al., CVPR 2023), parameter names as in the official code so its checkpoints load."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from deediff.models.backbone import Backbone
from deediff.models.embedding import timestep_embedding


@dataclass(frozen=True)
class UViTConfig:
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
    """The official wording: depth 12 is 6 + 1 + 6 = 13 blocks."""
    num_heads: int = 8
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Hidden width of each block's MLP, as a multiple of D."""
    qkv_bias: bool = False
    """Whether queries, keys and values have a bias."""
    mlp_time_embed: bool = False
    """Whether the sinusoidal timestep embedding passes an MLP before it becomes a token."""
    num_classes: int = 0
    """Classes of a conditional model (adds a class token); 0 is unconditional."""
    conv: bool = True
    """Whether a 3×3 convolution follows the unpatchified output."""
    normalize_timesteps: bool = False
    """Whether the network is fed t/1000 instead of t in 0…999."""

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


PRESETS: dict[str, UViTConfig] = {
    "uvit_small": UViTConfig(),  # 44 255 328 parameters, as published for CIFAR-10
    "uvit_small_64": UViTConfig(img_size=64, patch_size=4),  # CelebA 64×64
    "uvit_mid_64": UViTConfig(64, 4, embed_dim=768, depth=16, num_heads=12, num_classes=1000),  # ImageNet 64×64
    "uvit_large_64": UViTConfig(64, 4, embed_dim=1024, depth=20, num_heads=16, num_classes=1000),
    "uvit_large": UViTConfig(
        in_chans=4, embed_dim=1024, depth=20, num_heads=16, num_classes=1001
    ),  # latents, ImageNet 256
    "uvit_huge": UViTConfig(in_chans=4, embed_dim=1152, depth=28, num_heads=16, num_classes=1001, conv=False),
    "uvit_shallow": UViTConfig(depth=2),  # DuoDiff's three blocks
    "uvit_mini": UViTConfig(embed_dim=256, num_heads=4),
    "uvit_tiny": UViTConfig(embed_dim=128, num_heads=4, patch_size=4),
}


def _linear(layer: Any, x: Tensor) -> Tensor:
    """`layer(x)`, straight to the operator: calling modules costs a tenth of a block on one or two samples."""
    if type(layer) is not nn.Linear or layer._forward_pre_hooks or layer._forward_hooks:
        return layer(x)  # replaced (LoRA, quantised) or watched
    weights: dict[str, Any] = layer._parameters
    return F.linear(x, weights["weight"], weights["bias"])


def _norm(layer: Any, x: Tensor) -> Tensor:
    """The same for a LayerNorm."""
    if type(layer) is not nn.LayerNorm or layer._forward_pre_hooks or layer._forward_hooks:
        return layer(x)
    weights: dict[str, Any] = layer._parameters
    return torch.layer_norm(x, layer.normalized_shape, weights["weight"], weights["bias"], layer.eps)


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) → (B, L, D)
        parts: dict[str, Any] = self._modules
        batch, tokens, dim = x.shape
        qkv = _linear(parts["qkv"], x).view(batch, tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, L, head_dim)
        x = F.scaled_dot_product_attention(q, k, v)
        return _linear(parts["proj"], x.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        parts: dict[str, Any] = self._modules
        return _linear(parts["fc2"], F.gelu(_linear(parts["fc1"], x)))


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, skip: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.skip_linear = nn.Linear(2 * dim, dim) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:  # (B, L, D) → (B, L, D)
        parts: dict[str, Any] = self._modules
        if (skip_linear := parts.get("skip_linear")) is not None:
            assert skip is not None
            x = _linear(skip_linear, torch.cat((x, skip), dim=-1))
        x = x + parts["attn"](_norm(parts["norm1"], x))
        return x + parts["mlp"](_norm(parts["norm2"], x))


class PatchEmbed(nn.Module):
    def __init__(self, patch_size: int, in_chans: int, dim: int):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:  # (B,C,H,W) → (B, patches, D)
        patches = rearrange(x, "b c (h p1) (w p2) -> b (h w) (c p1 p2)", p1=self.patch_size, p2=self.patch_size)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)  # the convolution, as one product


def _decode(net: nn.Module, state: Tensor, extras: int, patch_size: int) -> Tensor:
    """U-ViT's last layers: LayerNorm → Linear → unpatchify → 3×3 convolution. (B, L, D) → (B, C, H, W)."""
    patches = net.decoder_pred(net.norm(state[:, extras:]))  # type: ignore[operator]
    side = math.isqrt(patches.shape[1])
    image = rearrange(patches, "b (h w) (p1 p2 c) -> b c (h p1) (w p2)", h=side, p1=patch_size, p2=patch_size)
    return net.final_layer(image)  # type: ignore[operator]


class OutputHead(nn.Module):
    """The output head g_i of an exit: a copy of U-ViT's last layers. (B, L, D) → (B, C, H, W)."""

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
        return _decode(self, state, self.extras, self.patch_size)


def _init_official(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class UViT(Backbone):
    """U-ViT: `depth/2` blocks, a middle block, `depth/2` blocks with long skips.

    Source: Bao et al., "All are Worth Words", CVPR 2023.
    """

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
        if x.shape[1:] != (self.in_chans, self.img_size, self.img_size):
            raise ValueError(
                f"images are {tuple(x.shape[1:])}, this model takes {(self.in_chans, self.img_size, self.img_size)}"
            )
        if (y is None) != (self.num_classes == 0):
            raise ValueError("a class-conditional model needs labels, an unconditional one takes none")
        t = t / 1000 if self.cfg.normalize_timesteps else t
        patches = self.patch_embed(x)  # (B, patches, D)
        emb = timestep_embedding(t, self.dim).to(patches.dtype)
        tokens = [self.time_embed(emb)[:, None], patches]
        if y is not None:
            tokens.insert(0, self.label_emb(y)[:, None])
        return torch.cat(tokens, dim=1) + self.pos_embed  # (B, extras + patches, D)

    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        half = self.cfg.depth // 2
        if i < half:
            return self.in_blocks[i](state)
        if i == half:
            return self.mid_block(state)
        return self.out_blocks[i - half - 1](state, skip)

    def skip_source(self, i: int) -> int | None:
        return None if i <= self.cfg.depth // 2 else self.cfg.depth - i  # block 7 ↔ 5, …, 12 ↔ 0

    def decode(self, state: Tensor) -> Tensor:
        return _decode(self, state, self.extras, self.cfg.patch_size)

    def patchify(self, image: Tensor) -> Tensor:
        p = self.cfg.patch_size
        return rearrange(image, "b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=p, p2=p)

    def unpatchify(self, values: Tensor) -> Tensor:
        p, side = 1 if values.shape[2] == 1 else self.cfg.patch_size, math.isqrt(values.shape[1])
        return rearrange(values, "b (h w) (p1 p2 c) -> b c (h p1) (w p2)", h=side, p1=p, p2=p)

    def make_head(self) -> OutputHead:
        """A head that starts as a copy of the network's own last layers."""
        head = OutputHead(self.cfg, self.extras)
        for name in ("norm", "decoder_pred", "final_layer"):
            getattr(head, name).load_state_dict(getattr(self, name).state_dict())
        return head.to(self.pos_embed.device)

    def config(self) -> dict[str, Any]:
        return {"name": "uvit", **asdict(self.cfg)}


@torch.no_grad()
def identity_start_(net: UViT) -> UViT:
    """Initialise so that the untrained network already answers ε ≈ x_t, in place.

    The first thousand steps of a training go into learning that answer, and six randomly
    initialised skip projections in a row wash it out. Here every patch is embedded by an
    orthogonal map, each long skip starts as the mean of its two inputs, and the output layer
    inverts the embedding.
    """
    patch_dim = net.cfg.patch_size**2 * net.cfg.in_chans
    if patch_dim > net.dim:
        raise ValueError(f"an identity start needs width ≥ {patch_dim} (patch² × channels), this model has {net.dim}")
    basis = torch.empty(net.dim, patch_dim)
    nn.init.orthogonal_(basis)  # columns: one direction per pixel of a patch
    # LayerNorm divides by the token's RMS, which for unit-variance noise is sqrt(patch_dim / dim).
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
