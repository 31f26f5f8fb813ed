"""The job that recomputes a sample's path from noise to image from its seed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.jobs.queue import Job, Session
from deediff.datasets import to_uint8
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.models import EarlyExitModel
from deediff.recording.recompute import recompute
from deediff.traces.reader import Trace

MOST_FRAMES = 100  # kept of one film

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Film:
    """One sample at some of its steps."""

    steps: NDArray[np.int64]  # (F,)
    entering: Images  # (F,C,H,W) x_t that enters the step
    predicted: Images  # (F,C,H,W) x̂₀ at that step
    image: Images  # (C,H,W) at the end
    exit_layers: NDArray[np.int8]  # (S,) at every step
    uncertainty: NDArray[np.float32]  # (S,N), NaN where no UEM was queried


@dataclass(frozen=True)
class Recorded:
    """A trace, and the model from the checkpoint that it was sampled from."""

    trace: Trace
    model: EarlyExitModel
    schedule: Schedule


class FilmJob(Job):
    """The film of one sample of a trace, of the full network from the same noise, and of trace B's sample."""

    def __init__(self, session: Session, recorded: Recorded, number: int, other: Recorded | None = None):
        super().__init__(session, f"film of sample {number} of {recorded.trace.path.name}")
        self.trace, self.number = recorded.trace, number
        self.film: Film | None = None
        self.full: Film | None = None  # the film itself where the trace is the full network's
        self.other: Film | None = None  # of trace B, where there is one
        self._recorded, self._other = recorded, other
        self._done, self._total, self._counting = 0, 0, threading.Lock()  # steps of all films

    def work(self) -> None:
        wanted: list[tuple[Recorded, str | None]] = [(self._recorded, None)]
        if not self.trace.meta.is_full:
            wanted.append((self._recorded, "never"))
        if self._other is not None:
            wanted.append((self._other, None))
        self._total = sum(len(recorded.trace.timesteps) for recorded, _ in wanted)
        with ThreadPoolExecutor(len(wanted)) as threads:  # one image at a time is too little work to share
            found = list(threads.map(self._record, *zip(*wanted, strict=True)))
        films = [film for film in found if film is not None]
        if len(films) < len(wanted):
            return
        if self._other is not None:
            self.other = films.pop()
        self.full, self.film = films[-1], films[0]

    def _record(self, recorded: Recorded, policy: str | None) -> Film | None:
        """None when stopped."""
        trace, model = recorded.trace, recorded.model
        total = len(trace.timesteps)
        chosen = set(np.unique(np.linspace(0, total - 1, min(total, MOST_FRAMES)).round().astype(int)).tolist())
        seed, number = trace.meta.seed, self.number
        assert seed is not None, "weights_of refuses imported traces"
        x: Tensor = sample_noise(seed, [number], 0, model.image_shape)
        entering, predicted, exits, uncertainty = [], [], [], []
        for step in recompute(trace, number, model, recorded.schedule, policy, cancelled=self.stopped):
            if step.step in chosen:
                entering.append(to_uint8(x)[0].cpu())
                predicted.append(to_uint8(step.x0)[0].cpu())
            x = step.x
            exits.append(step.exit_layer[0])
            uncertainty.append(step.uncertainty[0])
            with self._counting:
                self._done += 1
                self.progress(self._done, self._total)
        if len(exits) < total:
            return None
        exit_layers = torch.stack(exits).numpy().astype(np.int8)
        image = to_uint8(x)[0].cpu().numpy()
        return Film(
            np.array(sorted(chosen)),
            torch.stack(entering).numpy(),
            torch.stack(predicted).numpy(),
            image,
            exit_layers,
            torch.stack(uncertainty).numpy(),
        )


def weights_of(trace: Trace, checkpoints: list[Path], what: str = "film") -> Path:
    """The weights that a trace was sampled from, among these. Raises UserError, which names `what` needs them."""
    wanted = trace.meta.checkpoint_sha256
    if wanted is None:
        raise UserError(f"No {what}: {trace.path.name} was imported without its model and seed.")
    for path in checkpoints:
        if read_json(path.with_suffix(".json")).get("sha256") == wanted:
            return path
    name = trace.meta.settings and trace.meta.settings.checkpoint
    raise UserError(
        f"No {what}: the weights that {trace.path.name} was sampled from ({name}) are not among the run's checkpoints. "
        f"Copy them, with their .json, into {trace.path.parents[1] / 'checkpoints'}."
    )


def film_gflops(trace: Trace, other: Trace | None = None) -> float:
    """GFLOPs of the films of one sample: of the trace, of the full network, and of trace B where there is one."""
    films = [(trace, 1 if trace.meta.is_full else 2), *([(other, 1)] if other is not None else [])]
    return sum(each.cost.full * len(each.timesteps) * count * _batch(each) for each, count in films)


def _batch(trace: Trace) -> int:
    return (trace.meta.batch_size or 1) if trace.meta.policy.name == "batch-mean" else 1
