"""The exit policies, through the sampler."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.checkpoints import save_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.policies import POLICIES, make_policy
from deediff.sampling import Step, sample
from deediff.sampling.forward import predict
from deediff.sampling.request import Request
from deediff.sampling.sampler import prepare_sampling
from deediff.settings import SamplingSettings
from tests.conftest import TINY, make_model

MODEL = make_model()
X = sample_noise(3, range(16), 0, MODEL.image_shape)
EPS, U = MODEL.all_exits(X, torch.full((16,), 700))  # (N+1, B, …), (N, B)
TAU = float(U.amin(0).median()) + 0.01


def all_steps(**kwargs: object) -> list[Step]:
    return list(sample(MODEL, **kwargs))  # type: ignore[arg-type]


def exits_under(policy: str, record: str = "exit") -> torch.Tensor:
    return predict(MODEL, X, Request(make_policy(policy), 0, 700, np.arange(16), record)).exit_layer  # type: ignore[arg-type]


def first_layer(wanted: torch.Tensor) -> torch.Tensor:
    """(N, B) bool → the first layer that is true, else N."""
    return torch.where(wanted.any(0), wanted.int().argmax(0), len(wanted))


@pytest.mark.parametrize("record", ["exit", "full"])
def test_patience_needs_a_second_certain_layer_in_the_first_half(record: str) -> None:
    certain = float(np.float32(TAU)) >= U
    earlier = torch.cat([torch.zeros(1, 16, dtype=torch.bool), certain.cummax(0).values[:-1]])
    expected = first_layer(certain & (earlier | (torch.arange(13) > 6)[:, None]))
    assert torch.equal(exits_under(f"patience:{TAU}", record), expected)
    assert (expected != exits_under(f"threshold:{TAU}")).any()


@pytest.mark.parametrize("record", ["exit", "full"])
def test_batch_mean_decides_once_for_the_whole_batch(record: str) -> None:
    tau = float(U.mean(1).min()) + 1e-4
    expected = first_layer((U.mean(1) <= tau)[:, None].expand(13, 16))
    assert (expected < 13).all()
    assert torch.equal(exits_under(f"batch-mean:{tau}", record), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 13), st.integers(0, 13))
def test_bounds_do_not_change_exits_in_between(a: int, b: int) -> None:
    low, high = sorted((a, b))
    may_exit = (torch.arange(13) >= low)[:, None] & (float(np.float32(TAU)) >= U)
    must_exit = (torch.arange(13) >= high)[:, None] & torch.ones_like(may_exit)
    assert torch.equal(exits_under(f"threshold:{TAU},min:{low},max:{high}"), first_layer(may_exit | must_exit))


def test_one_bound_is_enough() -> None:
    assert (exits_under("never,max:4") == 4).all()
    assert torch.equal(exits_under(f"threshold:{TAU},min:0"), exits_under(f"threshold:{TAU}"))
    with pytest.raises(UserError, match="expected 0 ≤ min ≤ max"):
        make_policy("threshold:0.1,min:5,max:3")
    with pytest.raises(UserError, match="names a layer beyond the end of this model: it has 13 blocks"):
        sample(MODEL, policy="never,max:14")


def make_shallow(folder: Path, depth: int = 2, **changes: object) -> Path:
    """DuoDiff's three-block network, with random weights."""
    torch.manual_seed(5)
    shallow = EarlyExitModel(UViT(replace(TINY, depth=depth, **changes)))  # type: ignore[arg-type]
    schedule = Schedule(beta_end=0.03) if folder.name == "noisier" else Schedule()
    return save_checkpoint(folder / "3.safetensors", shallow, schedule, 3, 3)


