"""Maps of u over the image: their mean is the recorded u, and recording them changes nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import deediff
from deediff.checkpoints import save_checkpoint
from deediff.cli import main
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.models import EarlyExitModel, UViT
from deediff.recording import maps as maps_module
from tests.conftest import TINY, make_model, make_run, sample_trace

STEPS, SAMPLES = 5, 5


def watched(config=TINY, **uem: object) -> EarlyExitModel:
    """A model whose UEMs look at the image's tokens only, so that u is the mean of its map."""
    torch.manual_seed(0)
    model = make_model(config=config)
    old = model.uem
    model.add_exits({"name": "mlp", "tokens": "image", **uem})
    with torch.no_grad():
        for position, layer in enumerate(model.uem.layers):
            values = model.uem.values[position]
            rows = slice(position * values, (position + 1) * values)
            spread = torch.linspace(0.9, 1.1, values)[:, None]
            model.uem.weight[rows], model.uem.bias[rows] = old.weight[layer] * spread, old.bias[layer]
    return model.eval().requires_grad_(False)


def make_trace(run: Path, name: str, policy: str = "threshold:0.5", **settings: object) -> deediff.Trace:
    folder = run / "traces" / name
    arguments = {"solver": "ddpm", "steps": STEPS, "seed": 3, "batch_size": 2, **settings}
    sample_trace(run, folder, SAMPLES, policy, **arguments)  # type: ignore[arg-type]
    return deediff.read_trace(folder)


def recorded(trace: deediff.Trace) -> np.ndarray:
    return np.concatenate([trace.uncertainty(part) for part in trace.parts])


@pytest.mark.parametrize(
    ("uem", "side"),
    [({}, 4), ({"map": True}, 16), ({"layers": [1, 4, 9]}, 4), ({"scope": "layer", "aggregation": "sum"}, 4)],
)
@pytest.mark.parametrize("record", ["exit", "full"])
def test_the_mean_of_a_map_is_the_recorded_u(tmp_path: Path, uem: dict, side: int, record: str) -> None:
    run = make_run(tmp_path / "run", watched(**uem))
    trace = make_trace(run, "t", record=record, maps=[0, 4])
    assert trace.map_samples == [0, 4]
    u = recorded(trace)
    assert len(np.unique(trace.exit_layers())) > 1
    for number in (0, 4):
        maps = trace.maps(number)
        assert maps.shape == (STEPS, 13, side, side)
        np.testing.assert_allclose(maps.mean(axis=(2, 3)), u[number], atol=1e-3)  # float16; NaN equals NaN
        assert np.nanmax(maps.std(axis=(2, 3))) > 1e-3


def test_a_map_of_all_tokens_shows_those_of_the_image() -> None:
    model = make_model()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    found = model.uncertainty_maps(x, t)
    for i, state in zip(range(13), model.backbone.states(x, t), strict=False):
        by_token = (state @ model.uem.weight[i] + model.uem.bias[i]).sigmoid()  # (B, 1 + 16)
        torch.testing.assert_close(found[i].flatten(1), by_token[:, 1:])
        torch.testing.assert_close(model.uncertainty(i, state, t), by_token.mean(dim=1))


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_patches_go_back_where_they_came_from(patch_size: int) -> None:
    net, image = UViT(replace(TINY, patch_size=patch_size)), torch.randn(2, 3, 16, 16)
    assert torch.equal(net.unpatchify(net.patchify(image)), image)
    means = net.patchify(image).mean(dim=2, keepdim=True)  # one value per token
    expected = torch.nn.functional.avg_pool2d(image.mean(dim=1, keepdim=True), patch_size)
    torch.testing.assert_close(net.unpatchify(means), expected)


