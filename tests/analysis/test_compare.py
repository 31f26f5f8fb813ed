"""The comparison table: its rows, which values may share a column, published values, and every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deediff
from deediff.analysis.compare import COLUMNS, PARTS, TEXT, comparison_table
from deediff.analysis.origin import origin_of
from deediff.analysis.published import FULL, TABLES, published_for
from deediff.checkpoints import save_checkpoint
from deediff.cli import main
from deediff.cost.cost import Cost
from deediff.diffusion.schedule import Schedule
from deediff.importing.exit_layers import import_exit_layers
from deediff.json_files import read_json, write_json
from deediff.models import PRESETS, EarlyExitModel, UViT
from deediff.quality.results import Quality, write_quality
from deediff.traces.meta import TraceMeta
from deediff.traces.reader import Trace
from tests.conftest import make_run, sample_trace

FID = Quality(
    metric="fid",
    extractor="inception-v3",
    value=12.5,
    low=11.25,
    high=13.75,
    interval="jackknife",
    images=3,
    reference="cifar10-train",
    reference_key="ab" * 32,
    reference_images=50_000,
    floor=4.0,
    floor_spread=0.25,
    floor_source="cifar10-test, 4 draws",
    device="cpu",
)


@pytest.fixture
def traces(tmp_path: Path) -> list[Trace]:
    """The full network, an early exit, and fewer images of it."""
    run, settings = make_run(tmp_path / "run"), (("never", 3), ("threshold:0.5", 3), ("threshold:0.5", 2))
    for number, (policy, images) in enumerate(settings):
        sample_trace(run, run / "traces" / str(number), images, policy, steps=2, batch_size=4)
    return [deediff.read_trace(run / "traces" / str(number)) for number in range(3)]


def test_an_image_costs_all_its_steps(traces: list[Trace]) -> None:
    table = comparison_table(traces)
    assert list(table) == [name for name in COLUMNS if not name.startswith(("quality", "published"))]
    np.testing.assert_allclose(table["gflops_per_image"], 2 * table["gflops_per_step"])
    assert (table["gflops_per_step_without_attention"] < table["gflops_per_step"]).all()
    assert table["seconds_per_image"][1] == pytest.approx(traces[1].meta.wall_seconds / 3)
    assert table["uem"].tolist() == ["mlp per layer"] * 3


def test_one_protocol_is_one_column(traces: list[Trace]) -> None:
    for trace, value in zip(traces[:2], (12.5, 20.0), strict=True):
        write_quality(trace.path, [replace(FID, value=value)])
    table = comparison_table(traces)
    assert table["fid"].tolist()[:2] == [12.5, 20.0]
    assert np.isnan(table["fid"][2])  # never evaluated
    assert [table[f"fid_{part}"][0] for part in PARTS] == [11.25, 13.75, 4.0, 0.25]
    protocol = table["quality_protocol"][0]
    for word in ("inception-v3", "3 images", "50000 of cifar10-train", "jackknife", "cifar10-test, 4 draws"):
        assert word in protocol


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"extractor": "fd-cifar"}, ("fid (inception-v3)", "fid (fd-cifar)")),
        ({"images": 2}, ("fid (N = 3)", "fid (N = 2)")),
        ({"reference": "photos", "reference_key": "cd" * 32}, ("fid (cifar10-train)", "fid (photos)")),
        ({"reference_key": "cd" * 32}, ("fid (cifar10-train abababab)", "fid (cifar10-train cdcdcdcd)")),
        ({"extractor": "x", "images": 2}, ("fid (inception-v3, N = 3)", "fid (x, N = 2)")),
        ({"metric": "kid"}, ("fid", "kid")),
    ],
)
def test_values_of_different_protocols_never_share_a_column(
    traces: list[Trace], change: dict, names: tuple[str, str]
) -> None:
    write_quality(traces[0].path, [FID])
    write_quality(traces[1].path, [replace(FID, value=99.0, **change)])
    table = comparison_table(traces[:2])
    ours, theirs = (table[name].tolist() for name in names)
    assert (ours[0], theirs[1]) == (12.5, 99.0)
    assert np.isnan(ours[1])
    assert np.isnan(theirs[0])


def test_quality_may_come_from_whoever_remembers_it(traces: list[Trace]) -> None:
    table = comparison_table(traces, quality=lambda trace: [replace(FID, value=float(trace.path.name))])
    assert table["fid"].tolist() == [0.0, 1.0, 2.0]


def test_the_published_lines_are_the_tables(shared: Path) -> None:
    results = json.loads((shared / "reference" / "published_results.json").read_text())
    scopes = {"layer": "per layer", "timestep": "per timestep", "layer_timestep": "per layer and timestep"}
    rows = {(f"{r['uem']} {scopes[r['scope']]}", r["backbone"], "3", "0.075"): r for r in results["table1"] if r["uem"]}
    rows |= {(f"{r['uem']} per layer", "finetuned", str(r["losses"]), "0.075"): r for r in results["table3_finetuned"]}
    rows |= {(f"{r['uem']} per layer", "frozen", "3", f"{r['threshold']}"): r for r in results["table4_frozen"]}
    assert {key: (line.fid, line.layer_reduction, line.gflops) for key, line in TABLES.items()} == {
        key: (r["fid"], r["layer_reduction_pct"], r["gflops"]) for key, r in rows.items()
    }
    full = results["table1"][0]
    assert (FULL.fid, FULL.layer_ratio, FULL.gflops) == (full["fid"], 1.0, full["gflops"])


def test_imported_sets_stand_beside_their_own_line(tmp_path: Path) -> None:
    names = ("mlp_layer_frozen", "mlp_layer_timestep_finetuned", "attention_layer_finetuned_4losses", "mlp_mine")
    np.savez(tmp_path / "sets.npz", **{name: np.full((1000, 2), 13, np.int8) for name in names})
    run = import_exit_layers(tmp_path / "sets.npz", tmp_path / "others")
    table = comparison_table([deediff.read_trace(run / "traces" / name) for name in names])
    assert table["published_fid"].tolist()[:3] == [86.57, 133.35, 108.30]
    assert table["published_layer_ratio"][0] == pytest.approx(1 - 0.311)
    assert table["published_gflops_per_step_without_attention"].tolist()[:3] == [15.58, 14.68, 15.13]
    assert table["published_source"].tolist()[:3] == ["Table 1", "Table 1", "Table 3"]
    assert table.loc[3, ["published_fid", "published_source"]].isna().all()  # not published
    assert table["strategy"].tolist()[:3] == ["frozen", "finetuned", "finetuned"]
    assert table["losses"].tolist()[:3] == ["3", "3", "4"]
    assert table["gflops_per_step_without_attention"][0] == pytest.approx(22.65, abs=0.01)


CONFIG = {"strategy": "finetuned", "method": {"lambda_u": 1.0, "beta_ual": 1.0, "layer_weight": 1.0}}


def trained(tmp_path: Path, uem: dict, config: dict = CONFIG, **settings: object) -> Trace:
    """A trace of a U-ViT-S/2 as its files describe it; nothing is sampled."""
    run = tmp_path / "run"
    model = EarlyExitModel(UViT(replace(PRESETS["uvit_small"], embed_dim=8))).add_exits(uem)
    checkpoint = save_checkpoint(run / "checkpoints" / "7.safetensors", model, Schedule(), 7, 448)
    info = read_json(checkpoint.with_suffix(".json"))
    info["backbone"]["embed_dim"] = 512
    write_json(checkpoint.with_suffix(".json"), info)
    write_json(run / "run.json", {"format_version": 1, "status": "done", "dataset": "cifar10", "config": config})
    steps = settings.get("steps", 1000)
    assert isinstance(steps, int)
    meta = {
        "policy": "threshold:0.075",
        "solver": "ddpm",
        "steps": steps,
        "timesteps": list(range(steps))[::-1],
        "seed": 0,
        "num_samples": 1,
        "record": "exit",
        "has_uncertainty": True,
        "policy_needs_uncertainty": True,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": info["sha256"],
        "num_blocks": 13,
        "cost": Cost(0.1, [1.0] * 13, [0.0] * 13, [0.1] * 13, 0.1).to_json(),
    }
    return Trace(run / "traces" / "t", TraceMeta.from_json({**meta, **settings}), [], [])


def test_a_published_line_is_for_exactly_its_configuration(tmp_path: Path) -> None:
    def line(uem: dict, config: dict = CONFIG, **settings: object) -> float | None:
        trace = trained(tmp_path, uem, config, **settings)
        found = published_for(trace, origin_of(trace))
        return found and found.fid

    mlp = {"name": "mlp"}
    three = {"strategy": "frozen", "method": {"layer_weight": 0.0}}
    assert line(mlp) == 107.34
    assert line({"name": "attention", "num_heads": 2}) == 108.30
    assert line(mlp, three) == 86.57
    assert line(mlp, {"lambda_u": 1.0, "layer_weight": 0.0}) == 86.57  # as older runs write it: always frozen
    assert line(mlp, three, policy="threshold:0.05") == 79.71
    assert line(mlp, three, policy="never") == 79.34
    for others in (
        line(mlp, policy="threshold:0.05"),
        line(mlp, policy="threshold:0.075,min:3"),
        line(mlp, policy="never"),  # of a backbone that was trained on
        line(mlp, solver="ddim"),
        line(mlp, steps=500),
        line(mlp, guidance=2.0),
        line(mlp, recalibration_sha256="a"),
        line(mlp, checkpoint_sha256="of a checkpoint since replaced"),
        line({"name": "mlp", "map": True}),
        line({"name": "mlp", "timestep_embedding": True}),
        line({"name": "mlp", "layers": [3, 12]}),
        line(mlp, {"strategy": "finetuned", "method": {"lambda_u": 2.0, "layer_weight": 1.0}}),
    ):
        assert others is None


def with_none(table: pd.DataFrame) -> pd.DataFrame:
    """Missing values as None, for columns of any type."""
    return table.astype(object).where(table.notna(), None)


def test_every_format_holds_the_same_values(
    traces: list[Trace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_quality(traces[1].path, [FID])
    write_quality(traces[2].path, [replace(FID, metric="kid", value=0.375, low=None, high=None, floor=None)])
    paths = [str(trace.path) for trace in traces]
    table = comparison_table(traces)
    csv, parquet, tex = (tmp_path / name for name in ("t.csv", "t.parquet", "t.tex"))
    for file in (csv, parquet, tex):
        assert main(["compare", *paths, "--out", str(file)]) == 0
    for read in (pd.read_csv(csv, dtype=dict.fromkeys(TEXT, str)), pd.read_parquet(parquet)):
        assert read.pop("run").tolist() == ["run"] * 3
        pd.testing.assert_frame_equal(with_none(read), with_none(table))
    capsys.readouterr()
    assert main(["compare", *paths]) == 0
    text = capsys.readouterr().out
    assert "12.5 [11.25, 13.75]" in text
    assert "4 ± 0.25" in text
    assert "0.375" in text  # without an interval
    assert "fid: inception-v3, 3 images against 50000 of cifar10-train; interval: jackknife" in text
    latex = tex.read_text()
    assert "12.5 [11.25, 13.75]" in latex
    rows = [line for line in latex.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 4
    assert len({row.count(" & ") for row in rows}) == 1
    assert "_" not in latex.replace(r"\_", "")
    assert main(["compare", *paths, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["traces"][1]["fid_high"] == 13.75


def test_bad_requests_are_one_sentence(traces: list[Trace], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(traces[0].path)
    (tmp_path / "file").write_text("not a folder")
    write_quality(traces[1].path, [FID])
    quality = traces[1].path / "quality.json"
    quality.write_text(quality.read_text()[:100])
    for args, sentence in (
        ([path, "--format", "parquet"], "give a file with --out"),
        ([path, "--out", str(tmp_path / "file" / "t.csv")], "cannot be written"),
        ([str(traces[1].path)], "quality.json"),
    ):
        assert main(["compare", *args]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert sentence in message
        assert message.count("\n") == 1
