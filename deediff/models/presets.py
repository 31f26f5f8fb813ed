"""Network sizes by name."""

from __future__ import annotations

from dataclasses import replace

from deediff.models.backbone import BackboneConfig
from deediff.models.dit import DiTConfig
from deediff.models.unet import UNetConfig
from deediff.models.uvit import UViTConfig

UVITS: dict[str, UViTConfig] = {
    # As published (Bao et al. 2023).
    "uvit_small": UViTConfig(),  # CIFAR-10: 44 M parameters, 13 blocks
    "uvit_small_64": UViTConfig(img_size=64, patch_size=4),  # CelebA 64×64: 44 M, 13 blocks
    "uvit_mid_64": UViTConfig(  # ImageNet 64×64: 131 M, 17 blocks
        img_size=64, patch_size=4, embed_dim=768, depth=16, num_heads=12, num_classes=1000
    ),
    "uvit_large_64": UViTConfig(  # ImageNet 64×64: 287 M, 21 blocks
        img_size=64, patch_size=4, embed_dim=1024, depth=20, num_heads=16, num_classes=1000
    ),
    "uvit_large": UViTConfig(  # latents of ImageNet 256×256: 287 M, 21 blocks
        in_chans=4, embed_dim=1024, depth=20, num_heads=16, num_classes=1001
    ),
    "uvit_huge": UViTConfig(  # latents of ImageNet 256×256: 501 M, 29 blocks
        in_chans=4, embed_dim=1152, depth=28, num_heads=16, num_classes=1001, conv=False
    ),
    "uvit_shallow": UViTConfig(depth=2),  # DuoDiff's shallow network: 3 blocks
    # Small enough to train on a CPU.
    "uvit_mini": UViTConfig(embed_dim=256, num_heads=4),  # 13 blocks, 257 tokens
    "uvit_tiny": UViTConfig(embed_dim=128, num_heads=4, patch_size=4),  # 13 blocks, 65 tokens
}
# As published (Peebles & Xie 2023): latents of ImageNet 256×256, of which each preset takes 32×32.
SIZES: dict[str, DiTConfig] = {
    "s": DiTConfig(),  # 33 M parameters with patch 2, 12 blocks
    "b": DiTConfig(embed_dim=768, num_heads=12),  # 130 M, 12 blocks
    "l": DiTConfig(embed_dim=1024, depth=24, num_heads=16),  # 458 M, 24 blocks
    "xl": DiTConfig(embed_dim=1152, depth=28, num_heads=16),  # 675 M, 28 blocks
}
DITS: dict[str, DiTConfig] = {
    **{f"dit_{name}_{p}": replace(size, patch_size=p) for name, size in SIZES.items() for p in (2, 4, 8)},
    # Small enough to train on a CPU: digits with their classes and the null label, 7 blocks, 64 patches.
    "dit_tiny": DiTConfig(in_chans=1, patch_size=4, embed_dim=96, depth=7, num_heads=4, num_classes=11),
}
UNETS: dict[str, UNetConfig] = {
    "unet_small": UNetConfig(),  # DDPM's network for CIFAR-10 (Ho et al. 2020): 35.7 M parameters, 9 stages
    # Small enough to train on a CPU: 0.7 M, 7 stages, maps of 32, 16 and 8 pixels per side.
    "unet_tiny": UNetConfig(in_chans=1, channels=(24, 32, 48), norm_groups=8),
}
PRESETS: dict[str, BackboneConfig] = {**UVITS, **DITS, **UNETS}
