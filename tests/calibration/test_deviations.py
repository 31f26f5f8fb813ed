"""The distance of exits and other networks from the full network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deediff.calibration.deviations import deviations
from deediff.cli import main
from deediff.datasets import to_model_range
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from tests.calibration.fixtures import IMAGES, MODEL
from tests.conftest import TINY, make_model, make_run


def test_it_is_the_rms_of_the_difference_of_predictions() -> None:
    schedule, x0 = Schedule(), to_model_range(IMAGES)
    found = deviations([MODEL], schedule, x0, [0, 600], batch_size=5)
    assert [layer for _, layer in found] == list(range(14))
    assert found[0, 13] == [0, 0]
    t = torch.tensor([600 + int((k + 0.5) / 12 * 400) for k in range(12)])
    x = schedule.add_noise(x0, t, sample_noise(0, range(12), 0, MODEL.image_shape))
    predictions, _ = MODEL.all_exits(x, t)
    for layer in (0, 3, 12):
        expected = float((predictions[layer] - predictions[-1]).square().mean().sqrt())
        assert found[0, layer][1] == pytest.approx(expected, rel=1e-4)


def test_another_network_is_compared_with_the_first(tmp_path: Path, image_folder: Path, capsys) -> None:
    shallow = make_model(1, replace(TINY, depth=2))
    shallow.uem = shallow.heads = None
    runs = [make_run(tmp_path / "deep", MODEL), make_run(tmp_path / "shallow", shallow)]
    common = ["deviations", *map(str, runs), "--dataset", str(image_folder), "--images", "6", "--device", "cpu"]
    assert main([*common, "--from-timesteps", "716", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["exits"]
    assert [(row["checkpoint"], row["exit_layer"]) for row in rows] == [
        *((str(runs[0]), layer) for layer in range(14)),
        (str(runs[1]), 3),
    ]
    values = [row["rms t=716..999"] for row in rows]
    assert values[13] == 0 < min(values[:13] + values[14:])
    for edges, sentence in (("500 100", "expected ascending timesteps of 0 … 999"), ("1000", "expected ascending")):
        assert main([*common, "--from-timesteps", *edges.split()]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(replace(TINY, num_classes=3), "unconditional networks only"), (replace(TINY, img_size=32), "images of shape")],
)
def test_networks_that_cannot_be_compared_are_refused(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str], config, sentence: str
) -> None:
    runs = [make_run(tmp_path / "one", MODEL), make_run(tmp_path / "other", make_model(config=config))]
    assert main(["deviations", *map(str, runs), "--dataset", str(image_folder), "--device", "cpu"]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
