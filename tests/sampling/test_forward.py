"""The laws of one forward pass: a real exit equals the simulated one, and later blocks do not compute it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.diffusion.noise import sample_noise
from deediff.policies import Fixed, Never, Replay, Threshold
from deediff.policies.base import LayerState
from deediff.sampling.cpu import one_thread
from deediff.sampling.forward import predict
from deediff.sampling.request import Request
from tests.sampling.common import NUMBERS, Case, exits_by_definition


def test_the_fixture_exits_at_many_layers(case: Case) -> None:
    exits = exits_by_definition(case.u(case.x, 700), case.tau)
    assert len(exits.unique()) >= 4
    assert (exits == case.n).any()


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(0, 999), st.integers(0, 1000))
def test_a_real_exit_equals_the_simulated_one(case: Case, threshold: float, timestep: int, seed: int) -> None:
    x = sample_noise(seed, range(8), 0, case.model.image_shape)
    eps_all, u = case.model.all_exits(x, torch.full((8,), timestep))
    expected = exits_by_definition(u, threshold)
    real = predict(case.model, x, Request(Threshold(threshold), 0, timestep, NUMBERS[:8]))
    edge = (u - threshold).abs().amin(0) < 1e-5
    assert torch.equal(real.exit_layer[~edge], expected[~edge])
    chosen = eps_all[real.exit_layer, torch.arange(8)]
    torch.testing.assert_close(real.output, chosen, atol=1e-4, rtol=1e-4)
    # u is recorded up to and including the exit, and nothing after it.
    known = ~real.uncertainty.isnan()
    assert torch.equal(known.sum(1), (real.exit_layer + 1).clamp(max=case.n))
    torch.testing.assert_close(real.uncertainty[known], u.T[known], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_block_processes_exactly_the_samples_that_are_still_in(
    case: Case, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated exit would count 16 in every block."""
    rows, block = [0] * case.n, case.model.backbone.block

    def counted(i: int, state: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        rows[i] += len(state)
        return block(i, state, skip)

    monkeypatch.setattr(case.model.backbone, "block", counted)
    with one_thread():
        p = predict(case.model, case.x, Request(Threshold(case.tau), 0, 700, NUMBERS), threads)
    assert rows == [int((p.exit_layer > i).sum()) for i in range(case.n)]
    assert sum(rows) == int(p.exit_layer.sum())


def test_deviation_is_the_rms_distance_from_the_full_network(case: Case) -> None:
    p = predict(case.model, case.x, Request(Never(), 0, 700, NUMBERS, "full", deviations=True))
    eps_all, _ = case.model.all_exits(case.x, torch.full((16,), 700))
    expected = (eps_all[:-1] - eps_all[-1]).square().mean((2, 3, 4)).sqrt().T
    torch.testing.assert_close(p.deviation, expected, atol=1e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_exits_later_on_the_same_trajectory(case: Case, a: float, b: float) -> None:
    low, high = sorted((a, b))
    later = predict(case.model, case.x, Request(Threshold(low), 0, 300, NUMBERS)).exit_layer
    earlier = predict(case.model, case.x, Request(Threshold(high), 0, 300, NUMBERS)).exit_layer
    assert (earlier <= later).all()


def test_never_is_the_plain_network(case: Case) -> None:
    p = predict(case.model, case.x, Request(Never(), 0, 123, NUMBERS))
    torch.testing.assert_close(p.output, case.model(case.x, torch.full((16,), 123)))
    assert (p.exit_layer == case.n).all()
    assert p.uncertainty.isnan().all()


def test_fixed_leaves_at_its_layer(case: Case) -> None:
    eps_all, _ = case.model.all_exits(case.x, torch.full((16,), 123))
    for layer in range(case.n + 1):
        p = predict(case.model, case.x, Request(Fixed(layer), 0, 123, NUMBERS))
        torch.testing.assert_close(p.output, eps_all[layer], atol=1e-4, rtol=1e-4)
        assert (p.exit_layer == layer).all()


def test_replayed_exits_are_followed_sample_by_sample(case: Case) -> None:
    layers = torch.randint(0, case.n + 1, (16, 3))
    p = predict(case.model, case.x, Request(Replay(layers), 2, 123, NUMBERS))
    assert torch.equal(p.exit_layer, layers[:, 2])
    eps_all, _ = case.model.all_exits(case.x, torch.full((16,), 123))
    torch.testing.assert_close(p.output, eps_all[layers[:, 2], NUMBERS], atol=1e-4, rtol=1e-4)


def test_the_threshold_is_rounded_to_float32_once() -> None:
    u = torch.tensor([0.1], dtype=torch.float32)  # 0.10000000149 > 0.1 in float64
    assert Threshold(0.1).should_exit(_layer_state(u)).all()


def _layer_state(u: torch.Tensor) -> LayerState:
    return LayerState(0, 13, 0, 0, np.zeros(1, dtype=np.int64), u)
