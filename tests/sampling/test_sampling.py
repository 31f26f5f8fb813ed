"""The laws of the sampler."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.datasets import to_uint8
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.policies import Fixed, Never, Replay, Threshold, make_policy
from deediff.policies.base import LayerState
from deediff.sampling import Step, sample
from deediff.sampling.cpu import one_thread
from deediff.sampling.forward import Condition, Request, predict
from deediff.sampling.sampler import prepare_sampling
from deediff.settings import SamplingSettings
from tests.conftest import TINY, make_model

MODEL = make_model()


def u_of_all_layers(x: torch.Tensor, timestep: int) -> torch.Tensor:
    """(N, B)."""
    return MODEL.all_exits(x, torch.full((len(x),), timestep))[1]


def a_threshold_that_splits(x: torch.Tensor, timestep: int) -> float:
    """So that within one batch some samples leave early, some late, some not at all."""
    return float(u_of_all_layers(x, timestep).amin(dim=0).median()) + 0.01


def exits_by_definition(u: torch.Tensor, threshold: float) -> torch.Tensor:
    """First layer with u ≤ τ, else N: (N, B) → (B,)."""
    below = u <= np.float32(threshold).item()
    return torch.where(below.any(0), below.int().argmax(0), len(u))


X = sample_noise(3, range(16), 0, MODEL.image_shape)
TAU = a_threshold_that_splits(X, 700)
NUMBERS = np.arange(16)


def all_steps(**kwargs: object) -> list[Step]:
    return list(sample(MODEL, **kwargs))  # type: ignore[arg-type]


def test_the_fixture_exits_at_many_layers() -> None:
    exits = exits_by_definition(u_of_all_layers(X, 700), TAU)
    assert len(exits.unique()) >= 4
    assert (exits == 13).any()


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.integers(0, 999), st.integers(0, 1000))
def test_a_real_exit_equals_the_simulated_one(threshold: float, timestep: int, seed: int) -> None:
    x = sample_noise(seed, range(8), 0, MODEL.image_shape)
    eps_all, u = MODEL.all_exits(x, torch.full((8,), timestep))
    expected = exits_by_definition(u, threshold)
    real = predict(MODEL, x, Request(Threshold(threshold), 0, timestep, NUMBERS[:8]))
    edge = (u - threshold).abs().amin(0) < 1e-5
    assert torch.equal(real.exit_layer[~edge], expected[~edge])
    chosen = eps_all[real.exit_layer, torch.arange(8)]
    torch.testing.assert_close(real.output, chosen, atol=1e-4, rtol=1e-4)
    # u is recorded up to and including the exit, and nothing after it.
    known = ~real.uncertainty.isnan()
    assert torch.equal(known.sum(1), (real.exit_layer + 1).clamp(max=13))
    torch.testing.assert_close(real.uncertainty[known], u.T[known], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_block_processes_exactly_the_samples_that_are_still_in(threads: int) -> None:
    """A simulated exit would count 16 in every block."""
    rows = [0] * 13
    net = MODEL.backbone
    blocks = [*net.in_blocks, net.mid_block, *net.out_blocks]

    def count(i: int):
        return lambda _, args: rows.__setitem__(i, rows[i] + len(args[0]))

    hooks = [block.register_forward_pre_hook(count(i)) for i, block in enumerate(blocks)]
    with one_thread():
        p = predict(MODEL, X, Request(Threshold(TAU), 0, 700, NUMBERS), threads)
    for hook in hooks:
        hook.remove()
    assert rows == [int((p.exit_layer > i).sum()) for i in range(13)]
    assert sum(rows) == int(p.exit_layer.sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(2, 20), st.sampled_from(["exit", "full", "deviations"]), st.integers(0, 1000))
def test_the_number_of_threads_changes_nothing(batch: int, threads: int, what: str, seed: int) -> None:
    """However many lanes share the samples out, and whichever of them is the fastest."""
    rng = np.random.default_rng(seed)
    x, layers = (
        sample_noise(seed, range(batch), 0, MODEL.image_shape),
        torch.from_numpy(rng.integers(0, 14, (batch, 1))),
    )
    record: Any = "exit" if what == "exit" else "full"
    with one_thread():
        alone, shared = (
            predict(MODEL, x, Request(Replay(layers), 0, 700, np.arange(batch), record, what == "deviations"), n)
            for n in (1, threads)
        )
    assert torch.equal(shared.exit_layer, layers[:, 0])
    torch.testing.assert_close(shared.output, alone.output, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shared.uncertainty, alone.uncertainty, atol=1e-5, rtol=1e-4, equal_nan=True)
    torch.testing.assert_close(shared.deviation, alone.deviation, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [None, 2.5])
def test_chunks_that_join_before_the_first_block_keep_their_labels(
    guidance: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seven samples in chunks of at most three, the last one joins the first two."""
    copies = 1 if guidance is None else 2
    monkeypatch.setattr("deediff.sampling.cpu.CPU_CACHE", 3 * copies * CONDITIONAL.backbone.state_size)
    x, condition = X[:7], Condition(torch.arange(7) % 3, guidance, null_label=3)
    with one_thread():
        alone, shared = (
            predict(CONDITIONAL, x, Request(Never(), 0, 700, NUMBERS[:7], condition=condition), n) for n in (1, 2)
        )
    torch.testing.assert_close(shared.output, alone.output, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samplings", [2, 3])
def test_samplings_that_overlap_share_the_lanes(samplings: int) -> None:
    """Together they have more lanes than there are threads: some come only when others are done."""
    torch.set_num_threads(8)
    try:
        done = []

        def work(seed: int) -> None:
            done.append(
                sum(
                    1
                    for _ in sample(
                        MODEL, num_samples=32, policy=f"threshold:{TAU}", steps=20, seed=seed, batch_size=32
                    )
                )
            )

        threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(samplings)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert done == [20] * samplings
    finally:
        torch.set_num_threads(1)


def test_sampling_leaves_the_number_of_threads_as_it_was() -> None:
    torch.set_num_threads(3)
    try:
        for _ in sample(MODEL, num_samples=5, steps=2):
            assert torch.get_num_threads() == 3
        with pytest.raises(RuntimeError, match="in a lane"):
            predict(MODEL, X, Request(_Failing(), 0, 700, NUMBERS))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_so_do_samplings_that_overlap() -> None:
    """The second begins in the first, and ends after it: what it found on its way in was not the number to restore."""
    first, second = one_thread(), one_thread()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as another:
            assert first.__enter__() == 3
            assert another.submit(second.__enter__).result() == 3
            first.__exit__(None, None, None)
            another.submit(second.__exit__, None, None, None).result()
            assert [torch.get_num_threads(), another.submit(torch.get_num_threads).result()] == [3, 3]
    finally:
        torch.set_num_threads(1)


class _Failing(Never):
    def should_exit(self, state: LayerState) -> bool:
        if state.layer == 5 and 0 in state.samples:
            raise RuntimeError("in a lane")
        return False


def test_recording_everything_changes_nothing() -> None:
    exits = all_steps(num_samples=6, policy=f"threshold:{TAU}", steps=5, batch_size=6)
    full = all_steps(num_samples=6, policy=f"threshold:{TAU}", steps=5, batch_size=6, record="full", deviations=True)
    for a, b in zip(exits, full, strict=True):
        assert torch.equal(a.exit_layer, b.exit_layer)
        torch.testing.assert_close(a.x, b.x, atol=1e-4, rtol=1e-4)
        assert not b.uncertainty.isnan().any()
        assert b.deviation is not None
        assert (b.deviation > 0).all()


def test_deviation_is_the_rms_distance_from_the_full_network() -> None:
    p = predict(MODEL, X, Request(Never(), 0, 700, NUMBERS, "full", deviations=True))
    eps_all, _ = MODEL.all_exits(X, torch.full((16,), 700))
    expected = (eps_all[:-1] - eps_all[-1]).square().mean((2, 3, 4)).sqrt().T
    torch.testing.assert_close(p.deviation, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "dpm-solver++"])
