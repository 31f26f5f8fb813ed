"""The small classifiers that are the extractors `fd-cifar` and `fd-mnist`."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn


class _Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class FeatureNetwork(nn.Module):
    """ResNet-20 (He et al. 2016, section 4.2): three stages of three blocks, 16, 32 and 64 channels wide.

    `features` are the 64 pooled channels before the classifier.
    """

    size = 64

    def __init__(self, in_chans: int, classes: int = 10):
        super().__init__()
        self.in_chans = in_chans
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(
            *(_Block(inputs, outputs, 1 if inputs == outputs else 2) for inputs, outputs in itertools.pairwise(widths))
        )
        self.head = nn.Linear(64, classes)

    def features(self, x: Tensor) -> Tensor:
        """Images (B,C,32,32) in [−1, 1] → (B,64)."""
        return self.blocks(self.stem(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B,C,32,32) in [−1, 1] → class scores (B,classes)."""
        return self.head(self.features(x))