def test_dual_runs_the_shallow_network_first_and_the_full_one_after(tmp_path: Path) -> None:
    policy = make_policy(f"dual:600:{make_shallow(tmp_path)}")
    steps = list(sample(MODEL, num_samples=3, policy=policy, steps=10))
    assert [int(s.exit_layer[0]) for s in steps] == [3 if s.timestep >= 600 else 13 for s in steps]
    assert all(s.uncertainty.shape == (3, 13) for s in steps)
    shallow = policy.network(999)
    assert shallow is not None
    x = sample_noise(0, range(3), 0, MODEL.image_shape)
    a = float(Schedule().alphas_bar[999])
    with torch.inference_mode():
        x0 = (x - (1 - a) ** 0.5 * shallow(x, torch.full((3,), 999))) / a**0.5
    torch.testing.assert_close(steps[0].x0, x0, atol=1e-3, rtol=1e-3)


def test_dual_costs_what_its_two_networks_cost(tmp_path: Path) -> None:
    job = prepare_sampling(MODEL, SamplingSettings(policy=f"dual:600:{make_shallow(tmp_path)}", steps=10))
    assert job.solver.timesteps == list(range(999, -1, -100))
    cost, shallow = job.cost(), job.policy.network(999)
    assert shallow is not None
    exits = np.zeros((10, 14), dtype=np.int64)
    exits[:4, 3], exits[4:, 13] = 5, 5
    expected = 0.4 * model_cost(shallow).full + 0.6 * model_cost(MODEL).full
    assert cost.mean_gflops(exits, with_uem=False) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("larger", {"img_size": 32}, r"trained on images of shape \(3, 32, 32\), this model on \(3, 16, 16\)"),
        ("classes", {"num_classes": 3}, "a number of classes of 3, this model on 0"),
        ("noisier", {}, "trained on the noise"),
        ("deeper", {"depth": 14}, "has 15 blocks, more than this model's 13"),
    ],
)
def test_a_dual_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, changes: dict[str, object], sentence: str
) -> None:
    (tmp_path / name).mkdir()
    path = make_shallow(tmp_path / name, **changes)
    with pytest.raises(UserError, match=sentence):
        sample(MODEL, policy=f"dual:600:{path}")


def test_the_error_for_an_unknown_policy_lists_the_usage_of_all() -> None:
    with pytest.raises(UserError, match="unknown policy 'sometimes'") as caught:
        make_policy("sometimes")
    assert all(entry.usage in str(caught.value) for entry in POLICIES.values())
    for spec in ("threshold:", "patience:low", "dual:x:none", "budget:much@none", "fixed:1.5", "never:1"):
        with pytest.raises(UserError):
            make_policy(spec)


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
        ({"threshold": [2]}, r"a threshold is 2, expected numbers in \[0, 1\]"),
        ({"threshold": [[0.1] * 13, [0.1] * 12]}, "differ in length"),
        ({"threshold": [[0.1] * 12] * 10}, "holds 12 thresholds, expected one per layer: 13"),
        ({"threshold": [0.1], "num_timesteps": 500}, "covers 500 timesteps, but this model was trained with 1000"),
        ({"exit_layer": [29], "num_blocks": 28}, "holds exit layer 29, but its num_blocks is 28"),
        ({"layer_threshold": [0.1] * 12}, "holds 12 thresholds, expected one per layer: 13"),
        ({"layers": [1]}, "give exactly one"),
    ],
)
def test_a_bad_schedule_is_refused(tmp_path: Path, content: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        sample(MODEL, policy=write_schedule(tmp_path, **content))


def test_thresholds_may_differ_by_timestep_and_layer(tmp_path: Path) -> None:
    """Only the cell of its own timestep and layer decides."""
    table = np.zeros((10, 13))
    table[7, 5] = 1.0
    policy = write_schedule(tmp_path, threshold=table.tolist())
    steps = all_steps(num_samples=2, policy=policy, steps=10)
    assert [int(s.exit_layer[0]) for s in steps] == [5 if s.timestep // 100 == 7 else 13 for s in steps]


def test_ases_own_schedule_is_scaled_to_the_model() -> None:
    steps = all_steps(num_samples=1, policy="schedule:ase", steps=10)
    ase = [28, 28, 24, 24, 20, 20, 16, 16, 12, 12]
    assert [int(s.exit_layer) for s in steps] == [round(ase[s.timestep // 100] * 13 / 28) for s in steps]
