"""No early exit."""

from __future__ import annotations

from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class Never(ExitPolicy):
    """Run all blocks: the full network."""

    needs_heads = False
    spec = "never"

    def should_exit(self, state: LayerState) -> bool:
        return False

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        return set()
