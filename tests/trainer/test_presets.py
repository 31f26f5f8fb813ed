"""Every preset, made small on the command line, trains and samples."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deediff
from deediff.models import UNetConfig
from trainer.presets import METHODS, PRESETS
from trainer.run import main

SMALL = shlex.split(
    "--model.img-size 16 --model.patch-size 4 --model.embed-dim 64 --model.num-heads 2 "
    "--backbone.steps 20 --backbone.batch-size 4 --exits.batch-size 4 --device cpu --log-every 1 --sample-every 0"
)
SMALL_UNET = shlex.split("--model.img-size 16 --model.channels 8 16 --model.attention 8 --model.norm-groups 4")


@pytest.mark.parametrize("name", list(PRESETS))
def test_each_preset_trains_20_steps_and_samples(
    image_folder: Path, class_folder: Path, tmp_path: Path, name: str
) -> None:
    config, run = PRESETS[name][1], tmp_path / "run"
    exits = ["--exits.steps", "20"] if config.exits.steps else []
    small, data = SMALL, ["--dataset", str(image_folder)]
    if isinstance(config.model, UNetConfig):
        small = [*SMALL_UNET, *SMALL[SMALL.index("--backbone.steps") :]]
    if config.model.num_classes:  # three, and none
        data = ["--dataset", str(class_folder), "--model.num-classes", "4"]
    assert main([name, *small, *exits, *data, "--out", str(run)]) == 0
    assert json.loads((run / "run.json").read_text())["config"]["strategy"] == config.strategy
    terms = pd.read_parquet(run / "metrics.parquet")
    stages = (["backbone"] * 20 if config.strategy != "scratch" else []) + ["exits"] * 20 * bool(exits)
    assert terms["stage"].tolist() == stages
    if exits:  # the three or four terms, each for itself, and their sum
        m, last = config.method, terms[terms["stage"] == "exits"]
        whole = last["loss_simple"] + m.lambda_u * last["loss_uncertainty"] + m.beta_ual * last["loss_ual"]
        whole += m.layer_weight * last["loss_layer"]
        np.testing.assert_allclose(last["loss_total"], whole, rtol=1e-5)
        assert (last[["loss_simple", "loss_uncertainty", "loss_ual", "loss_layer"]] > 0).all(axis=None)
    model = deediff.load(run)
    steps = list(deediff.sample(model, num_samples=2, policy="threshold:1" if exits else "never", steps=2))
    first = min(model.uem.layers) if model.uem else model.num_blocks
    assert all((step.exit_layer == first).all() for step in steps)


def test_a_sources_preset_has_every_error_of_its_code_and_no_other_preset_has_any() -> None:
    sources = {
        "first_timestep": "blog",
        "sum_over_batch": "blog",
        "weight_by_target": "blog",
        "share_weights": "adadiff",
    }
    for name, (_, config) in PRESETS.items():
        for error, source in sources.items():
            assert getattr(config.method, error) == (name == source), (name, error)
        assert config.method.detach_target == (name != "blog"), name


def test_a_run_from_before_an_option_was_added_is_the_same_run(image_folder: Path, tmp_path: Path) -> None:
    command = ["uvit_tiny", *SMALL, "--backbone.steps", "2", "--exits.steps", "2", "--dataset", str(image_folder)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    del info["config"]["method"]["share_weights"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert main([*command, "--method.share-weights", "--out", str(tmp_path / "run")]) == 2


def test_each_source_made_its_own_choices() -> None:
    blog, paper, adadiff = (METHODS[name] for name in ("blog", "paper", "adadiff"))
    assert blog.uem_config() | {"first_timestep": False} == METHODS["ours"].uem_config()
    assert (blog.heads, PRESETS["blog"][1].strategy) == ("each", "frozen")
    assert (paper.scope, paper.timestep_embedding) == ("timestep", True)  # w_t and b_t on [L, t] (Eq. 5)
    assert PRESETS["paper"][1].strategy == "scratch"
    assert adadiff.map
    assert adadiff.detach
    assert adadiff.heads == "decoder"
    assert adadiff.lambda_u == pytest.approx(1 / 13)
    assert min(adadiff.layers) == 1  # it reads the outputs of blocks: there is no exit before the first
