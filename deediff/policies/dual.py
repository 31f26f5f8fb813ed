"""DuoDiff's dual backbone (arXiv 2410.09633): a shallow network for the first steps, the full one for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver
from deediff.digits import whole_number
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class Dual(ExitPolicy):
    """The shallow network at timesteps `switch` … T−1 (the first steps), the full network at the others.

    The exit layer of a shallow step is the shallow network's number of blocks.
    """

    needs_heads = False

    def __init__(self, switch: int, shallow: EarlyExitModel, info: dict[str, Any], name: str):
        self.switch, self.shallow, self.name = switch, shallow, name
        self.schedule = Schedule(**info["schedule"])
        self.spec, self.content = f"dual:{switch}:{name}", {"checkpoint_sha256": info["sha256"]}

    def should_exit(self, state: LayerState) -> bool:
        return False

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        return set()

    def network(self, timestep: int) -> EarlyExitModel | None:
        return self.shallow if timestep >= self.switch else None

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        if self.switch >= self.schedule.num_timesteps:
            raise UserError(
                f"policy {self.spec} switches at timestep {self.switch}, but there are {self.schedule.num_timesteps}: "
                "the shallow network would never be used; choose a smaller t"
            )
        check_network(f"the dual checkpoint {self.name}", self.shallow, self.schedule, model, schedule)
        self.shallow.to(next(model.parameters()).device)

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        if guidance is not None and not self.shallow.null_label:
            raise UserError(
                f"guidance needs a label that means no class, which the dual checkpoint {self.name} has not learnt: "
                "choose one trained with --label-dropout"
            )
        return self


def check_network(
    what: str, other: EarlyExitModel, other_schedule: Schedule, model: EarlyExitModel, schedule: Schedule | None
) -> None:
    """Raises UserError when another network cannot take steps of this model's sampling. `what` names it."""
    for quantity, theirs, ours in (
        ("images of shape", other.image_shape, model.image_shape),
        ("a number of classes of", other.backbone.num_classes, model.backbone.num_classes),
        ("the noise", other_schedule, schedule or other_schedule),
    ):
        if theirs != ours:
            raise UserError(f"{what} was trained on {quantity} {theirs}, this model on {ours}: choose two that agree")
    if other.num_blocks > model.num_blocks:
        raise UserError(
            f"{what} has {other.num_blocks} blocks, more than this model's {model.num_blocks}: "
            "give the shallow one to the policy"
        )


def read_dual(argument: str) -> Dual:
    """'t:CHECKPOINT' → policy. Raises UserError when the checkpoint does not exist or t is not a timestep."""
    switch, _, path = argument.partition(":")
    if not path:
        raise UserError(f"policy dual:{argument} names no shallow network, expected dual:t:CHECKPOINT")
    if (timestep := whole_number(switch)) is None:
        raise UserError(f"policy dual:{argument} switches at {switch!r}, expected a timestep 0, 1, …")
    model, info = load_checkpoint(find_checkpoint(Path(path)))
    return Dual(timestep, model, info, path)