def test_asking_for_maps_changes_nothing_else_and_can_be_done_later(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", watched())
    plain, asked = make_trace(run, "plain"), make_trace(run, "asked", maps=range(2))
    for file in plain.path.glob("*.parquet"):
        assert file.read_bytes() == (asked.path / file.name).read_bytes()
    ours, theirs = (read_json(trace.path / "trace.json") for trace in (plain, asked))
    assert {**ours, "wall_seconds": 0} == {**theirs, "wall_seconds": 0}
    assert plain.map_samples == []
    with pytest.raises(UserError, match=r"holds no maps of sample 1: 'deediff maps .* --samples 1:2' adds"):
        plain.maps(1)
    later = make_trace(run, "plain", maps=range(2))
    np.testing.assert_array_equal(later.maps(1), asked.maps(1))
    assert not list(later.path.glob("timing-*"))


def test_resuming_computes_what_is_missing_and_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", watched())
    computed: list[int] = []
    compute = maps_module.compute_maps

    def dies(trace, number, *arguments):
        if number == 2 and len(computed) < 3:
            raise KeyboardInterrupt
        computed.append(number)
        return compute(trace, number, *arguments)

    monkeypatch.setattr(maps_module, "compute_maps", dies)
    with pytest.raises(KeyboardInterrupt):
        make_trace(run, "t", maps=range(4))
    assert deediff.read_trace(run / "traces" / "t").map_samples == [0, 1]
    computed += [-1]
    assert make_trace(run, "t", maps=range(4)).map_samples == [0, 1, 2, 3]
    assert computed == [0, 1, -1, 2, 3]


def test_a_cancelled_map_is_not_written(tmp_path: Path) -> None:
    run, seen = make_run(tmp_path / "run", watched()), []
    trace = make_trace(run, "t", maps=range(2), on_step=seen.append, cancelled=lambda: len(seen) == 3 * STEPS + 7)
    assert trace.meta.complete
    assert trace.map_samples == [0]


def test_each_process_computes_its_own_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", watched())
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, samples in (("1", [1, 3]), ("0", [0, 1, 2, 3])):
        monkeypatch.setenv("RANK", rank)
        assert make_trace(run, "t", maps=range(4)).map_samples == samples


def test_under_guidance_a_map_is_the_larger_of_both_halves(tmp_path: Path) -> None:
    model = watched(replace(TINY, num_classes=4))
    model.null_label = True
    run = make_run(tmp_path / "run", model)
    trace = make_trace(run, "t", "never", record="full", classes=[2, 0], guidance=2.0, maps=[1])
    x = deediff.diffusion.noise.sample_noise(3, [1], 0, model.image_shape)
    t = torch.tensor([trace.timesteps[0]])
    halves = [model.uncertainty_maps(x, t, torch.tensor([label]))[:, 0] for label in (0, 3)]
    np.testing.assert_allclose(trace.maps(1)[0], torch.maximum(*halves).numpy(), atol=1e-3)


def test_no_map_where_another_network_took_the_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", watched())
    shallow = EarlyExitModel(UViT(replace(TINY, depth=2)))
    save_checkpoint(tmp_path / "s" / "checkpoints" / "1.safetensors", shallow, Schedule(), 1, 1)
    trace = make_trace(run, "t", f"dual:500:{tmp_path / 's'}", record="full", maps=[0])
    shallow_steps = np.array(trace.timesteps) >= 500
    assert np.isnan(trace.maps(0)[shallow_steps]).all()
    np.testing.assert_allclose(trace.maps(0).mean(axis=(2, 3)), recorded(trace)[0], atol=1e-3)


def test_what_has_no_maps_says_so_before_anything_is_sampled(tmp_path: Path) -> None:
    attention = make_model().add_exits({"name": "attention", "num_heads": 2})
    for name, model, policy, samples, sentence in (
        ("a", attention, "threshold:0.5", [0], "give one value per image"),
        ("b", watched(), "never", [0], r"a policy that evaluates the UEMs, .* or --record full"),
        ("c", watched(), "threshold:0.5", range(4, 6), r"the trace has no sample 5 to map, expected 0 … 4"),
    ):
        run = make_run(tmp_path / name, model)
        with pytest.raises(UserError, match=sentence):
            make_trace(run, "t", policy, maps=samples)
        assert not (run / "traces").exists()


def test_a_damaged_map_is_a_sentence(tmp_path: Path) -> None:
    trace = make_trace(make_run(tmp_path / "run", watched()), "t", maps=[0])
    file = trace.path / "maps-00000.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"maps-00000\.npz is not a readable file of maps"):
        trace.maps(0)


def test_a_trace_without_its_rows_can_still_be_mapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", watched())
    trace, asked = make_trace(run, "plain"), make_trace(run, "asked", maps=[2])
    for rows in trace.path.glob("part-*"):
        rows.unlink()
    assert main(["maps", str(trace.path), "--samples", "2:3", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples_with_maps"] == [2]
    np.testing.assert_array_equal(trace.maps(2), asked.maps(2))
    assert not list(trace.path.glob("part-*"))
    assert main(["maps", str(trace.path), "--samples", "9:10"]) == 2
    assert "has no sample 9" in capsys.readouterr().err
    (run / "checkpoints" / "7.safetensors").rename(tmp_path / "elsewhere.safetensors")
    assert main(["maps", str(trace.path), "--samples", "0:1"]) == 2
    assert "or 7.safetensors is missing there" in capsys.readouterr().err


def test_the_command_takes_a_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", watched())
    command = ["sample", str(run), "--policy", "threshold:0.5", "--steps", "2", "--num-samples", "4", "--json"]
    assert main([*command, "--out", str(run / "traces" / "t"), "--maps", "1:3"]) == 0
    assert deediff.read_trace(json.loads(capsys.readouterr().out)["trace"]).map_samples == [1, 2]
    for bad in ("3", "2:2", "a:b"):
        assert main([*command, "--out", "nowhere", "--maps", bad]) == 2
        assert "--maps" in capsys.readouterr().err
