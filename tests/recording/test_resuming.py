"""Resuming: sampling may be stopped or killed at any moment, and the same command completes the trace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deediff
from deediff.diffusion.noise import sample_noise
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from tests.conftest import comparable, record


class Killed(BaseException):
    """Nothing in the code catches it or cleans up after it, as after kill −9."""


def interrupt(patch: pytest.MonkeyPatch, moment: int, error: BaseException) -> list[str]:
    """Make every sync, rename and removal of a file fail from the `moment`-th on. Returns the attempted calls."""
    asked: list[str] = []

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            if len(asked) >= moment:
                raise error
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "unlink"):
        patch.setattr(os, name, failing(name, getattr(os, name)))
    return asked


@pytest.mark.parametrize("error", [Killed(), OSError(28, "No space left on device")])
def test_whenever_it_ends_the_same_command_goes_on(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Also between two files of a part, while the summaries are merged, and while the last leftovers are removed."""
    options: dict[str, Any] = {"num_samples": 3, "batch_size": 2, "steps": 2, "deviations": True, "record": "full"}
    whole = record(run_folder, f"whole-{error}", **options)
    parts = {0: range(2), 1: range(2, 3)}
    for moment in range(1, 100):
        name = f"moment-{moment}-{error}"
        with monkeypatch.context() as patch:
            asked = interrupt(patch, moment, error)
            try:
                record(run_folder, name, **options)
                break
            except (Killed, UserError) as caught:
                said = str(caught)
        assert isinstance(error, Killed) or "No space left on device" in said
        complete: list[int] = []
        if (run_folder / "traces" / name / "trace.json").exists():
            halfway = deediff.read_trace(run_folder / "traces" / name)
            complete = halfway.parts
            for part in complete:
                np.testing.assert_array_equal(halfway.uncertainty(part), whole.uncertainty(part))
        redone: set[range] = set()
        resumed = record(run_folder, name, on_step=lambda step, redone=redone: redone.add(step.samples), **options)
        assert redone == {samples for part, samples in parts.items() if part not in complete}
        assert comparable(resumed) == comparable(whole)
        assert {**resumed.meta.raw, "wall_seconds": 0} == {**whole.meta.raw, "wall_seconds": 0}
    assert len(asked) == moment - 1 > 20
    assert {"fsync", "replace", "unlink"} == set(asked)


