"""Empty states: the button does what the command does, and the result or the reason appears in its place."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import deediff
from app.state.commands import typed
from deediff.calibration.file import calibration_file
from deediff.checkpoints import find_checkpoint
from deediff.cli.parsing import parse_arguments
from deediff.cli.sampling import Sample
from deediff.json_files import read_json, write_json
from tests.app.helpers import EXITS, FULL, STEPS, open_app, sentences


def press(app: AppTest, name: str) -> AppTest:
    """Press the button that makes this, and wait for its jobs."""
    app.button(key=f"make {name}").click().run()
    assert not app.exception
    for job in app.session_state[f"offered {name}"]:
        assert job.join(60)
    return app.run()


def command(app: AppTest, words: str) -> str:
    """The one command on the page that starts with these words."""
    found = [block.value for block in app.code if block.value.startswith(words)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("page", ["trends", "images", "uncertainty"])
def test_a_run_without_traces_gets_the_trace_of_the_command(runs: Path, page: str) -> None:
    shutil.rmtree(runs / "toy" / "traces")
    app = open_app(page)
    asked = command(app, "deediff sample")
    out = runs / "toy" / "traces" / "ddim50-threshold-0.1"
    press(app, str(out))
    parsed = parse_arguments(Sample, shlex.split(asked)[2:], "deediff sample")
    stored = deediff.read_trace(out).meta
    assert Path(parsed.out) == out
    for name in ("policy", "solver", "steps", "num_samples", "seed", "record", "deviations", "batch_size"):
        assert getattr(stored.settings, name) == getattr(parsed.settings, name), name
    assert stored.complete
    assert app.selectbox(key="trace").value == out.name  # without a reload
    assert not [block for block in app.code if block.value.startswith("deediff sample")]


def test_a_threshold_is_measured_at_the_steps_and_the_noise_of_trace_a(runs: Path) -> None:
    shutil.rmtree(runs / "toy" / "traces" / EXITS)
    app = open_app("trends")
    out = runs / "toy" / "traces" / f"ddim{STEPS}-threshold-0.1-seed0"
    assert "error of the estimate is unknown" in sentences(app)
    parsed = parse_arguments(Sample, shlex.split(command(app, "deediff sample"))[2:], "deediff sample")
    assert (parsed.settings.policy, parsed.settings.steps) == ("threshold:0.1", STEPS)
    app = press(app, str(out))
    assert "error of the estimate is unknown" not in sentences(app)
    assert deediff.read_trace(out).threshold == 0.1


def test_a_trace_without_a_what_if_is_recorded_in_full(runs: Path) -> None:
    folder = runs / "toy" / "traces" / EXITS
    write_json(folder / "trace.json", {**read_json(folder / "trace.json"), "has_uncertainty": False})
    shutil.rmtree(runs / "toy" / "traces" / FULL)
    app = open_app("trends", trace=EXITS)
    out = runs / "toy" / "traces" / f"ddim{STEPS}-never-full-seed0"
    press(app, str(out))
    recorded = deediff.read_trace(out)
    assert recorded.what_if_limit is not None
    assert recorded.what_if_limit[0] == 0
    assert recorded.meta.seed == deediff.read_trace(folder).meta.seed


def test_calibrating_writes_the_calibration_and_shows_it(runs: Path, tmp_path: Path) -> None:
    images, rng = tmp_path / "images", np.random.default_rng(0)
    images.mkdir()
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(images / f"{number}.png")
    write_json(runs / "toy" / "run.json", {**read_json(runs / "toy" / "run.json"), "dataset": str(images)})
    checkpoint = find_checkpoint(runs / "toy")
    app = open_app("uncertainty")
    assert command(app, "deediff calibrate") == f"deediff calibrate {checkpoint}"
    app = press(app, f"{checkpoint} calibration")
    assert calibration_file(checkpoint).exists()
    assert not [block for block in app.code if block.value.startswith("deediff calibrate")]
    assert not app.error


def test_a_failure_is_said_where_the_result_would_be(runs: Path) -> None:
    app = press(open_app("uncertainty"), f"{find_checkpoint(runs / 'toy')} calibration")
    assert [error.value for error in app.error] == [
        "data set 'toy' is neither cifar10, mnist nor an existing folder of images"
    ]
    app = press(open_app("compare"), f"{runs / 'toy' / 'traces'} quality")
    assert all("holds 6 images, expected at least 40" in error.value for error in app.error)
    assert len(app.error) == 2


def test_commands_have_the_paths_as_one_would_type_them(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(runs / "toy" / "traces")
    monkeypatch.chdir(runs.parent)
    for given in ("runs", str(runs)):
        monkeypatch.setenv("DEEDIFF_RUNS", given)
        assert command(open_app("trends"), "deediff sample").startswith("deediff sample runs/toy --policy")
    (runs.parent / "elsewhere").mkdir()
    monkeypatch.chdir(runs.parent / "elsewhere")
    assert command(open_app("trends"), "deediff sample").startswith(f"deediff sample {runs / 'toy'} --policy")
    assert typed(Path("my runs/a")) == "'my runs/a'"
