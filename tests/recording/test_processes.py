"""Several processes share one sampling job; memory does not grow with its size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import deediff
from deediff.cli import main
from deediff.errors import UserError
from deediff.recording.finish import finish
from tests.conftest import REPO, TAU, TINY, comparable, make_model, make_run, record
from trainer.run import main as train_main


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0"), ("0", "many")])
def test_a_process_that_cannot_be_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, rank: str, world: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(UserError, match=f"RANK is '{rank}' of WORLD_SIZE '{world}'"):
        record(run_folder, "unclaimed")
    assert not (run_folder / "traces" / "unclaimed").exists()


@pytest.mark.parametrize("world", ["2", "1", ""])
def test_a_world_size_without_a_rank_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.delenv("RANK", raising=False)
    sentence = f"WORLD_SIZE is {world!r} in the environment without RANK"
    with pytest.raises(UserError, match=sentence):
        record(run_folder, "unclaimed")
    assert train_main(["mnist_tiny", "--out", str(run_folder / "training")]) == 2
    assert sentence in capsys.readouterr().err


def test_an_incomplete_trace_names_the_ranks_that_are_missing(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = command_line(run_folder, "partly", "--steps", "2")[2:]  # six parts
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, missing in (("1", "4 of 6 parts of ranks 0, 2"), ("0", "2 of 6 parts of rank 2"), ("2", "")):
        monkeypatch.setenv("RANK", rank)
        assert main(command) == 0
        found = capsys.readouterr().err
        assert (missing in found) if missing else ("missing" not in found)


@pytest.mark.parametrize("shared_folder", ["shared", "memory://bucket/shared"])
def test_processes_share_the_parts_without_talking(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, shared_folder: str
) -> None:
    alone = record(run_folder, "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        shared = record(run_folder, shared_folder)
    assert comparable(shared) == comparable(alone)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="4 processes for 3 parts"):
        record(run_folder, "too-many")


def command_line(run: Path, name: str, *more: str) -> list[str]:
    out = ["--out", str(run / "traces" / name)]
    options = ["--policy", f"threshold:{TAU}", "--solver", "ddpm", "--num-samples", "24", "--batch-size", "4", *more]
    return ["-m", "deediff.cli", "sample", str(run), *options, *out]


def test_several_processes_may_finish_at_once(run_folder: Path) -> None:
    """One finds the part summaries gone, because another has merged them and cleaned up."""
    trace = record(run_folder, "finished")
    before = json.loads((trace.path / "trace.json").read_text())
    for _ in range(2):
        assert finish(trace.path, 3)
    assert json.loads((trace.path / "trace.json").read_text()) == before
    assert before["wall_seconds"] > 0


@pytest.mark.slow
def test_two_processes_of_torchrun_write_the_trace_of_one(run_folder: Path) -> None:
    """To the byte where both count on one thread: a product split among threads may round otherwise."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for launch, name in (([], "solo"), (launcher, "duet")):
        command = [sys.executable, *launch, *command_line(run_folder, name, "--steps", "20")]
        subprocess.run(command, check=True, cwd=REPO, env=environment, timeout=300)
    solo, duet = (deediff.read_trace(run_folder / "traces" / name) for name in ("solo", "duet"))
    assert comparable(solo) == comparable(duet)


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_trace(run_folder: Path) -> None:
    """kill -9 as soon as the first part is written, at any point of the second one."""
    whole, killed = (command_line(run_folder, name, "--steps", "200") for name in ("unharmed", "killed-hard"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *whole], check=True, cwd=REPO, env=environment)
    process = subprocess.Popen([sys.executable, *killed], cwd=REPO, env=environment)
    folder = run_folder / "traces" / "killed-hard"
    while not (folder / "part-00000.parquet").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 1 <= len(deediff.read_trace(folder).parts) < 6
    subprocess.run([sys.executable, *killed], check=True, cwd=REPO, env=environment)
    assert comparable(deediff.read_trace(folder)) == comparable(deediff.read_trace(run_folder / "traces" / "unharmed"))


PEAK_MEMORY = """
import resource, sys
from tests.conftest import sample_trace
sample_trace(sys.argv[1], sys.argv[2], int(sys.argv[3]), policy="threshold:0.5", steps=4, batch_size=64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_model(config=replace(TINY, embed_dim=16, img_size=8)))

    def peak(samples: int) -> int:
        command = [sys.executable, "-c", PEAK_MEMORY, str(run), str(tmp_path / str(samples)), str(samples)]
        return int(subprocess.run(command, check=True, cwd=REPO, capture_output=True, text=True).stdout)

    assert peak(8192) < 1.1 * peak(256)
