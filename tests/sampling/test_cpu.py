"""Workers on a CPU change neither results nor torch's number of threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.diffusion.noise import sample_noise
from deediff.policies import Never, Replay
from deediff.policies.base import LayerState
from deediff.sampling import sample
from deediff.sampling.condition import Condition
from deediff.sampling.cpu import WorkQueue, one_thread
from deediff.sampling.forward import Exited, predict
from deediff.sampling.micro_batch import MicroBatch
from deediff.sampling.request import Request
from tests.sampling.common import MODEL, NUMBERS, TAU, Case, X


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(2, 20), st.sampled_from(["exit", "full", "deviations"]), st.integers(0, 1000))
def test_the_number_of_threads_changes_nothing(case: Case, batch: int, threads: int, what: str, seed: int) -> None:
    """For any number of workers, and whichever of them is the fastest."""
    rng = np.random.default_rng(seed)
    x, layers = (
        sample_noise(seed, range(batch), 0, case.model.image_shape),
        torch.from_numpy(rng.integers(0, case.n + 1, (batch, 1))),
    )
    record: Any = "exit" if what == "exit" else "full"
    with one_thread():
        alone, shared = (
            predict(case.model, x, Request(Replay(layers), 0, 700, np.arange(batch), record, what == "deviations"), n)
            for n in (1, threads)
        )
    assert torch.equal(shared.exit_layer, layers[:, 0])
    torch.testing.assert_close(shared.output, alone.output, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shared.uncertainty, alone.uncertainty, atol=1e-5, rtol=1e-4, equal_nan=True)
    torch.testing.assert_close(shared.deviation, alone.deviation, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [None, 2.5])
def test_micro_batches_keep_their_labels(
    conditional_case: Case, guidance: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven samples in micro-batches of at most three."""
    model = conditional_case.conditional
    copies = 1 if guidance is None else 2
    monkeypatch.setattr("deediff.sampling.cpu.CPU_CACHE", 3 * copies * model.backbone.state_size)
    x, condition = conditional_case.x[:7], Condition(torch.arange(7) % 3, guidance, null_label=3)
    with one_thread():
        alone, shared = (
            predict(model, x, Request(Never(), 0, 700, NUMBERS[:7], condition=condition), n) for n in (1, 2)
        )
    torch.testing.assert_close(shared.output, alone.output, atol=1e-4, rtol=1e-4)


