"""U-ViT (Bao et al., CVPR 2023), parameter names as in the official code so its checkpoints load."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, L, D) → (B, L, D)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, head_dim)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
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
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def ready(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The same on a CPU without gradients, in one call that keeps Python's lock from nobody in between.

        It is what `nn.TransformerEncoderLayer` does then. Of the weights as they are now.
        """
        qkv, dim, heads = self.attn.qkv, self.dim, self.attn.num_heads
        bias = qkv.weight.new_zeros(3 * dim) if qkv.bias is None else qkv.bias
        norms = [*self.norm1.parameters(), *self.norm2.parameters()]
        attention, mlp = [qkv.weight, bias, *self.attn.proj.parameters()], [*self.mlp.parameters()]
        # With GELU, and each norm first.
        fixed: tuple[Any, ...] = (dim, heads, *attention, True, True, self.norm1.eps, *norms, *mlp)
        skip_linear = self.skip_linear

        def run(x: Tensor, skip: Tensor | None = None) -> Tensor:
            if skip_linear is not None:
                assert skip is not None
                x = F.linear(torch.cat((x, skip), dim=-1), skip_linear.weight, skip_linear.bias)
            return torch._transformer_encoder_layer_fwd(x, *fixed)

        return run


SHORT = 128  # tokens up to which PyTorch's own layer is the faster one, on the CPUs measured


def _is_plain(parts: Iterable[nn.Module]) -> bool:
    """Whether they are what they were built as (no LoRA, nothing quantised), on a CPU, and nobody listens to them."""
    return all(
        type(m) in (Block, Attention, Mlp, OutputHead, nn.Linear, nn.LayerNorm, nn.Conv2d, nn.Identity)
        and not (m._forward_pre_hooks or m._forward_hooks)
        and all(p.device.type == "cpu" for p in m.parameters(recurse=False))
        for part in parts
        for m in part.modules()
    )


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
    return net.final_layer(_unpatchify(patches, patch_size))  # type: ignore[operator]


def _unpatchify(patches: Tensor, p: int) -> Tensor:
    side = math.isqrt(patches.shape[1])
    return rearrange(patches, "b (h w) (p1 p2 c) -> b c (h p1) (w p2)", h=side, p1=p, p2=p)


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


def _stacked(heads: Sequence[nn.Module], extras: int, patch_size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Several heads as one, that reads out each sample by its own: (n, L, D), (n,) which → (n, C, H, W)."""

    def stack(name: str) -> Tensor:
        return torch.stack([head.get_parameter(name) for head in heads])

    gain, shift = stack("norm.weight")[:, None], stack("norm.bias")[:, None]
    weight, bias = stack("decoder_pred.weight").transpose(1, 2), stack("decoder_pred.bias")[:, None]
    has_conv = isinstance(heads[0].final_layer, nn.Conv2d)
    kernel, offset = (stack("final_layer.weight"), stack("final_layer.bias")) if has_conv else (bias, bias)

    def read_out(state: Tensor, which: Tensor) -> Tensor:
        tokens = F.layer_norm(state[:, extras:], (state.shape[2],))
        tokens = torch.addcmul(shift[which], tokens, gain[which])
        image = _unpatchify(torch.baddbmm(bias[which], tokens, weight[which]), patch_size)
        if not has_conv:
            return image
        # A group of channels for each sample.
        stacked, kernels = image.flatten(0, 1)[None], kernel[which].flatten(0, 1)
        image_out = F.conv2d(stacked, kernels, offset[which].flatten(), padding=1, groups=len(image))
        return image_out.view(image.shape)

    return read_out


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

    def _block(self, i: int) -> Block:
        half = self.cfg.depth // 2
        block = self.mid_block if i == half else self.in_blocks[i] if i < half else self.out_blocks[i - half - 1]
        assert isinstance(block, Block)
        return block

    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        return self._block(i)(state, skip)

    def _is_own(self, name: str) -> bool:
        """Whether a method is the one below, overridden by nobody."""
        return getattr(getattr(self, name), "__func__", None) is getattr(UViT, name)

    def ready_block(self, i: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        block = self._block(i)
        short, own = self.pos_embed.shape[1] <= SHORT, self._is_own("block")
        if short and own and _is_plain([block]) and hasattr(torch, "_transformer_encoder_layer_fwd"):
            return block.ready()
        return super().ready_block(i)

    def skip_source(self, i: int) -> int | None:
        return None if i <= self.cfg.depth // 2 else self.cfg.depth - i  # block 7 ↔ 5, …, 12 ↔ 0

    def decode(self, state: Tensor) -> Tensor:
        return _decode(self, state, self.extras, self.cfg.patch_size)

    def ready_heads(self, heads: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor] | None:
        last = (self.norm, self.decoder_pred, self.final_layer)
        if self._is_own("decode") and all(type(head) is OutputHead for head in heads) and _is_plain([*heads, *last]):
            return _stacked([*heads, self], self.extras, self.cfg.patch_size)
        return super().ready_heads(heads)

    def patchify(self, image: Tensor) -> Tensor:
        p = self.cfg.patch_size
        return rearrange(image, "b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p1=p, p2=p)

    def unpatchify(self, values: Tensor) -> Tensor:
        return _unpatchify(values, 1 if values.shape[2] == 1 else self.cfg.patch_size)

    def make_head(self) -> OutputHead:
        """A head that starts as a copy of the network's own last layers."""
        head = OutputHead(self.cfg, self.extras)
        for name in ("norm", "decoder_pred", "final_layer"):
            getattr(head, name).load_state_dict(getattr(self, name).state_dict())
        return head.to(self.pos_embed.device)

    def config(self) -> dict[str, Any]:
        return {"name": "uvit", **asdict(self.cfg)}
