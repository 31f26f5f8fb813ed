"""GFLOPs of a sampling job."""

from __future__ import annotations

from deediff.cost.components import model_cost
from deediff.cost.cost import Cost
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy


def sampling_cost(model: EarlyExitModel, policy: ExitPolicy, timesteps: list[int], guidance: float | None) -> Cost:
    """Of one image and one step of this sampling job, guidance and a shallow network for the first steps included."""
    cost = model_cost(model)
    others = [other for t in timesteps if (other := policy.network(t)) is not None]
    if others:
        cost = cost.after(model_cost(others[0]), len(others))
    return cost if guidance is None else cost.times(2)
