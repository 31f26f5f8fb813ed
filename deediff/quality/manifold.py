"""Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deediff.quality.jackknife import GROUPS, Features, Groups, JackknifeEstimate

NEIGHBOURS = 3
CANDIDATES = 32  # nearest neighbours stored, so that three remain without any one group
AT_ONCE = 1024


def precision_recall(
    generated: Features, groups: Groups | None, real: Features, real_radii: Tensor
) -> tuple[JackknifeEstimate, JackknifeEstimate]:
    """Precision: the share of generated images within the radius of a real one; recall: the reverse.

    The radius of an image is the distance to its third nearest neighbour in its own set;
    `real_radii` is `radii` of the real features.
    """
    fake, true = torch.from_numpy(np.array(generated)), torch.from_numpy(real)
    inside = torch.cat([(torch.cdist(part, true) <= real_radii).any(1) for part in fake.split(AT_ONCE)]).double()
    left_out = range(GROUPS) if groups is not None else range(0)
    group = torch.from_numpy(groups) if groups is not None else torch.zeros(len(fake), dtype=torch.int64)
    precision_without = [float(inside[group != g].mean()) for g in left_out]
    radius = _radii_without_groups(fake, group, [*left_out, -1])  # (n, G + 1), the last one of all
    covered = torch.zeros(radius.shape[1], dtype=torch.float64)
    for part in true.split(AT_ONCE):
        within = torch.cdist(part, fake)[:, :, None] <= radius  # (b, n, G + 1)
        covered += within.any(1).sum(0)
    recall = (covered / len(true)).numpy()
    precision = JackknifeEstimate(float(inside.mean()), np.array(precision_without))
    return precision, JackknifeEstimate(float(recall[-1]), recall[:-1])


def radii(x: Features) -> Tensor:
    """(n,) distance of each feature to its third nearest neighbour."""
    return _nearest(torch.from_numpy(x), NEIGHBOURS + 1)[0][:, NEIGHBOURS]  # the nearest is itself


def _nearest(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distances and indices of the nearest neighbours of each feature, itself first: (n, count) each."""
    found = [torch.cdist(part, x).topk(min(count, len(x)), largest=False) for part in x.split(AT_ONCE)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def _radii_without_groups(x: Tensor, group: Tensor, left_out: list[int]) -> Tensor:
    """(n, len(left_out)) distance to the third nearest neighbour without each group; −1 for members of that group."""
    distance, index = _nearest(x, CANDIDATES)
    neighbour = group[index]  # (n, K)
    columns = []
    for g in left_out:
        order = (neighbour != g).int().cumsum(1)  # rank among the neighbours that are not left out
        third = (order > NEIGHBOURS).int().argmax(1)
        columns.append(torch.where(group != g, distance.gather(1, third[:, None])[:, 0], -1.0))
    return torch.stack(columns, dim=1)
