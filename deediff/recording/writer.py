"""Buffer the steps of a batch, and write them as one part of a trace."""

from __future__ import annotations

import errno
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deediff.datasets import to_uint8
from deediff.errors import UserError
from deediff.recording.parts import Part, write_part
from deediff.sampling.sampler import Step
from deediff.storage import AnyPath, write_atomically


class TraceWriter:
    """Consumes the sampler's steps; writes each batch as one part after its last step."""

    def __init__(
        self,
        folder: AnyPath,
        timesteps: list[int],
        num_blocks: int,
        part_of: dict[range, int],
        remembers: bool = False,  # whether rows hold the policy's signal and the steps since the last full evaluation
    ):
        self.remembers = remembers
        self.folder, self.timesteps, self.num_blocks, self.part_of = folder, timesteps, num_blocks, part_of
        self._steps: list[Step] = []
        self._start = time.perf_counter()

    def add(self, step: Step) -> bool:
        """Buffer one step. Returns True when it completed a part."""
        self._steps.append(replace(step, x=step.x if self._is_last(step) else step.x[:0], x0=step.x0[:0]))
        if not self._is_last(step):
            return False
        deviations = [s.deviation for s in self._steps if s.deviation is not None]
        pictures = step.x.shape[1] in (1, 3)  # others are latents, which are no RGBA pictures
        part = Part(
            step.samples,
            self.timesteps,
            exit_layer=torch.stack([s.exit_layer for s in self._steps], dim=1).numpy().astype(np.int8),  # (B, S)
            uncertainty=torch.stack([s.uncertainty for s in self._steps], dim=1).numpy(),  # (B, S, N)
            deviation=torch.stack(deviations, dim=1).numpy() if deviations else None,  # (B, S, N)
            images=to_uint8(step.x).cpu().numpy() if pictures else None,  # (B, C, H, W)
            latents=None if pictures else step.x.float().cpu().numpy(),
            num_blocks=self.num_blocks,
            **(self._memory() if self.remembers else {}),
        )
        number, seconds = self.part_of[step.samples], time.perf_counter() - self._start
        try:
            timing = self.folder / f"timing-{number:05d}.json"
            write_atomically(timing, json.dumps({"seconds": seconds}).encode(), sync=False)
            write_part(self.folder, number, part)
        except OSError as error:
            raise UserError(cannot_write(self.folder, error)) from None
        self._steps = []
        self._start = time.perf_counter()
        return True

    def _memory(self) -> dict[str, NDArray[Any]]:
        """What the policy compared and the age of its memory: (B, S) each."""
        missing = np.full(len(self._steps[0].samples), np.nan, np.float32)
        signals = [missing if s.signal is None else s.signal.numpy() for s in self._steps]
        ages = [s.since_full for s in self._steps]
        return {"signal": np.stack(signals, axis=1), "since_full": np.stack(ages, axis=1).astype(np.int16)}

    def _is_last(self, step: Step) -> bool:
        return step.step == len(self.timesteps) - 1


def cannot_write(folder: AnyPath, error: OSError) -> str:
    """The message for a folder that is full, read-only or missing."""
    forbidden = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return (
        f"{folder} cannot be written any more ({error.strerror or error}): what was complete is kept and can be read; "
        f"{'make it writable' if forbidden else 'make room'}, then run the same command to resume"
    )
