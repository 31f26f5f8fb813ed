"""Clipping of the predicted clean image."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_image(x0: Tensor, percentile: float | None = None) -> Tensor:
    """x̂_0 within [−1, 1]: (B,C,H,W) → (B,C,H,W).

    Without a percentile, values outside are clipped (Ho et al. 2020). With one, dynamic thresholding (Saharia et
    al. 2022, section 2.3): each image is clipped at s, the percentile of its absolute values but at least 1, and
    divided by s.
    """
    if percentile is None:
        return x0.clamp(-1, 1)
    limit = torch.quantile(x0.abs().flatten(1).float(), percentile, dim=1).clamp(min=1).to(x0.dtype)  # (B,)
    limit = limit[:, None, None, None]
    return x0.clamp(-limit, limit) / limit
