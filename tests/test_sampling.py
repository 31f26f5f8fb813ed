"""The laws of the sampler."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.analysis.cost import model_cost
from deediff.bench import bench_sampler, bimodal_exits, independent_exits
from deediff.datasets import to_uint8
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.sampling import Fixed, Never, Replay, Step, Threshold, make_policy, sample, sample_noise
from deediff.sampling.sampler import predict_all_layers, predict_with_exits
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
NUMBERS = torch.arange(16)


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
    real = predict_with_exits(MODEL, x, Threshold(threshold), 0, timestep, NUMBERS[:8])
    edge = (u - threshold).abs().amin(0) < 1e-5
    assert torch.equal(real.exit_layer[~edge], expected[~edge])
    chosen = eps_all[real.exit_layer, torch.arange(8)]
    torch.testing.assert_close(real.eps, chosen, atol=1e-4, rtol=1e-4)
    # u is recorded up to and including the exit, and nothing after it.
    known = ~real.uncertainty.isnan()
    assert torch.equal(known.sum(1), (real.exit_layer + 1).clamp(max=13))
    torch.testing.assert_close(real.uncertainty[known], u.T[known], atol=1e-5, rtol=1e-4)


def test_each_block_processes_exactly_the_samples_that_are_still_in() -> None:
    """A simulated exit would count 16 in every block."""
    rows = [0] * 13
    net = MODEL.backbone
    blocks = [*net.in_blocks, net.mid_block, *net.out_blocks]

    def count(i: int):
        return lambda _, args: rows.__setitem__(i, rows[i] + len(args[0]))

    hooks = [block.register_forward_pre_hook(count(i)) for i, block in enumerate(blocks)]
    p = predict_with_exits(MODEL, X, Threshold(TAU), 0, 700, NUMBERS)
    for hook in hooks:
        hook.remove()
    assert rows == [int((p.exit_layer > i).sum()) for i in range(13)]
    assert sum(rows) == int(p.exit_layer.sum())


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
    p = predict_all_layers(MODEL, X, Never(), 0, 700, NUMBERS, deviations=True)
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
    later = predict_with_exits(MODEL, X, Threshold(low), 0, 300, NUMBERS).exit_layer
    earlier = predict_with_exits(MODEL, X, Threshold(high), 0, 300, NUMBERS).exit_layer
    assert (earlier <= later).all()


def test_never_is_the_plain_network() -> None:
    p = predict_with_exits(MODEL, X, Never(), 0, 123, NUMBERS)
    torch.testing.assert_close(p.eps, MODEL(X, torch.full((16,), 123)))
    assert (p.exit_layer == 13).all()
    assert p.uncertainty.isnan().all()


@pytest.mark.parametrize("layer", [0, 1, 6, 7, 12, 13])
def test_fixed_leaves_at_its_layer(layer: int) -> None:
    p = predict_with_exits(MODEL, X, Fixed(layer), 0, 123, NUMBERS)
    eps_all, _ = MODEL.all_exits(X, torch.full((16,), 123))
    torch.testing.assert_close(p.eps, eps_all[layer], atol=1e-4, rtol=1e-4)
    assert (p.exit_layer == layer).all()


def test_replayed_exits_are_followed_sample_by_sample() -> None:
    layers = torch.randint(0, 14, (16, 3))
    p = predict_with_exits(MODEL, X, Replay(layers), 2, 123, NUMBERS)
    assert torch.equal(p.exit_layer, layers[:, 2])
    eps_all, _ = MODEL.all_exits(X, torch.full((16,), 123))
    torch.testing.assert_close(p.eps, eps_all[layers[:, 2], NUMBERS], atol=1e-4, rtol=1e-4)


def test_the_threshold_is_rounded_to_float32_once() -> None:
    u = torch.tensor([0.1], dtype=torch.float32)  # 0.10000000149 > 0.1 in float64
    assert Threshold(0.1).leaves(_visit(u)).all()


def _visit(u: torch.Tensor):
    from deediff.sampling.policies import Visit

    return Visit(0, 0, 0, torch.zeros(1, dtype=torch.int64), u)


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
        ({"policy": "fixed:14"}, "exit layer is 14, but this model has only 13 blocks"),
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
        list(sample(broken, num_samples=2, first_sample=5, steps=3))


def test_a_class_conditional_model_is_refused() -> None:
    conditional = EarlyExitModel(UViT(replace(TINY, num_classes=3)))
    with pytest.raises(UserError, match="class-conditional"):
        sample(conditional)


def test_bench_compares_every_variant_with_the_full_network() -> None:
    """Ratios and costs, not times: a machine may be as slow as it likes."""
    result = bench_sampler(MODEL, torch.device("cpu"), batch_sizes=(3,), steps=2, repeats=1)
    rows = {row["variant"]: row for row in result["rows"]}
    assert rows["full"]["speed_up"] == 1
    exits = independent_exits(3, 2, 13, 0.5)
    counts = torch.bincount(exits.flatten(), minlength=14).numpy()
    row = rows["real, independent 0.5"]
    assert row["gflops"] == pytest.approx(model_cost(MODEL).mean_gflops(counts, with_uem=True))
    assert row["efficiency"] == pytest.approx(row["speed_up"] * row["gflops"] / model_cost(MODEL).full)
    assert rows["simulated"]["efficiency"] is None


def test_bench_profiles_have_the_layer_ratio_they_say() -> None:
    for ratio in (0.5, 0.7):
        assert independent_exits(500, 50, 13, ratio).float().mean() / 13 == pytest.approx(ratio, abs=0.01)
    layers = bimodal_exits(500, 50, 13)
    assert set(layers.unique().tolist()) == {1, 2, 13}
    assert layers[:, 0].max() <= 2
    assert layers[:, -1].min() == 13


def write_schedule(folder: Path, **content: object) -> str:
    (folder / "schedule.json").write_text(json.dumps(content))
    return f"schedule:{folder / 'schedule.json'}"


def test_a_schedule_of_exit_layers_holds_per_range_of_timesteps(tmp_path: Path) -> None:
    """ASE's notation: one depth per hundred timesteps, from t = 0 upward."""
    layers = [13, 13, 11, 11, 9, 9, 7, 7, 5, 0]
    steps = all_steps(num_samples=2, policy=write_schedule(tmp_path, exit_layer=layers), steps=100)
    assert [int(s.exit_layer[0]) for s in steps] == [layers[s.timestep // 100] for s in steps]
    assert all(s.uncertainty.isnan().all() for s in steps)


def test_a_schedule_of_equal_thresholds_is_a_threshold(tmp_path: Path) -> None:
    expected = all_steps(num_samples=5, policy=f"threshold:{TAU}", steps=4)
    for content in ({"threshold": [TAU] * 5}, {"layer_threshold": [TAU] * 13}):
        policy = write_schedule(tmp_path, **content)
        for a, b in zip(all_steps(num_samples=5, policy=policy, steps=4), expected, strict=True):
            assert torch.equal(a.exit_layer, b.exit_layer)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"exit_layer": [14] * 10}, "holds exit layer 14, but this model has only 13 blocks"),
        ({"exit_layer": [13] * 7}, "has 7 values, which does not divide 1000 timesteps evenly"),
        ({"exit_layer": [1.5]}, "holds 1.5, expected layers 0, 1"),
        ({"threshold": [2]}, r"holds 2, expected numbers in \[0, 1\]"),
        ({"layer_threshold": [0.1] * 12}, "holds 12 thresholds, expected one per layer: 13"),
        ({"layers": [1]}, "give exactly one"),
    ],
)
def test_a_bad_schedule_is_refused(tmp_path: Path, content: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(MODEL, policy=write_schedule(tmp_path, **content))
