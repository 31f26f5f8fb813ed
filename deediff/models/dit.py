"""DiT (Peebles & Xie, ICCV 2023, "Scalable Diffusion Models with Transformers"), with the official parameter names.

A token per patch, and a vector that represents timestep and class, by which every block modulates its tokens (adaLN).
That vector travels as the first token of each state; no block changes it. There are no long skips.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deediff.models.backbone import Backbone, BackboneConfig, check_inputs
from deediff.models.embedding import timestep_embedding
from deediff.models.uvit import Attention, Mlp, PatchEmbed, unpatchify

FREQUENCIES = 256  # values of the sinusoidal timestep embedding


@dataclass(frozen=True)
class DiTConfig(BackboneConfig):
    """Shape of a DiT. The defaults are DiT-S/2 on latents of ImageNet 256×256."""

    img_size: int = 32
    """Image (latent) height and width."""
    patch_size: int = 2
    """Pixels per side of one token's patch."""
    in_chans: int = 4
    """Image (latent) channels."""
    embed_dim: int = 384
    """Width D of the tokens, a multiple of 4."""
    depth: int = 12
    """Number of blocks N."""
    num_heads: int = 6
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Hidden width of each block's MLP, as a multiple of D."""
    num_classes: int = 1001
    """Classes of a conditional model, with the null label of guidance as the last one; 0 is unconditional."""
    freq_shift: int = 0
    """Frequencies of the timestep embedding: 0 as in the official code, 1 as in diffusers' DiTTransformer2DModel."""

    @property
    def num_blocks(self) -> int:
        """N."""
        return self.depth

    def __str__(self) -> str:
        return (
            f"DiT {self.in_chans}×{self.img_size}×{self.img_size}, {self.num_blocks} blocks, "
            f"width {self.embed_dim}, patch {self.patch_size}"
        )

    def __post_init__(self) -> None:
        if min(self.img_size, self.in_chans, self.embed_dim, self.num_heads, self.depth) < 1 or self.num_classes < 0:
            raise ValueError("image size, channels, width, depth and attention heads must be 1 or more")
        if self.patch_size < 1 or self.img_size % self.patch_size:
            raise ValueError(
                f"patch size {self.patch_size} does not divide image size {self.img_size}: choose one that does"
            )
        if self.embed_dim % self.num_heads or self.embed_dim % 4:
            raise ValueError(
                f"width {self.embed_dim} is not a multiple of 4 and of the {self.num_heads} attention heads"
            )


class DiTBlock(nn.Module):
    """Transformer block with adaLN-zero. (B, 1 + L, D) → (B, 1 + L, D), the first token unchanged."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), approximate="tanh")
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, state: Tensor) -> Tensor:
        c, x = state[:, :1], state[:, 1:]  # (B, 1, D), (B, L, D)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)  # (B, 1, D) each
        x = torch.addcmul(x, gate1, self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1)))
        x = torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))
        return torch.cat([c, x], dim=1)


class FinalLayer(nn.Module):
    """The last layers, and the output head of an exit. (B, 1 + L, D) → (B,C,H,W)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        dim, self.patch_size = config.embed_dim, config.patch_size
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(dim, config.patch_size**2 * config.in_chans)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, state: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(state[:, :1]).chunk(2, dim=-1)  # (B, 1, D) each
        patches = self.linear(torch.addcmul(shift, self.norm_final(state[:, 1:]), 1 + scale))  # (B, L, p·p·C)
        return unpatchify(patches, self.patch_size)


class TimestepEmbedder(nn.Module):
    """(B,) timesteps → (B, D): sinusoids, then an MLP."""

    def __init__(self, dim: int, freq_shift: int):
        super().__init__()
        self.freq_shift = freq_shift
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        emb = timestep_embedding(t, FREQUENCIES, freq_shift=self.freq_shift)
        output: Tensor = self.mlp(emb.to(next(self.parameters()).dtype))
        return output