@pytest.mark.parametrize("content", [None, b"", b"cut"])
def test_a_part_whose_summary_is_lost_is_added_up_from_its_rows(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """A loss of power may keep a file and lose an earlier one."""
    whole, name = record(run_folder, "whole"), f"lost-{content}"
    with monkeypatch.context() as patch:
        interrupt(patch, 18, Killed())
        with pytest.raises(Killed):
            record(run_folder, name)
    lost = run_folder / "traces" / name / "summary-00000.npz"
    lost.unlink() if content is None else lost.write_bytes(content)
    resumed = record(run_folder, name)
    assert comparable(resumed) == comparable(whole)
    np.testing.assert_array_equal(resumed.what_if(0.5).exits, whole.what_if(0.5).exits)


def test_what_was_complete_before_the_network_broke_down_is_kept(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(seed: int, samples: range, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        drawn = sample_noise(seed, samples, draw, shape)
        if draw == 2 and 5 in samples:
            drawn[list(samples).index(5)] = torch.nan
        return drawn

    monkeypatch.setattr("deediff.sampling.sampler.sample_noise", noise)
    with pytest.raises(UserError, match=r"not finite for sample 5 at timestep 799: .* what was complete is kept in"):
        record(run_folder, "broken", solver="ddpm")
    monkeypatch.undo()
    kept = deediff.read_trace(run_folder / "traces" / "broken")
    assert kept.parts == [0]
    np.testing.assert_array_equal(kept.exit_layers(), record(run_folder, "sound", solver="ddpm").exit_layers()[:4])


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_resume_equals_uninterrupted(run_folder: Path, solver: str) -> None:
    whole = record(run_folder, f"whole-{solver}", solver=solver)

    def kill(step: deediff.Step) -> None:
        if step.done == 8:  # in the middle of the second part
            raise Killed

    with pytest.raises(Killed):
        record(run_folder, f"killed-{solver}", solver=solver, on_step=kill)
    halfway = deediff.read_trace(run_folder / "traces" / f"killed-{solver}")
    assert halfway.parts == [0]
    assert "not complete" in halfway.problems[0]
    assert halfway.exit_layers().shape == (4, 5)  # what was complete stays readable
    resumed_steps = []
    resumed = record(run_folder, f"killed-{solver}", solver=solver, on_step=lambda s: resumed_steps.append(s))
    assert {s.samples for s in resumed_steps} == {range(4, 8), range(8, 10)}  # only unfinished parts
    assert comparable(resumed) == comparable(whole)


def test_a_trace_of_an_earlier_version_is_resumed(run_folder: Path) -> None:
    """Its trace.json lacks the settings that came later."""
    whole, name = record(run_folder, "whole-now"), "begun-earlier"
    trace = record(run_folder, name)
    content = read_json(trace.path / "trace.json")
    for later in ("recalibrated", "clip_x0", "dynamic_threshold", "imported", "classes", "guidance", "policy_content"):
        content.pop(later, None)
    write_json(trace.path / "trace.json", {**content, "complete": False})
    (trace.path / "part-00001.parquet").unlink()
    (trace.path / "summary.npz").unlink()
    assert comparable(record(run_folder, name)) == comparable(whole)


def test_a_trace_whose_spacing_meant_other_timesteps_is_resumed_with_its_own(run_folder: Path) -> None:
    """DPM-Solver++ with linspace once ended at t = 0: its parts are never mixed with those of other timesteps."""
    old, name = (999, 666, 333, 0), "spaced-earlier"
    whole = record(run_folder, "spaced-whole", solver="dpm-solver++", timesteps=old)
    trace = record(run_folder, name, solver="dpm-solver++", timesteps=old)
    content = read_json(trace.path / "trace.json")
    write_json(trace.path / "trace.json", {**content, "spacing": "linspace", "complete": False})
    (trace.path / "part-00001.parquet").unlink()
    (trace.path / "summary.npz").unlink()
    with pytest.raises(UserError, match=r"different: timesteps.* give those of its trace\.json with --timesteps"):
        record(run_folder, name, solver="dpm-solver++", steps=4, spacing="linspace")
    assert comparable(record(run_folder, name, solver="dpm-solver++", timesteps=old)) == comparable(whole)


def test_a_truncated_part_is_ignored_and_redone(run_folder: Path) -> None:
    trace = record(run_folder, "cut")
    before = comparable(trace)
    rows = trace.path / "part-00001.parquet"
    rows.write_bytes(rows.read_bytes()[:-20])
    cut = deediff.read_trace(trace.path)
    assert cut.parts == [0, 2]
    assert cut.problems == ["part-00001.parquet is truncated and was ignored: run the same sampling command again"]
    assert cut.exit_layers().shape == (6, 5)
    assert comparable(record(run_folder, "cut")) == before


def test_another_trace_in_the_folder_is_not_overwritten(run_folder: Path, exits: deediff.Trace) -> None:
    with pytest.raises(UserError, match=r"holds another trace \(different: steps, timesteps, seed\)"):
        record(run_folder, "exits", steps=6, seed=1)


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [(28, "No space left on device", "make room"), (30, "Read-only file system", "make it writable")],
)
def test_a_disk_that_takes_no_more_loses_nothing_that_was_complete(
    number: int, reason: str, advice: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deediff.recording import parts

    whole, real = record(run_folder, f"whole-{number}"), parts.write_atomically

    def failing_disk(path: Path, data: bytes, sync: bool = True) -> None:
        if path.name == "samples-00001.parquet":
            raise OSError(number, reason)
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_atomically", failing_disk)
        with pytest.raises(UserError, match=rf"{reason}\): what was complete is kept .*; {advice}"):
            record(run_folder, f"cut-{number}")
    assert deediff.read_trace(run_folder / "traces" / f"cut-{number}").parts == [0]
    assert comparable(record(run_folder, f"cut-{number}")) == comparable(whole)


def test_a_folder_that_is_removed_meanwhile_is_an_error(run_folder: Path) -> None:
    folder = run_folder / "traces" / "removed"

    def remove(step: deediff.Step) -> None:
        if step.done == 2:
            shutil.rmtree(folder)

    with pytest.raises(UserError, match="was removed while it was written: run the same command again"):
        record(run_folder, "removed", on_step=remove)
    assert record(run_folder, "removed").meta.complete is True


def test_parts_whose_trace_is_gone_are_taken_for_no_other(run_folder: Path) -> None:
    record(run_folder, "orphans")
    (run_folder / "traces" / "orphans" / "trace.json").unlink()
    with pytest.raises(UserError, match=r"holds parts of a trace without a trace\.json"):
        record(run_folder, "orphans")


@pytest.mark.parametrize("damaged", ["samples-00001.parquet", "summary.npz", "part-00000.parquet"])
def test_whatever_is_damaged_is_redone_by_the_same_command(run_folder: Path, damaged: str) -> None:
    trace = record(run_folder, f"damaged-{damaged}")
    before = comparable(trace)
    (trace.path / damaged).write_bytes(before[damaged][:40])
    assert comparable(record(run_folder, f"damaged-{damaged}")) == before


def test_an_edited_schedule_is_another_trace(run_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    file.write_text('{"exit_layer": [13, 5]}')
    trace = record(run_folder, "scheduled", policy=f"schedule:{file}")
    assert trace.meta.policy_content == {"exit_layer": [13, 5]}
    file.write_text('{"exit_layer": [13, 6]}')
    with pytest.raises(UserError, match="policy_content"):
        record(run_folder, "scheduled", policy=f"schedule:{file}")
