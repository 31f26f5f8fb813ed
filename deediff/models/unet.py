"""The U-Net of DDPM (Ho et al. 2020) as a network of stages, with the parameter names of diffusers' `UNet2DModel`.

A stage is one resolution on the way down, the middle, or one resolution on the way up. A state holds a token per pixel
of the stage's map, at that resolution; its first token holds the sinusoids of the timestep, which each stage embeds
anew. The output of a stage down is the three maps that its long skip hands on (for two residual blocks), side by side.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deediff.models.backbone import Backbone, BackboneConfig, check_inputs
from deediff.models.embedding import timestep_embedding


@dataclass(frozen=True)
class UNetConfig(BackboneConfig):
    """Shape of a U-Net. The defaults are DDPM's network for CIFAR-10."""

    img_size: int = 32
    """Image height and width in pixels."""
    in_chans: int = 3
    """Image channels."""
    channels: tuple[int, ...] = (128, 256, 256, 256)
    """Channels at each resolution; every one has half the height and width of the one before."""
    layers: int = 2
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Heights of the maps with self-attention; the middle always has it."""
    head_dim: int = 0
    """Channels per attention head; 0: one head."""
    norm_groups: int = 32
    """Groups of the group norms."""
    num_classes: int = 0
    """Always 0: this network is unconditional."""

    @property
    def num_blocks(self) -> int:
        """N."""
        return 2 * len(self.channels) + 1

    def __str__(self) -> str:
        widths = ", ".join(map(str, self.channels))
        return f"U-Net {self.in_chans}×{self.img_size}×{self.img_size}, {self.num_blocks} stages, channels {widths}"

    def __post_init__(self) -> None:
        for name in ("channels", "attention"):  # lists in JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.channels or min(self.img_size, self.in_chans, self.layers, *self.channels) < 1 or self.num_classes:
            raise ValueError("image size, channels and layers of a U-Net must be 1 or more, and its classes 0")
        if self.img_size % 2 ** (len(self.channels) - 1):
            raise ValueError(f"image size {self.img_size} cannot be halved {len(self.channels) - 1} times")
        if any(width % self.norm_groups or width % (self.head_dim or 1) for width in self.channels):
            raise ValueError(
                f"channels {self.channels} are not all multiples of the {self.norm_groups} groups of the norms and the "
                f"{self.head_dim} channels per head"
            )

    def side(self, level: int) -> int:
        """Height and width of the maps at a resolution."""
        return self.img_size // 2**level

    def stage_input(self, level: int) -> int:
        """Channels that enter the residual blocks of a resolution on the way down."""
        return self.channels[max(0, level - 1)]


class ResBlock(nn.Module):
    """Two convolutions with group norms, between which the timestep is added. (B,C,h,w), (B,E) → (B,C′,h,w)."""

    def __init__(self, config: UNetConfig, in_chans: int, out_chans: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.norm_groups, in_chans, eps=1e-6)
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * config.channels[0], out_chans)
        self.norm2 = nn.GroupNorm(config.norm_groups, out_chans, eps=1e-6)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=1)
        if in_chans != out_chans:
            self.conv_shortcut = nn.Conv2d(in_chans, out_chans, 1)
        nn.init.zeros_(self.conv2.weight)  # the block starts as the identity, or its shortcut

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(emb))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class PixelAttention(nn.Module):
    """Self-attention between the pixels of a map. (B,C,h,w) → (B,C,h,w)."""

    def __init__(self, config: UNetConfig, channels: int):
        super().__init__()
        self.num_heads = channels // (config.head_dim or channels)
        self.group_norm = nn.GroupNorm(config.norm_groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        nn.init.zeros_(self.to_out[0].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, h·w, C)
        q, k, v = (
            project(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, h·w, C/heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, h·w, C)
        output: Tensor = x + self.to_out[0](mixed).transpose(1, 2).unflatten(2, x.shape[2:])
        return output


class Resample(nn.Module):
    """Halves a map by a convolution of stride 2, or doubles it and convolves."""

    def __init__(self, channels: int, down: bool):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNetStage(nn.Module):
    """Residual blocks at one resolution, with attention after each if it has any."""

    def __init__(self, config: UNetConfig, sizes: list[tuple[int, int]], attention: int, resample: str = ""):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(config, *size) for size in sizes)
        out_chans = sizes[-1][1]
        if attention:
            self.attentions = nn.ModuleList(PixelAttention(config, out_chans) for _ in range(attention))
        if resample:
            setattr(self, resample, nn.ModuleList([Resample(out_chans, down=resample == "downsamplers")]))

    def run(self, i: int, h: Tensor, emb: Tensor) -> Tensor:
        """Residual block i, and its attention."""
        h = self.resnets[i](h, emb)
        return self.attentions[i](h) if hasattr(self, "attentions") else h


class StageHead(nn.Module):
    """Output head of an exit: norm, SiLU, and a convolution at the stage's resolution. (B, 1 + h·w, D) → (B,C,H,W).

    At a resolution that is p times lower it predicts the p·p pixels of each place, C·p² channels, and moves them there.
    """

    def __init__(self, config: UNetConfig, dim: int, side: int):
        super().__init__()
        self.side, self.factor = side, config.img_size // side
        self.norm = nn.GroupNorm(config.norm_groups, dim, eps=1e-6)
        self.conv = nn.Conv2d(dim, config.in_chans * self.factor**2, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, state: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(F.silu(self.norm(to_map(state, self.side)))), self.factor)


def to_map(state: Tensor, side: int) -> Tensor:
    """(B, 1 + side², D) → (B,D,side,side).

    A copy: torch 2.13 crashes in the backward pass of a CPU's convolution over some views with channels last.
    """
    return state[:, 1:].transpose(1, 2).unflatten(2, (side, side)).contiguous()


class UNet(Backbone):
    """Stages down, the middle, stages up. An exit from a low resolution must hold all of the noise in its few pixels.

    Exits cost what `deediff flops` shows: those on the way down read three maps, those at the full resolution a
    convolution over all pixels.
    """

    extras = 1  # the timestep

    def __init__(self, config: UNetConfig):
        super().__init__()
        c = self.cfg = config
        levels, last = len(c.channels), c.channels[-1]
        self.num_blocks, self.num_classes = c.num_blocks, 0
        self.in_chans, self.img_size, self.patch_dim = c.in_chans, c.img_size, c.in_chans
        down = [c.stage_input(level) + c.layers * width for level, width in enumerate(c.channels)]
        self.dims = (c.channels[0], *down, last, *reversed(c.channels))  # of the input states of blocks 0 … N
        path = (0, *range(levels), levels - 1, *reversed(range(levels)))
        self.sides = tuple(c.side(level) for level in path)
        self.dim = max(self.dims)
        self.state_size = max((1 + side**2) * dim for side, dim in zip(self.sides, self.dims, strict=True))
        width = c.channels[0]
        self.conv_in = nn.Conv2d(c.in_chans, width, 3, padding=1)
        self.time_embedding = nn.ModuleDict(
            {"linear_1": nn.Linear(width, 4 * width), "linear_2": nn.Linear(4 * width, 4 * width)}
        )
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            sizes = self._sizes(level, up=False)
            down_attention = c.layers * (c.side(level) in c.attention)
            self.down_blocks.append(UNetStage(c, sizes, down_attention, "downsamplers" if level < levels - 1 else ""))
        self.mid_block = UNetStage(c, [(last, last)] * 2, attention=1)
        for level in reversed(range(levels)):
            up_attention = (c.layers + 1) * (c.side(level) in c.attention)
            self.up_blocks.append(
                UNetStage(c, self._sizes(level, up=True), up_attention, "upsamplers" if level else "")
            )
        self.conv_norm_out = nn.GroupNorm(c.norm_groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, c.in_chans, 3, padding=1)

    def _sizes(self, level: int, up: bool) -> list[tuple[int, int]]:
        """Input and output channels of a stage's residual blocks."""
        c, width = self.cfg, self.cfg.channels[level]
        if not up:
            return [(c.stage_input(level), width), *[(width, width)] * (c.layers - 1)]
        below = c.channels[min(level + 1, len(c.channels) - 1)]
        skips = [*[width] * c.layers, c.stage_input(level)]
        return [((below if k == 0 else width) + skip, width) for k, skip in enumerate(skips)]

    def layer_dim(self, layer: int) -> int:
        return self.dims[layer]

    def layer_patch_dim(self, layer: int) -> int:
        return self.in_chans * (self.img_size // self.sides[layer]) ** 2

    def embed(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        check_inputs(self, x, y)
        cosines, sines = timestep_embedding(t, self.cfg.channels[0], freq_shift=1).chunk(2, dim=1)
        return self._pack(torch.cat([sines, cosines], dim=1).to(x.dtype), self.conv_in(x))

    def _pack(self, time: Tensor, h: Tensor) -> Tensor:
        """(B,E) sinusoids and a map (B,D,h,w) → state (B, 1 + h·w, D)."""
        first = F.pad(time, (0, h.shape[1] - time.shape[1]))[:, None]
        return torch.cat([first, h.flatten(2).transpose(1, 2)], dim=1)

    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        levels, time, h = len(self.cfg.channels), state[:, 0, : self.cfg.channels[0]], to_map(state, self.sides[i])
        emb = self.time_embedding["linear_2"](F.silu(self.time_embedding["linear_1"](time)))
        if i <= levels and i > 0:
            h = h[:, -self.cfg.channels[i - 1] :]  # the last of a stage's maps; the others are for its long skip
        if i < levels:
            return self._pack(time, self._down(i, h, emb))
        if i == levels:
            middle: Any = self.mid_block
            return self._pack(time, middle.resnets[1](middle.run(0, h, emb), emb))
        assert skip is not None
        return self._pack(time, self._up(i - levels - 1, h, to_map(skip, self.sides[i + 1]), emb))

    def _down(self, level: int, h: Tensor, emb: Tensor) -> Tensor:
        """All maps of a stage on the way down, side by side."""
        if level > 0:
            h = self.down_blocks[level - 1].downsamplers[0](h)  # type: ignore[union-attr, index, operator]
        maps, stage = [h], self.down_blocks[level]
        for k in range(self.cfg.layers):
            maps.append(stage.run(k, maps[-1], emb))  # type: ignore[operator]
        return torch.cat(maps, dim=1)

    def _up(self, j: int, h: Tensor, skip: Tensor, emb: Tensor) -> Tensor:
        if j > 0:
            h = self.up_blocks[j - 1].upsamplers[0](h)  # type: ignore[union-attr, index, operator]
        level, stage = len(self.cfg.channels) - 1 - j, self.up_blocks[j]
        widths = [self.cfg.stage_input(level), *[self.cfg.channels[level]] * self.cfg.layers]
        for k, joined in enumerate(reversed(skip.split(widths, dim=1))):
            h = stage.run(k, torch.cat([h, joined], dim=1), emb)  # type: ignore[operator]
        return h

    def skip_source(self, i: int) -> int | None:
        levels = len(self.cfg.channels)
        return 2 * levels - i if i > levels else None

    def decode(self, state: Tensor) -> Tensor:
        image: Tensor = self.conv_out(F.silu(self.conv_norm_out(to_map(state, self.img_size))))
        return image

    def unpatchify(self, values: Tensor) -> Tensor:
        side = round(values.shape[1] ** 0.5)
        image = values.transpose(1, 2).unflatten(2, (side, side))  # (B, values, h, w)
        return image if values.shape[2] == 1 else F.pixel_shuffle(image, self.img_size // side)

    def make_head(self, layer: int = 0) -> StageHead:
        """A head that starts with the network's own last convolution where the shapes are equal, else at 0."""
        head = StageHead(self.cfg, self.dims[layer], self.sides[layer])
        if head.conv.weight.shape == self.conv_out.weight.shape:
            head.norm.load_state_dict(self.conv_norm_out.state_dict())
            head.conv.load_state_dict(self.conv_out.state_dict())
        return head.to(self.conv_in.weight.device)

    def config(self) -> dict[str, Any]:
        return {"name": "unet", **asdict(self.cfg)}