def test_a_batch_of_64_equals_64_of_one(solver: str) -> None:
    """Decisions per sample, noise per sample: bit-equal noise, equal decisions, pixels within ±2."""
    settings = {"num_samples": 64, "policy": f"threshold:{TAU}", "solver": solver, "steps": 6, "seed": 5}
    together = all_steps(batch_size=64, **settings)
    alone = all_steps(batch_size=1, **settings)
    exits_alone = torch.tensor([int(s.exit_layer) for s in alone]).view(64, 6)
    exits_together = torch.stack([s.exit_layer for s in together], 1)
    u = torch.stack([s.uncertainty for s in together], 1)  # (64, 6, 13)
    edge = ((u - TAU).abs() < 1e-5).any(-1).any(-1)
    assert edge.sum() <= 2
    assert torch.equal(exits_together[~edge], exits_alone[~edge])
    assert len(exits_together.unique()) >= 4
    images = to_uint8(together[-1].x).int()
    images_alone = torch.cat([to_uint8(s.x).int() for s in alone if s.step == 5])
    assert ((images - images_alone).abs().amax((1, 2, 3))[~edge] <= 2).all()


def test_noise_depends_on_seed_sample_and_draw_only() -> None:
    shape = (3, 4, 4)
    together = sample_noise(7, range(10, 20), 3, shape)
    for i, k in enumerate(range(10, 20)):
        assert torch.equal(together[i], sample_noise(7, [k], 3, shape)[0])
    distinct = [sample_noise(s, [k], d, shape) for s in (0, 1) for k in (0, 1) for d in (0, 1)]
    for i, a in enumerate(distinct):
        assert not any(torch.equal(a, b) for b in distinct[:i])
    many = sample_noise(0, range(2000), 0, shape)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_images_do_not_depend_on_the_batch_size_or_the_order_of_work() -> None:
    whole = torch.cat([s.x for s in all_steps(num_samples=7, batch_size=3, steps=4, solver="ddpm") if s.step == 3])
    backwards = [range(5, 7), range(0, 5)]
    parts = {s.samples: s.x for s in all_steps(num_samples=7, parts=backwards, steps=4, solver="ddpm") if s.step == 3}
    torch.testing.assert_close(whole, torch.cat([parts[range(0, 5)], parts[range(5, 7)]]), atol=1e-4, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_exits_later_on_the_same_trajectory(a: float, b: float) -> None:
    low, high = sorted((a, b))
    later = predict(MODEL, X, Request(Threshold(low), 0, 300, NUMBERS)).exit_layer
    earlier = predict(MODEL, X, Request(Threshold(high), 0, 300, NUMBERS)).exit_layer
    assert (earlier <= later).all()


def test_never_is_the_plain_network() -> None:
    p = predict(MODEL, X, Request(Never(), 0, 123, NUMBERS))
    torch.testing.assert_close(p.output, MODEL(X, torch.full((16,), 123)))
    assert (p.exit_layer == 13).all()
    assert p.uncertainty.isnan().all()


@pytest.mark.parametrize("layer", [0, 1, 6, 7, 12, 13])
def test_fixed_leaves_at_its_layer(layer: int) -> None:
    p = predict(MODEL, X, Request(Fixed(layer), 0, 123, NUMBERS))
    eps_all, _ = MODEL.all_exits(X, torch.full((16,), 123))
    torch.testing.assert_close(p.output, eps_all[layer], atol=1e-4, rtol=1e-4)
    assert (p.exit_layer == layer).all()


def test_replayed_exits_are_followed_sample_by_sample() -> None:
    layers = torch.randint(0, 14, (16, 3))
    p = predict(MODEL, X, Request(Replay(layers), 2, 123, NUMBERS))
    assert torch.equal(p.exit_layer, layers[:, 2])
    eps_all, _ = MODEL.all_exits(X, torch.full((16,), 123))
    torch.testing.assert_close(p.output, eps_all[layers[:, 2], NUMBERS], atol=1e-4, rtol=1e-4)


def test_the_threshold_is_rounded_to_float32_once() -> None:
    u = torch.tensor([0.1], dtype=torch.float32)  # 0.10000000149 > 0.1 in float64
    assert Threshold(0.1).should_exit(_layer_state(u)).all()


def _layer_state(u: torch.Tensor) -> LayerState:
    return LayerState(0, 13, 0, 0, np.zeros(1, dtype=np.int64), u)


def test_a_consumer_that_stops_asking_stops_the_work() -> None:
    stream = sample(MODEL, num_samples=4, steps=10)
    assert next(iter(stream)).step == 0
    stream.close()  # type: ignore[attr-defined]
    assert list(stream) == []


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"policy": "thresh:0.1"}, "unknown policy 'thresh:0.1', expected one of: never"),
        ({"policy": "threshold:1.5"}, r"threshold is 1.5, expected a number in \[0, 1\]"),
        ({"policy": "threshold:-0.1"}, "threshold is -0.1"),
        ({"policy": "threshold:nan"}, "threshold is nan"),
        ({"policy": "threshold:low"}, "'low' is not a number"),
        ({"policy": "fixed:14"}, "policy fixed:14: this model has only 13 blocks"),
        ({"num_samples": 0}, "the number of samples is 0, expected 1 or more"),
        ({"record": "all"}, "record is 'all'"),
        ({"solver": "euler"}, "unknown solver 'euler'"),
        ({"steps": 1001}, "steps is 1001"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_bad_input_is_refused_before_any_work(kwargs: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(MODEL, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(("policy", "missing"), [("threshold:0.1", "UEMs"), ("fixed:3", "output heads")])
def test_a_model_without_exits_can_only_run_in_full(policy: str, missing: str) -> None:
    plain = EarlyExitModel(UViT(TINY))
    with pytest.raises(UserError, match=f"needs {missing}, but this model has none"):
        sample(plain, policy=policy)
    make_policy("never").check(plain)
    make_policy("fixed:13").check(plain)


def test_a_network_that_breaks_down_is_named() -> None:
    broken = make_model()
    with torch.no_grad():
        broken.backbone.decoder_pred.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite for sample 5 at timestep 999"):
        list(sample(broken, num_samples=2, parts=[range(5, 7)], steps=3))


def test_a_stream_can_be_cancelled_and_tells_its_progress() -> None:
    seen: list[Step] = []
    for step in sample(MODEL, num_samples=5, steps=4, batch_size=2, cancelled=lambda: len(seen) == 6):
        seen.append(step)
    assert [(s.done, s.total) for s in seen] == [(k, 12) for k in range(1, 7)]


CONDITIONAL = make_model(config=replace(TINY, num_classes=4))
CONDITIONAL.null_label = True
CLASSES = {"classes": [2, 0], "num_samples": 6, "policy": "threshold:0.5", "steps": 4, "seed": 2}


def conditional_steps(**kwargs: object) -> list[Step]:
    return list(sample(CONDITIONAL, **{**CLASSES, **kwargs}))  # type: ignore[arg-type]


def test_the_class_of_a_sample_depends_on_its_number_only() -> None:
    together, alone = conditional_steps(batch_size=6), conditional_steps(batch_size=1)
    for k in range(6):
        torch.testing.assert_close(together[-1].x[k], alone[4 * k + 3].x[0], atol=1e-3, rtol=1e-3)
    a, b = (conditional_steps(policy="never", classes=classes)[-1].x for classes in ([2, 0], [2, 1]))
    same = torch.isclose(a, b, atol=1e-3).flatten(1).all(1)
    assert same.tolist() == [True, False] * 3


@pytest.mark.parametrize("record", ["exit", "full"])
def test_guidance_combines_both_halves_and_they_leave_together(record: str) -> None:
    """ε = ε(∅) + w (ε(y) − ε(∅)), and a pair leaves once both are certain."""
    x, labels = sample_noise(3, range(8), 0, CONDITIONAL.image_shape), torch.tensor([2, 0] * 4)
    t = torch.full((8,), 700)
    eps_y, u_y = CONDITIONAL.all_exits(x, t, labels)
    eps_0, u_0 = CONDITIONAL.all_exits(x, t, torch.full((8,), 3))
    u = torch.maximum(u_y, u_0)
    tau = float(u.amin(0).median()) + 0.01
    condition = Condition(labels, guidance=2.5, null_label=3)
    p = predict(CONDITIONAL, x, Request(Threshold(tau), 0, 700, np.arange(8), record, condition=condition))  # type: ignore[arg-type]
    expected = exits_by_definition(u, tau)
    assert len(expected.unique()) > 2
    assert torch.equal(p.exit_layer, expected)
    combined = eps_0 + 2.5 * (eps_y - eps_0)
    torch.testing.assert_close(p.output, combined[expected, torch.arange(8)], atol=1e-3, rtol=1e-3)
    known = ~p.uncertainty.isnan()
    torch.testing.assert_close(p.uncertainty[known], u.T[known], atol=1e-5, rtol=1e-4)
    assert known.all() == (record == "full")


def test_a_guidance_of_one_is_no_guidance_and_costs_twice() -> None:
    plain = conditional_steps(policy="never")[-1].x
    torch.testing.assert_close(conditional_steps(policy="never", guidance=1.0)[-1].x, plain, atol=1e-3, rtol=1e-3)
    settings = [SamplingSettings(steps=2, guidance=guidance) for guidance in (None, 1.0)]
    cost, guided = (prepare_sampling(CONDITIONAL, each).cost() for each in settings)
    assert guided.full == pytest.approx(2 * cost.full)


@pytest.mark.parametrize(
    ("model", "kwargs", "sentence"),
    [
        (CONDITIONAL, {"classes": [4]}, r"the classes are \[4\], expected some of 0 … 3"),
        (CONDITIONAL, {"guidance": -1.0}, "the guidance scale is -1.0"),
        (MODEL, {"classes": [0]}, "this model is unconditional"),
        (MODEL, {"guidance": 2.0}, "this model is unconditional"),
        (make_model(config=replace(TINY, num_classes=4)), {"guidance": 2.0}, "a label that means no class"),
    ],
)
def test_classes_that_do_not_fit_the_model_are_refused(
    model: EarlyExitModel, kwargs: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(model, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_a_network_may_predict_x0_or_v_instead(kind: str) -> None:
    """The same knowledge in another parametrisation gives the same images: here, that x_0 is 0.3 everywhere."""
    schedule = Schedule()

    def knowing(kind: str) -> EarlyExitModel:
        model = make_model()
        model.prediction = kind

        def embed(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return torch.stack([x, t[:, None, None, None].float().expand_as(x)], dim=1)

        def decode(state: torch.Tensor) -> torch.Tensor:
            x, a = state[:, 0], schedule.alphas_bar[int(state[0, 1, 0, 0, 0])].float()
            return training_target(kind, torch.full_like(x, 0.3), (x - a.sqrt() * 0.3) / (1 - a).sqrt(), a)

        net: Any = model.backbone
        net.embed, net.block, net.decode = embed, lambda i, state, skip=None: state, decode
        return model

    images = [[s.x for s in sample(knowing(k), num_samples=3, solver="ddpm", steps=20)] for k in ("epsilon", kind)]
    for a, b in zip(*images, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(images[1][-1], torch.full_like(images[1][-1], 0.3), atol=1e-3, rtol=1e-3)