class LabelEmbedder(nn.Module):
    """(B,) labels → (B, D)."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes, dim)

    def forward(self, y: Tensor) -> Tensor:
        embedding: Tensor = self.embedding_table(y)
        return embedding


def position_embedding(dim: int, side: int) -> Tensor:
    """Fixed sines and cosines of each patch's column, then of its row: (1, side², dim)."""
    frequencies = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(side)[:, None] * frequencies
    wave = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim/2)
    return torch.cat([wave.repeat(side, 1), wave.repeat_interleave(side, dim=0)], dim=1).float()[None]


class DiT(Backbone):
    """N blocks with adaLN-zero. Of a network that learns σ as well, this is the part that predicts ε."""

    extras = 1  # timestep and class
    pos_embed: Tensor

    def __init__(self, config: DiTConfig):
        super().__init__()
        c = self.cfg = config
        self.num_blocks, self.dim = c.num_blocks, c.embed_dim
        self.in_chans, self.img_size, self.num_classes = c.in_chans, c.img_size, c.num_classes
        self.patch_dim = c.patch_size**2 * c.in_chans
        side = c.img_size // c.patch_size
        self.state_size = (1 + side**2) * c.embed_dim
        self.x_embedder = PatchEmbed(c.patch_size, c.in_chans, c.embed_dim)
        self.t_embedder = TimestepEmbedder(c.embed_dim, c.freq_shift)
        if c.num_classes:
            self.y_embedder = LabelEmbedder(c.num_classes, c.embed_dim)
        self.register_buffer("pos_embed", position_embedding(c.embed_dim, side))
        self.blocks = nn.ModuleList(DiTBlock(c.embed_dim, c.num_heads, c.mlp_ratio) for _ in range(c.depth))
        self.final_layer = FinalLayer(c)
        self._initialize()

    def _initialize(self) -> None:
        """As in the official code: every block starts as the identity, and the network predicts 0."""
        self.apply(_init_linear)
        embedders: list[Any] = [self.x_embedder.proj, self.t_embedder.mlp[0], self.t_embedder.mlp[2]]
        nn.init.xavier_uniform_(embedders[0].weight.flatten(1))
        nn.init.zeros_(embedders[0].bias)
        for layer in embedders[1:]:
            nn.init.normal_(layer.weight, std=0.02)
        if self.num_classes:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for module in (*self.blocks, self.final_layer):
            nn.init.zeros_(module.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def embed(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        check_inputs(self, x, y)
        c = self.t_embedder(t)  # (B, D)
        if y is not None:
            c = c + self.y_embedder(y)
        patches = self.x_embedder(x) + self.pos_embed  # (B, patches, D)
        return torch.cat([c[:, None], patches], dim=1)  # (B, 1 + patches, D)

    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        output: Tensor = self.blocks[i](state)
        return output

    def skip_source(self, i: int) -> int | None:
        return None

    def decode(self, state: Tensor) -> Tensor:
        image: Tensor = self.final_layer(state)
        return image

    def unpatchify(self, values: Tensor) -> Tensor:
        return unpatchify(values, 1 if values.shape[2] == 1 else self.cfg.patch_size)

    def make_head(self, layer: int = 0) -> FinalLayer:
        """A head initialised with the weights of the network's own last layers; it is modulated by the timestep."""
        head = FinalLayer(self.cfg)
        head.load_state_dict(self.final_layer.state_dict())
        return head.to(self.pos_embed.device)

    def make_timestep_head(self, num_timesteps: int) -> nn.Module:
        raise ValueError("the output head 'linear' of a DiT depends on the timestep already: use it")

    def make_branch(self) -> DiTBlock:
        """A block with hidden width D in its MLP."""
        block = DiTBlock(self.dim, self.cfg.num_heads, 1.0)
        block.apply(_init_linear)
        nn.init.zeros_(block.adaLN_modulation[1].weight)  # type: ignore[arg-type]
        return block.to(self.pos_embed.device)

    def config(self) -> dict[str, Any]:
        return {"name": "dit", **asdict(self.cfg)}


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
