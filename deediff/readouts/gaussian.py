"""The closed-form denoiser of a Gaussian with the data's mean and covariance (`deediff.calibration.gaussian`)."""

from __future__ import annotations

import copy
from typing import Self

from torch import Tensor

from deediff.calibration.gaussian import ImageGaussian, gaussian_file
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.readouts.base import Readout, ReadoutState


class GaussianReadout(Readout):
    """E[ε | x_t] = (x_t − √ᾱ E[x_0 | x_t]) / √(1−ᾱ); the solver takes the step."""

    spec = "gaussian"
    gaussian: ImageGaussian | None = None

    def prepared(self, model: EarlyExitModel) -> Self:
        if model.origin is None:
            raise UserError(f"readout {self.spec} reads a file beside the checkpoint, and this model has none")
        file = gaussian_file(model.origin[0])
        if not file.exists():
            raise UserError(
                f"readout {self.spec} needs the mean and covariance of the images in {file}, which is missing: "
                "'deediff calibrate CHECKPOINT' writes it"
            )
        gaussian = ImageGaussian.load(file)
        if tuple(gaussian.mean.shape) != model.image_shape:
            raise UserError(
                f"{file} is of images of shape {tuple(gaussian.mean.shape)}, this model's are {model.image_shape}: "
                "run 'deediff calibrate' again"
            )
        ready = copy.copy(self)
        ready.gaussian = gaussian.to(next(model.parameters()).device)
        ready.gflops, ready.sha256 = gaussian.gflops, gaussian.sha256
        return ready

    def epsilon(self, state: ReadoutState) -> Tensor:
        assert self.gaussian is not None, "call prepared() first"
        a = state.alpha_bar
        return (state.x - a**0.5 * self.gaussian.predict_x0(state.x, a)) / (1 - a) ** 0.5


class Teleport(GaussianReadout):
    """The Gaussian's probability-flow ODE, solved exactly up to the next timestep (Wang & Vastola 2024)."""

    spec = "teleport"

    def prepared(self, model: EarlyExitModel) -> Self:
        ready = super().prepared(model)
        ready.gflops *= 2  # the prediction, which later steps may reuse, and the step
        return ready

    def destination(self, state: ReadoutState) -> Tensor:
        assert self.gaussian is not None, "call prepared() first"
        return self.gaussian.teleport(state.x, state.alpha_bar, state.next_alpha_bar)
