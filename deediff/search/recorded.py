"""A recording of the full network, from which a plan's error is estimated without sampling it (open loop)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deediff.diffusion.clipping import clip_image
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import to_epsilon
from deediff.models import EarlyExitModel
from deediff.plans import Plan
from deediff.policies import Never
from deediff.policies.fixed import Fixed
from deediff.readouts import ReadoutState, StateReadout
from deediff.readouts.base import LogSNR
from deediff.readouts.extrapolation import extrapolation_weights
from deediff.sampling.condition import make_condition
from deediff.sampling.planned import PlannedStep, plan_steps
from deediff.sampling.sampler import prepare_sampling
from deediff.search.judge import Judge
from deediff.search.start import uniform_plan
from deediff.settings import SamplingSettings

STEPS, SAMPLES = 50, 16
STATES = 6  # recorded x_t whose states are held at once


class Recording:
    """x_t and x̂_0 of the full network at STEPS uniform timesteps; other predictions are computed once, when needed."""

    def __init__(self, judge: Judge, seed: int):
        self.model, self.schedule = judge.model, judge.schedule
        samples, steps = range(SAMPLES), min(STEPS, judge.schedule.num_timesteps)
        plan = uniform_plan(self.model.num_blocks, self.schedule, steps)
        job = prepare_sampling(self.model, SamplingSettings(plan=plan, seed=seed), self.schedule)
        self.timesteps, self.x, self.x0 = np.array(plan.timesteps), list[Tensor](), list[Tensor]()
        x = sample_noise(seed, samples, 0, self.model.image_shape).to(judge.device)
        for step in job.steps([samples], judge.cancelled):
            self.x.append(x)
            self.x0.append(step.x0)
            x = step.x
        self.alpha_bar = [job.solver.alpha_bar(s) for s in range(steps + 1)]
        condition = make_condition(self.model, samples, None)
        self._labels = None if condition is None else condition.labels
        self._known_states: dict[int, list[Tensor]] = {}
        self._exits: dict[tuple[str, int, int], Tensor] = {}  # network, index, exit layer: ε

    def deviation(self, plan: Plan) -> float:
        """RMS over timesteps and samples of (x̂_0 that the plan uses − x̂_0 recorded) · √(ᾱ/(1−ᾱ)): an error of ε.

        At each step the plan predicts from the recorded x_t of the nearest timestep. Until the next step it uses
        that x̂_0, extrapolated as DPM-Solver++(2M) does.
        """
        planned = plan_steps(plan, plan.timesteps, self.model, self.schedule, Never())
        places = [int(np.abs(self.timesteps - t).argmin()) for t in plan.timesteps]
        evaluated = list[int]()  # places at which the full network ran
        earlier, previous, total = list[tuple[LogSNR, Tensor]](), list[tuple[float, Tensor]](), 0.0
        for s, (step, place) in enumerate(zip(planned, places, strict=True)):
            a, x = self.alpha_bar[place], self.x[place]
            snr = 0.5 * math.log(a / (1 - a))
            with torch.inference_mode():
                state = ReadoutState(x, a, self.alpha_bar[place + 1], snr, earlier)
                if isinstance(step.exits, StateReadout):
                    eps = self._remembered(step.exits, step.policy.possible_exits(self.model), place, evaluated)
                else:
                    eps = self._epsilon(step, place, state)
            x0 = clip_image((x - (1 - a) ** 0.5 * eps) / a**0.5)
            if step.network is not None:
                evaluated.clear()
            elif step.readout is None and isinstance(step.policy, Never):
                evaluated.append(place)
            if step.exits is None and (step.readout is None or step.readout.predicts):
                earlier = [*earlier[-2:], (snr, eps)]
            last = s == len(places) - 1
            end = len(self.timesteps) if last else places[s + 1]
            used = x0
            if previous and not last and snr > previous[-1][0]:
                b = self.alpha_bar[min(end, len(self.timesteps) - 1)]
                ahead = 0.5 * math.log(b / (1 - b)) - snr
                used = x0 + (x0 - previous[-1][1]) * ahead / (2 * (snr - previous[-1][0]))
            previous.append((snr, x0))
            for r in range(place if s else 0, end):
                weight = self.alpha_bar[r] / (1 - self.alpha_bar[r])
                total += weight * float((used - self.x0[r]).square().mean())
        return (total / len(self.timesteps)) ** 0.5

    def _epsilon(self, step: PlannedStep, place: int, state: ReadoutState) -> Tensor:
        """ε of one step of a plan at a recorded state."""
        if step.readout is not None:
            return step.readout.epsilon(state)
        network = step.network or self.model
        layer = step.policy.layer if isinstance(step.policy, Fixed) else network.num_blocks
        if network is self.model and layer == network.num_blocks:
            a = state.alpha_bar
            return (state.x - a**0.5 * self.x0[place]) / (1 - a) ** 0.5
        key = (step.source, place, layer)
        if key not in self._exits:
            for i, output in self._outputs(network, place, state.x):
                self._exits[step.source, place, i] = to_epsilon(network.prediction, output, state.x, state.alpha_bar)
        return self._exits[key]

    def _remembered(self, readout: StateReadout, exits: set[int], place: int, evaluated: list[int]) -> Tensor:
        """ε of an exit at a recorded x_t, read out from the memory of evaluations at other recorded ones."""
        net, a, (layer,) = self.model.backbone, self.alpha_bar[place], exits
        blocks, here, used = net.num_blocks, self._states(place), evaluated[-readout.order - 1 :]
        layers, key = readout.kept_layers(exits, blocks), readout.stored_key(layer, blocks)
        snrs = [0.5 * math.log(self.alpha_bar[p] / (1 - self.alpha_bar[p])) for p in (*used, place)]
        weights = extrapolation_weights(np.array(snrs[:-1])[:, None], snrs[-1], readout.order)[:, 0]
        kept = [readout.kept(dict(enumerate(self._states(p))), layers, blocks)[key] for p in used]
        state = readout.resumed(here[layer], [float(w) * value for w, value in zip(weights, kept, strict=True)])
        for i in range(readout.resume_layer(blocks), blocks):
            source = net.skip_source(i)
            state = net.block(i, state, None if source is None else here[source + 1])
        return to_epsilon(self.model.prediction, net.decode(state), self.x[place], a)

    def _states(self, place: int) -> list[Tensor]:
        """The states of all layers, 0 … N, at a recorded x_t."""
        if place not in self._known_states:
            if len(self._known_states) >= STATES:
                self._known_states.pop(next(iter(self._known_states)))
            x = self.x[place]
            t = torch.full((len(x),), int(self.timesteps[place]), device=x.device)
            self._known_states[place] = list(self.model.backbone.states(x, t, self._labels))
        return self._known_states[place]

    def _outputs(self, network: EarlyExitModel, place: int, x: Tensor) -> Any:
        """Layer and prediction of every exit of a network."""
        t = torch.full((len(x),), int(self.timesteps[place]), device=x.device)
        for i, state in enumerate(network.backbone.states(x, t, self._labels)):
            if network.has_exit(i):
                yield i, network.read_out(i, state, t)