def test_an_idle_worker_gets_half_of_another_ones_micro_batch() -> None:
    """Eight samples for two workers: the four of one worker exit at layer 0, so the other four are shared."""
    layers = torch.tensor([0] * 4 + [13] * 4)[:, None]
    sizes: list[int] = []
    block = MODEL.backbone.block

    def counted(i: int, state: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        time.sleep(0.01)  # long enough for the other worker to become idle
        sizes.append(len(state))
        return block(i, state, skip)

    MODEL.backbone.block = counted  # type: ignore[method-assign]
    try:
        with one_thread():
            found = predict(MODEL, X[:8], Request(Replay(layers), 0, 700, NUMBERS[:8]), 2)
    finally:
        del MODEL.backbone.block
    assert torch.equal(found.exit_layer, layers[:, 0])
    assert sum(sizes) == 4 * 13
    assert max(sizes[4:]) <= 2


def test_the_halves_of_a_micro_batch_keep_their_rows_skips_and_pairs() -> None:
    rows, present = np.array([6, 2, 9, 4]), np.ones(10, dtype=np.bool_)
    state = torch.arange(8.0)[:, None]  # pairs, as with guidance
    first = MicroBatch(rows, state, layer=3, lowest=torch.arange(4.0))
    first.skips[1] = [(np.array([6, 1, 2, 9, 4]), torch.arange(10.0)[:, None])]
    present[1] = False  # has exited since
    second = first.split(present)
    assert (first.rows.tolist(), second.rows.tolist(), second.layer) == ([6, 2], [9, 4], 3)
    assert torch.equal(torch.cat([first.state, second.state]), state)
    assert torch.equal(torch.cat([first.lowest, second.lowest]), torch.arange(4.0))  # type: ignore[list-item]
    skips = [part.take_skip(1, present).flatten().tolist() for part in (first, second)]
    assert skips == [[0, 1, 4, 5], [6, 7, 8, 9]]


def test_micro_batches_that_join_keep_their_rows_skips_and_pairs() -> None:
    def part(rows: list[int], start: float) -> MicroBatch:
        state = torch.arange(start, start + 2 * len(rows))[:, None]  # pairs, as with guidance
        found = MicroBatch(np.array(rows), state, layer=3, lowest=torch.tensor(rows, dtype=torch.float32))
        found.skips[1] = [(found.rows, state + 100)]
        return found

    present = np.ones(10, dtype=np.bool_)
    first, second = part([6, 2], 0), part([9, 1], 10)
    first.join([second])
    first.keep(np.array([0, 2, 3]))
    present[2] = False
    assert first.rows.tolist() == [6, 9, 1]
    assert first.state.flatten().tolist() == [0, 1, 10, 11, 12, 13]
    assert first.lowest is not None
    assert first.lowest.tolist() == [6, 9, 1]
    assert first.take_skip(1, present).flatten().tolist() == [100, 101, 110, 111, 112, 113]


def test_small_micro_batches_of_a_layer_join_while_every_worker_has_enough() -> None:
    class Forward:
        present = np.ones(12, dtype=np.bool_)

    def part(layer: int, count: int) -> MicroBatch:
        return MicroBatch(np.arange(count), torch.zeros(count, 1), layer=layer)

    parts = [part(5, 1), part(4, 3), part(4, 2), part(4, 4)]
    queue = WorkQueue(Forward(), parts, size=16, workers=2)  # type: ignore[arg-type]
    sizes = []
    while queue.waiting and (taken := queue.take()) is not None:
        sizes.append((taken.layer, len(taken)))
    assert sizes == [(4, 5), (4, 4), (5, 1)]  # 6 of 12 rows at most for each of two workers; the shallowest first


def test_exited_samples_are_shared_when_no_micro_batch_waits() -> None:
    class Forward:
        present = np.ones(12, dtype=np.bool_)

    queue = WorkQueue(Forward(), [MicroBatch(np.arange(4), torch.zeros(4, 1), layer=2)], size=5, workers=2)  # type: ignore[arg-type]
    queue.exited += [Exited(layer, np.arange(3), torch.zeros(3, 1)) for layer in (1, 2, 3, 4)]
    kinds = [queue.take() for _ in range(3)]
    assert isinstance(kinds[0], MicroBatch)
    assert [[each.layer for each in task] for task in kinds[1:] if isinstance(task, list)] == [[4, 3], [2, 1]]


@pytest.mark.parametrize("samplings", [2, 3])
def test_jobs_that_overlap_share_the_workers(samplings: int) -> None:
    """Together they need more workers than there are threads: some start only when others are done."""
    torch.set_num_threads(8)
    try:
        done = []

        def work(seed: int) -> None:
            steps = sample(MODEL, num_samples=32, policy=f"threshold:{TAU}", steps=20, seed=seed, batch_size=32)
            done.append(len(list(steps)))

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
        with pytest.raises(RuntimeError, match="in a worker"):
            predict(MODEL, X, Request(_Failing(), 0, 700, NUMBERS))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_overlapping_jobs_leave_the_number_of_threads_as_it_was() -> None:
    """The second starts during the first and ends after it, so the number that it finds is not the one to restore."""
    first, second = one_thread(), one_thread()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1) as another:
            assert first.__enter__() == 3
            assert another.submit(second.__enter__).result() == 1  # its share of three
            first.__exit__(None, None, None)
            another.submit(second.__exit__, None, None, None).result()
            assert [torch.get_num_threads(), another.submit(torch.get_num_threads).result()] == [3, 3]
    finally:
        torch.set_num_threads(1)


class _Failing(Never):
    def should_exit(self, state: LayerState) -> bool:
        if state.layer == 5 and 0 in state.samples:
            raise RuntimeError("in a worker")
        return False
