"""The diffusion lens: what every exit would predict along one sample's trajectory (layer × timestep).

The trajectory stays that of its trace: a cell changes nothing, it shows x̂_0 of another exit at the same x_t. See
`deediff.analysis.trajectory.force_exit` for the trajectory after another exit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.analysis.trajectory import (
    DECODER,
    HEAD,
    NETWORK,
    ExitChoice,
    Trajectory,
    has_predictions,
    read_by_decoder,
)
from deediff.datasets import to_uint8
from deediff.devices import autocast
from deediff.diffusion.clipping import clip_image
from deediff.diffusion.prediction import to_epsilon
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.readouts import READOUTS, Readout, ReadoutState, make_readout
from deediff.readouts.base import LogSNR
from deediff.readouts.skip import Skip
from deediff.sampling.condition import make_condition
from deediff.sampling.cpu import one_thread
from deediff.sampling.sampler import Sampling

AT_ONCE = 16  # steps in one forward pass: bounds the memory
ORDERS = 3  # of a readout with an argument


@dataclass(frozen=True, eq=False)
class Lens:
    """R rows (readouts without blocks, then exit layers upward) × K steps."""

    rows: tuple[ExitChoice, ...]  # (R,)
    steps: tuple[int, ...]  # (K,) of the trajectory
    images: NDArray[np.uint8]  # (R,K,C,H,W) x̂_0, clipped as by the sampling; 0 where there is no prediction
    known: NDArray[np.bool_]  # (R,K) whether there is one
    error: NDArray[np.float32]  # (R,K) RMS of ε against the full network at the same x_t; NaN where there is none
    uncertainty: NDArray[np.float32]  # (R,K) u; NaN where there is no UEM
    full: NDArray[np.uint8]  # (K,C,H,W) x̂_0 of the full network at the same x_t
    taken: tuple[ExitChoice, ...]  # (K,) what the sampling did

    def row_of(self, choice: ExitChoice) -> int | None:
        """The row of a choice; that of its layer where the rows are read by the decoder. None where it is not shown."""
        same = [choice, ExitChoice(choice.layer, DECODER)] if choice.readout == HEAD else [choice]
        found = [r for r, row in enumerate(self.rows) if row in same or row.readout == choice.readout == NETWORK]
        return found[0] if found else None


def available_readouts(model: EarlyExitModel) -> list[str]:
    """Names of the readouts without blocks that can be used with this model, as in a plan."""
    found = []
    for name, entry in READOUTS.items():
        for spec in [name] if ":" not in entry.usage else [f"{name}:{order}" for order in range(ORDERS)]:
            try:
                readout = make_readout(spec)
                if isinstance(readout, Readout) and not isinstance(readout, Skip) and readout.prepared(model):
                    found.append(spec)
            except UserError:
                continue
    return found


def diffusion_lens(
    trajectory: Trajectory,
    steps: Sequence[int] | None = None,  # of the trajectory, ascending; None: all
    layers: Sequence[int] | None = None,  # exit layers; None: 0 … N
    readouts: Sequence[str] = (),  # without blocks, e.g. gaussian: one row each
    exits: str = HEAD,  # how exit layers are read: "head" or "decoder"
    cancelled: Callable[[], bool] | None = None,
) -> Lens | None:
    """Every cell is independent of the others, so fewer steps or layers change none; None when cancelled.

    Where a plan or the policy takes steps from another network, a row of its own shows them. Raises UserError for
    steps or layers that do not exist, and for readouts that cannot be used with the model.
    """
    job = trajectory.job
    wanted = range(job.model.num_blocks + 1) if layers is None else sorted(set(layers))
    columns = range(len(job.planned)) if steps is None else list(steps)
    _check(job, columns, wanted, exits)
    if job.skips:
        raise UserError("samples of this trace skip timesteps, where they have no x: a lens needs one that visits all")
    prepared = {spec: _prepared(spec, job.model) for spec in readouts}
    rows = [ExitChoice(0, spec) for spec in prepared]
    if any(step.network is not None for step in job.planned):
        rows.append(ExitChoice(0, NETWORK))
    rows += [ExitChoice(layer, exits) for layer in wanted]
    cells: list[_Cells] = []
    for start in range(0, len(columns), AT_ONCE):
        if cancelled is not None and cancelled():
            return None
        here = columns[start : start + AT_ONCE]
        with one_thread():  # other threads may be sampling
            outputs, u = _all_exits(trajectory, here, exits)
            cells += [_column(trajectory, s, rows, prepared, outputs[:, k], u[:, k]) for k, s in enumerate(here)]
    images, known, error, u_of_rows = (np.stack(found, axis=1) for found in zip(*(c[:4] for c in cells), strict=True))
    full = np.stack([c.full for c in cells])
    taken = tuple(trajectory.choice(s) for s in columns)
    return Lens(tuple(rows), tuple(columns), images, known, error, u_of_rows, full, taken)


class _Cells(NamedTuple):
    """One column."""

    images: NDArray[np.uint8]  # (R,C,H,W)
    known: NDArray[np.bool_]  # (R,)
    error: NDArray[np.float32]  # (R,)
    uncertainty: NDArray[np.float32]  # (R,)
    full: NDArray[np.uint8]  # (C,H,W)


@torch.inference_mode()
def _all_exits(trajectory: Trajectory, steps: Sequence[int], exits: str) -> tuple[Tensor, Tensor]:
    """Outputs of every exit, (N+1,K,C,H,W), NaN where it has no trained head; and u (N+1,K), NaN where no UEM."""
    job = trajectory.job
    model, settings = job.model, job.settings
    reader = read_by_decoder(model) if exits == DECODER else model
    number = trajectory.number
    condition = make_condition(model, range(number, number + 1), settings.classes, settings.guidance)
    copies = 1 if condition is None else len(condition.rows())  # rows of the network per cell: 2 under guidance
    labels = None if condition is None else condition.rows().repeat(len(steps))
    x = trajectory.entering[list(steps)]  # (K,C,H,W)
    t = torch.tensor([job.solver.timesteps[s] for s in steps], device=x.device).repeat_interleave(copies)
    outputs, uncertainties = [], []
    with autocast(x.device, settings.dtype):
        for layer, state in enumerate(model.backbone.states(x.repeat_interleave(copies, dim=0), t, labels)):
            output, u = torch.full_like(x, torch.nan), torch.full((len(x),), torch.nan)
            if exits == DECODER or model.has_exit(layer):
                output = reader.read_out(layer, state, t)
                output = output.float() if condition is None else condition.combine(output)
            if model.uem is not None and layer in model.uem.layers:
                u = model.uncertainty(layer, state, t).view(-1, copies).amax(dim=1).float().cpu()
            outputs.append(output)
            uncertainties.append(u)
    return torch.stack(outputs), torch.stack(uncertainties)


@torch.inference_mode()
def _column(
    trajectory: Trajectory,
    s: int,  # the step
    rows: Sequence[ExitChoice],
    readouts: Mapping[str, Readout],
    outputs: Tensor,  # (N+1,C,H,W) of the exits
    u: Tensor,  # (N+1,)
) -> _Cells:
    job = trajectory.job
    x, a = trajectory.entering[s : s + 1], job.solver.alpha_bar(s)
    exits = to_epsilon(job.model.prediction, outputs, x, a)  # (N+1,C,H,W)
    eps = torch.full((len(rows), *x.shape[1:]), torch.nan, device=x.device)
    uncertainty = np.full(len(rows), np.nan, dtype=np.float32)
    for r, row in enumerate(rows):
        if row.readout in (HEAD, DECODER):
            eps[r], uncertainty[r] = exits[row.layer], float(u[row.layer])
        elif row.readout == NETWORK:
            if job.planned[s].network is not None:
                eps[r] = job.solver.to_epsilon(s, x, trajectory.x0[s : s + 1])[0]
        elif has_predictions(job, s, readouts[row.readout].needs_earlier):
            eps[r] = readouts[row.readout].epsilon(_state(trajectory, s))[0]
    images = to_uint8(_clean(job, s, x, eps).nan_to_num(-1)).cpu().numpy()
    full = to_uint8(_clean(job, s, x, exits[-1:]))[0].cpu().numpy()
    error = (eps - exits[-1]).square().mean(dim=(1, 2, 3)).sqrt().float().cpu().numpy()
    return _Cells(images, ~np.isnan(error), error, uncertainty, full)


def _clean(job: Sampling, s: int, x: Tensor, eps: Tensor) -> Tensor:
    """x̂_0 as the sampling clips it: (1,C,H,W), (R,C,H,W) → (R,C,H,W)."""
    x0 = job.solver.predict_x0(s, x, eps)
    return clip_image(x0, job.settings.dynamic_threshold) if job.settings.clip_x0 else x0


def _state(trajectory: Trajectory, s: int) -> ReadoutState:
    """The state that a readout reads at a step, with the predictions that the sampling made before it."""
    solver, earlier = trajectory.job.solver, list[tuple[LogSNR, Tensor]]()
    for before in range(s):
        readout = trajectory.job.planned[before].readout
        if readout is None or readout.predicts:
            here = slice(before, before + 1)
            eps = solver.to_epsilon(before, trajectory.entering[here], trajectory.x0[here])
            earlier.append((solver.log_snr(before), eps))
    x = trajectory.entering[s : s + 1]
    return ReadoutState(x, solver.alpha_bar(s), solver.alpha_bar(s + 1), solver.log_snr(s), earlier)


def _prepared(spec: str, model: EarlyExitModel) -> Readout:
    """A readout without blocks. Raises UserError."""
    readout = make_readout(spec)
    if not isinstance(readout, Readout) or isinstance(readout, Skip):
        raise UserError(f"{spec} is no readout without blocks: choose it with exits")
    return readout.prepared(model)


def _check(job: Sampling, steps: Sequence[int], layers: Sequence[int], exits: str) -> None:
    if exits not in (HEAD, DECODER):
        raise UserError(f"exits are read by {exits!r}, expected {HEAD!r} or {DECODER!r}")
    for what, values, last in (("step", steps, len(job.planned) - 1), ("exit layer", layers, job.model.num_blocks)):
        if not values or not all(0 <= value <= last for value in values):
            raise UserError(f"the lens was asked for {what}s {list(values)}, expected some of 0 … {last}")
