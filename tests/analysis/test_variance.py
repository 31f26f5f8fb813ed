"""Is it the sample or the timestep: the split of the variance, and the best static schedule."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.analysis.static import cheapest, exit_distance, fit_static
from deediff.analysis.trends import timestep_share
from deediff.analysis.variance import Moments, VarianceSplit, decompose, uncertainty_variance
from deediff.cli import main
from deediff.cost.cost import Cost
from deediff.diffusion.solvers import spaced_timesteps
from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.policies.base import LayerState
from deediff.policies.from_trace.oracle_exits import oracle_exits, weighted_deviation
from deediff.policies.registry import make_policy
from deediff.policies.schedule import ScheduledExit
from deediff.recording.parts import finish, write_part
from deediff.traces.reader import Trace, read_trace
from tests.conftest import make_run

COST = Cost(embed=0.5, blocks=[1.0] * 13, uems=[0.1] * 13, heads=[0.2] * 13, decode=0.2)
STATIC_COST = COST.at_exit(with_uem=False)


def synthetic(
    seed: int, samples: int, steps: int, timestep: float, sample: float, drift: float, phi: float, noise: float
) -> tuple[np.ndarray, dict[str, float]]:
    """Values (samples, steps) with these variances (drift is AR(1) with coefficient φ), and the true answers."""
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=steps)
    effect = (effect - effect.mean()) / effect.std() * timestep**0.5
    walk = rng.normal(size=(samples, steps))
    for s in range(1, steps):
        walk[:, s] = phi * walk[:, s - 1] + (1 - phi**2) ** 0.5 * walk[:, s]
    values = effect + sample**0.5 * rng.normal(size=(samples, 1)) + drift**0.5 * walk
    values += noise**0.5 * rng.normal(size=(samples, steps))
    lags = np.arange(1, steps)
    kept = sample + drift * 2 * ((steps - lags) * phi**lags).sum() / steps / (steps - 1)  # over all pairs of steps
    within = sample + drift + noise
    total = timestep + within
    return values, {
        "total": total,
        "timestep": timestep / total,
        "sample": kept / total,
        "rest": (within - kept) / total,
        "stays_all": kept / within,
        "stays_next": (sample + drift * phi) / within,
    }


def values_of(split: VarianceSplit) -> dict[str, float]:
    names = ("total", "timestep", "sample", "rest", "stays_all", "stays_next")
    return {name: getattr(split, name).value for name in names}


@pytest.mark.parametrize("parts", [(4, 1, 1, 0.9, 0.5), (0.1, 0, 2, 0.5, 1), (1, 3, 0, 0, 0.2), (0, 0, 0, 0, 1)])
def test_known_components_are_recovered(parts: tuple[float, ...]) -> None:
    values, truth = synthetic(1, 3000, 100, *parts)
    assert values_of(decompose(values, draws=1)) == pytest.approx(truth, abs=0.03, rel=0.05)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    hits = dict.fromkeys(("total", "timestep", "sample", "rest", "stays_all", "stays_next"), 0)
    for seed in range(60):
        values, truth = synthetic(seed, 120, 30, 2, 1, 1, 0.7, 1)
        split = decompose(values, draws=200, seed=seed)
        for name in hits:
            hits[name] += getattr(split, name).low <= truth[name] <= getattr(split, name).high
    assert all(count >= 50 for count in hits.values()), hits  # 57 of 60 are expected


def test_without_any_timestep_effect_its_interval_still_holds_zero() -> None:
    # An uncorrected bootstrap fails here: resampling adds noise to the timesteps' means.
    hits = 0
    for seed in range(20):
        split = decompose(synthetic(seed, 50, 200, 0, 0, 0, 0, 1)[0], draws=200)
        hits += split.timestep.low <= 0 <= split.timestep.high
    assert hits >= 18


def test_pure_timesteps_explain_everything_and_nothing_explains_nothing() -> None:
    split = values_of(decompose(np.tile(np.arange(20), (30, 1))))
    assert (split["timestep"], split["sample"], split["rest"]) == (1, 0, 0)
    assert np.isnan([split["stays_all"], split["stays_next"]]).all()
    same = values_of(decompose(np.full((30, 20), 13)))
    assert same.pop("total") == 0
    assert np.isnan(list(same.values())).all()
    with pytest.raises(UserError, match="at least two"):
        decompose(np.ones((1, 5)))


def test_permuting_samples_at_each_timestep_destroys_what_persists_and_nothing_else() -> None:
    values, _ = synthetic(2, 2000, 60, 2, 1, 1, 0.8, 0.5)
    before = values_of(decompose(values, draws=1))
    after = values_of(decompose(np.random.default_rng(0).permuted(values, axis=0), draws=1))
    assert after["total"] == pytest.approx(before["total"], rel=1e-3)
    assert after["timestep"] == pytest.approx(before["timestep"], abs=1e-3)
    for name in ("sample", "stays_all", "stays_next"):
        assert before[name] > 0.1
        assert abs(after[name]) < 0.01


def test_it_is_the_two_way_layout_of_the_textbook() -> None:
    values, _ = synthetic(3, 40, 12, 1, 1, 1, 0.5, 1)
    n, steps = values.shape
    by_step, by_sample, mean = values.mean(0), values.mean(1), values.mean()
    square_rest = np.square(values - by_step - by_sample[:, None] + mean).sum() / (n - 1) / (steps - 1)
    square_sample = steps * np.square(by_sample - mean).sum() / (n - 1)
    of_sample = (square_sample - square_rest) / steps
    of_timestep = by_step.var() - square_rest * (steps - 1) / steps / n  # the timesteps are fixed: no factor S/(S−1)
    left = values - by_step
    neighbours = 2 * (left[:, 1:] * left[:, :-1]).sum() / (np.square(left[:, 1:]) + np.square(left[:, :-1])).sum()
    split = values_of(decompose(values, draws=1))
    total = of_timestep + left.var(axis=0, ddof=1).mean()
    assert split["total"] == pytest.approx(total)
    assert split["timestep"] == pytest.approx(of_timestep / total)
    assert split["sample"] == pytest.approx(of_sample / total)
    assert split["timestep"] + split["sample"] + split["rest"] == pytest.approx(1)
    assert split["stays_next"] == pytest.approx(neighbours)


def test_parts_and_layers_do_not_change_the_answer() -> None:
    layers = np.stack([synthetic(seed, 50, 20, 1, 1, 1, 0.5, 1)[0] for seed in (0, 1)], axis=-1)
    moments = Moments(20, 2, draws=30)
    for part in np.split(layers, [7, 8, 40]):
        moments.add(part)
    for i, split in enumerate(moments.split()):
        whole = decompose(layers[:, :, i], draws=30)
        assert values_of(split) == pytest.approx(values_of(whole))
        assert (split.rest.low, split.rest.high) == pytest.approx((whole.rest.low, whole.rest.high))


def counts_of(exits: np.ndarray) -> np.ndarray:
    """(samples, steps) → (steps, 14)."""
    return (exits[:, :, None] == np.arange(14)).sum(axis=0)


def test_the_timestep_share_is_the_summary_s_up_to_one_sample() -> None:
    exits = np.random.default_rng(0).integers(0, np.arange(2, 14), (500, 12))
    assert decompose(exits, draws=1).timestep.value == pytest.approx(timestep_share(counts_of(exits)), abs=1 / 500)


exit_layers = st.integers(1, 40).flatmap(
    lambda steps: st.lists(st.lists(st.integers(0, 13), min_size=steps, max_size=steps), min_size=1, max_size=6)
)


@settings(max_examples=60, deadline=None)
@given(exit_layers, st.floats(0.7, 13.7))
def test_a_static_schedule_spends_its_budget_up_to_one_step(exits: list[list[int]], budget: float) -> None:
    counts = counts_of(np.asarray(exits))
    spent = STATIC_COST[cheapest(exit_distance(counts), STATIC_COST, budget, spend=True)].mean()
    assert spent <= budget + 1e-6
    assert spent > budget - 1.0001 / len(counts)  # one block of one step


def test_without_a_budget_it_is_the_median() -> None:
    exits = np.random.default_rng(0).integers(0, 14, (101, 30))
    found = cheapest(exit_distance(counts_of(exits)), STATIC_COST, np.inf, spend=False)
    assert (found == np.median(exits, axis=0)).all()


def test_it_is_the_lagrangian_solution() -> None:
    rng = np.random.default_rng(0)
    price, cost = rng.random((50, 14)), np.cumsum(rng.random(14))
    for multiplier in np.geomspace(1e-3, 10, 40):
        best = (price + multiplier * cost).argmin(axis=1)  # no schedule of this cost has a lower price
        assert (cheapest(price, cost, cost[best].mean(), spend=False) == best).all()
    for budget in np.linspace(cost[0], cost[-1], 20):
        assert cost[cheapest(price, cost, budget, spend=False)].mean() <= budget + 1e-9
    with pytest.raises(UserError, match="the cheapest is"):
        cheapest(price, cost, cost[0] / 2, spend=False)


def test_the_distance_from_adaptive_exits() -> None:
    exits = np.asarray([[3, 13], [5, 13]])
    assert exit_distance(counts_of(exits))[:, 4].tolist() == [1, 9]


def make_trace(
    folder: Path, exits: np.ndarray, u: np.ndarray | None = None, deviation: np.ndarray | None = None, **meta: object
) -> Trace:
    """Up to two parts of DDIM steps with these exits (samples, steps), u and deviations (samples, steps, 13)."""
    samples, steps = exits.shape
    timesteps = spaced_timesteps(1000, steps, "trailing")
    fields = {
        "format_version": 1, "complete": False, "num_blocks": 13, "num_samples": samples, "timesteps": timesteps,
        "policy": "threshold:0.1", "record": "exit" if u is None else "full", "has_uncertainty": u is not None,
        "deviations": deviation is not None, "policy_needs_uncertainty": True, "cost": COST.to_json(),
    }  # fmt: skip
    write_json(folder / "trace.json", {**fields, **meta})
    parts = [range(1), range(1, samples)] if samples > 1 else [range(1)]
    for part, numbers in enumerate(parts):
        mine = slice(numbers.start, numbers.stop)
        values = [None if x is None else x[mine].astype(np.float32) for x in (u, deviation)]
        write_part(folder, part, numbers, timesteps, exits[mine].astype(np.int8), *values, None, 13)
    finish(folder, len(parts))
    return read_trace(folder)


def first_below(u: np.ndarray, tau: float) -> np.ndarray:
    leaves = u.astype(np.float32) <= np.float32(tau)
    return np.where(leaves.any(-1), leaves.argmax(-1), 13)


@pytest.mark.parametrize("kind", ["deviation", "uncertainty"])
def test_full_traces_are_fitted_on_half_and_tested_on_the_other(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    u = np.sort(rng.random((30, 10, 13)), axis=-1)[:, :, ::-1]
    deviation = np.sort(rng.random((30, 10, 13)), axis=-1)[:, :, ::-1] if kind == "deviation" else None
    exits = first_below(u, 0.05)
    fit = fit_static(make_trace(tmp_path / "t", exits, u, deviation))
    assert (fit.price, fit.fitted_on, fit.tested_on) == (kind, 15, 15)
    price = np.concatenate([u, u[:, :, -1:]] if deviation is None else [deviation, np.zeros((30, 10, 1))], axis=-1)
    budget = COST.at_exit(with_uem=True)[exits[::2]].mean()
    assert (fit.layers == cheapest(price[::2].mean(axis=0), STATIC_COST, budget, spend=False)).all()
    adaptive, static = fit.held_out
    mine, theirs = (np.take_along_axis(price, e[:, :, None], 2)[1::2, :, 0] for e in (exits, fit.layers * (exits >= 0)))
    assert adaptive.price == pytest.approx(mine.mean(), rel=1e-5)
    assert static.price == pytest.approx(theirs.mean(), rel=1e-5)
    assert static.above_adaptive.value == pytest.approx(theirs.mean() - mine.mean(), rel=1e-4)
    assert static.above_adaptive.low < static.above_adaptive.value < static.above_adaptive.high
    assert adaptive.gflops == pytest.approx(COST.at_exit(with_uem=True)[exits[1::2]].mean())
    assert static.gflops == pytest.approx(STATIC_COST[fit.layers].mean())
    assert static.gflops <= budget + 1e-9
    assert static.agreement == pytest.approx((exits[1::2] == fit.layers).mean())
    assert static.layer_distance == pytest.approx(np.abs(exits[1::2] - fit.layers).mean())


@pytest.mark.parametrize("kind", ["deviation", "uncertainty", "layers"])
def test_nothing_leaves_where_there_is_no_exit(tmp_path: Path, kind: str) -> None:
    """With UEMs at layers 2 and 9 only; the untrained head of layer 5 happens to be nearest to the full network."""
    rng = np.random.default_rng(0)
    u = np.full((20, 6, 13), np.nan)
    u[:, :, [2, 9]] = rng.random((20, 6, 2))
    deviation = 1 + rng.random((20, 6, 13))
    deviation[:, :, 5] = 0
    exits = rng.choice([2, 9, 13], (20, 6))
    trace = make_trace(tmp_path / "t", exits, u, deviation if kind == "deviation" else None)
    budget = float(STATIC_COST[7])
    fits = [fit_static(trace, imitate=True), fit_static(trace, budget, imitate=True)]
    if kind != "layers":
        fits = [fit_static(trace), fit_static(trace, budget)]
    for fit in fits:
        assert fit.price == kind
        assert set(fit.layers.tolist()) <= {2, 9, 13}
        assert np.isfinite(fit.held_out[1].gflops)
    if kind == "deviation":
        weighted = weighted_deviation(trace, 0, np.ones(6))
        assert (oracle_exits(weighted, 0.0) == 13).all()
        assert (oracle_exits(weighted, 10.0) == 2).all()


def test_a_planted_schedule_is_found_and_its_file_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = np.asarray([2, 2, 5, 13, 13])
    deviation = np.where(np.arange(13) < planted[:, None], 1.0, 0.0)  # free from the planted layer on
    u = np.random.default_rng(0).random((12, 5, 13)) * 0.2
    make_trace(
        tmp_path / "t", np.full((12, 5), 13), u, deviation + 0 * u, policy="never", policy_needs_uncertainty=False
    )
    file = tmp_path / "schedule.json"
    budget = STATIC_COST[planted].mean()
    result = run(capsys, "static", tmp_path / "t", "--out", file, "--budget", budget)
    assert result["price"] == "deviation"
    mine = result["held_out"][-1]
    assert mine["gflops"] == pytest.approx(budget)
    assert mine["price"] == 0
    assert result["held_out"][0]["policy"].startswith("threshold:")  # what the same budget buys adaptively
    assert result["held_out"][0]["gflops"] <= budget
    policy = make_policy(f"schedule:{file}")
    assert isinstance(policy, ScheduledExit)
    for timestep, layer in [(999, 2), (799, 2), (599, 5), (500, 5), (498, 13), (199, 13), (0, 13)]:
        assert next(i for i in range(14) if policy.should_exit(LayerState(i, 13, 0, timestep, np.arange(1)))) == layer


def run(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    assert main([*map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_own_traces_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run")
    trace = folder / "traces" / "full"
    options = ("--steps", 5, "--num-samples", 6, "--batch-size", 4, "--record", "full", "--policy", "threshold:0.4")
    run(capsys, "sample", folder, *options, "--deviations", "--out", trace)
    table = run(capsys, "variance", trace, "--layers", "--draws", 20)
    assert [row["layer"] for row in table["uncertainty"]] == list(range(13))
    row, shares = table["exit_layer"][0], ("timestep", "sample", "rest")
    assert (row["trace"], row["samples"], row["steps"]) == ("run/full", 6, 5)
    assert sum(row[name]["value"] for name in shares) == pytest.approx(1)
    u = read_trace(trace).to_pandas()["uncertainty"].map(lambda x: x[7]).to_numpy().reshape(6, 5)
    assert table["uncertainty"][7]["total"]["value"] == pytest.approx(decompose(u, draws=1).total.value)
    fit = run(capsys, "static", trace, "--out", tmp_path / "s.json")
    assert fit["price"] == "deviation"
    sampled = run(capsys, "sample", folder, "--steps", 5, "--num-samples", 2, "--policy", f"schedule:{tmp_path}/s.json",
                  "--out", folder / "traces" / "static")  # fmt: skip
    assert sampled["mean_gflops"] == pytest.approx(fit["held_out"][1]["gflops"])
    assert main(["variance", str(trace)]) == 0
    assert "[" in capsys.readouterr().out


def test_layers_of_an_exit_trace_that_some_left_before_have_no_answer(tmp_path: Path) -> None:
    u = np.random.default_rng(0).random((9, 4, 13))
    u[3, 2, 5:] = np.nan
    splits = uncertainty_variance(make_trace(tmp_path / "t", np.full((9, 4), 13), u), draws=10)
    assert [bool(np.isnan(split.timestep.value)) for split in splits] == [False] * 5 + [True] * 8


TWO_SETS = ("attention_layer_frozen", "mlp_timestep_frozen")  # all of them would take a while


def test_the_published_sets(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "published_exit_layers.npz"
    with np.load(shared / "reference" / "published_exit_layers.npz") as sets:
        np.savez(archive, **{name: sets[name][:, :128] for name in TWO_SETS})
    run(capsys, "import", archive, "--layout", "duodiff-indices", "--out", tmp_path / "run")
    traces = sorted((tmp_path / "run" / "traces").iterdir())
    assert len(traces) == 2
    table = run(capsys, "variance", *traces, "--draws", 20)
    with np.load(archive) as sets:
        for trace, row in zip(traces, table["exit_layer"], strict=True):
            exits = sets[trace.name].T
            assert row["samples"] == len(exits)
            if trace.name == "mlp_timestep_frozen":  # it hardly ever leaves, and not where its neighbours do
                assert row["timestep"]["high"] < 0.5
            else:
                assert row["timestep"]["value"] == pytest.approx(timestep_share(counts_of(exits)), abs=2e-3)
                assert row["timestep"]["low"] > 0.9
    for row in table["static_schedule"]:  # the static one pays for no UEM, so it affords at least the adaptive layers
        assert row["static_gflops"] == pytest.approx(row["gflops"], rel=0.01)
        assert row["static_ratio"] > row["layer_ratio"] - 0.01
        assert row["nearest_agrees"] >= row["static_agrees"] - 0.01
    file = tmp_path / "s.json"
    fit = run(capsys, "static", tmp_path / "run" / "traces" / "attention_layer_frozen", "--out", file, "--budget", 12)
    assert fit["held_out"][-1]["gflops"] == pytest.approx(12, abs=24.4 / 1000)
    assert len(json.loads(file.read_text())["exit_layer"]) == 1000
    assert (fit["fitted_on"], fit["tested_on"]) == (64, 64)


def test_what_cannot_be_asked_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*args: object) -> str:
        assert main([*map(str, args)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        return message

    exits, u = np.full((6, 4), 13), np.random.default_rng(0).random((6, 4, 13))
    out = ("--out", tmp_path / "s.json")
    make_trace(tmp_path / "exits", exits)
    make_trace(tmp_path / "never", exits, u, policy="never", policy_needs_uncertainty=False)
    make_trace(tmp_path / "dual", exits, cost={**COST.to_json(), "shallow": 1.0, "shallow_steps": 2})
    make_trace(tmp_path / "bare", exits, cost={**COST.to_json(), "heads": []})
    make_trace(tmp_path / "one", exits[:1])
    assert "holds no uncertainties" in error("variance", tmp_path / "exits", "--layers")
    assert "holds one sample" in error("variance", tmp_path / "one")
    assert "holds one sample" in error("static", tmp_path / "one", *out)
    assert "does not adapt: give a budget" in error("static", tmp_path / "never", *out)
    assert "the cheapest is" in error("static", tmp_path / "never", *out, "--budget", 0.1)
    assert "the cheapest is" in error("static", tmp_path / "exits", *out, "--budget", 0.1)
    assert "the budget is nan" in error("static", tmp_path / "exits", *out, "--budget", "nan")
    assert "another network takes its first steps" in error("static", tmp_path / "dual", *out)
    assert "no output heads" in error("static", tmp_path / "bare", *out)
    assert "cannot be written" in error("static", tmp_path / "exits", "--out", tmp_path)
    assert not (tmp_path / "s.json").exists()
    never = run(capsys, "variance", tmp_path / "never", "--draws", 5)["exit_layer"][0]
    assert (never["total"]["value"], never["timestep"], never["stays_next"]) == (0, None, None)
    with pytest.raises(UserError, match="holds no deviations"):
        read_trace(tmp_path / "never").deviation(0)
    for part in (tmp_path / "exits").glob("part-*"):
        part.unlink()
    for command in (["variance", tmp_path / "exits"], ["static", tmp_path / "exits", *out]):
        assert "came without its rows" in error(*command)
