"""What the page *Sample live* samples."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class LiveSettings:
    """What to sample. All images are one batch."""

    weights: str  # run and checkpoint in words
    policy: str
    solver: str
    steps: int
    num_samples: int
    seed: int

    @property
    def policy_in_words(self) -> str:
        """The policy, files and folders by their names alone."""
        return re.sub(r"([@:])[^@:]*/([^/,]+)", r"\1\2", self.policy)
