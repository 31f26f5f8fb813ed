"""GFLOPs against a hand count and against published tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.analysis.cost import model_cost
from deediff.importing import import_exit_layers
from deediff.models import PRESETS, EarlyExitModel, UViT, UViTConfig


def with_exits(preset: str, uem: str = "mlp") -> EarlyExitModel:
    return EarlyExitModel(UViT(PRESETS[preset])).add_exits({"name": uem, "scope": "layer"})


def hand_count(c: UViTConfig) -> tuple[float, float, float]:
    """GMACs of a block without a skip, of one with, and of the whole network, from the paper's shapes."""
    patches, d = (c.img_size // c.patch_size) ** 2, c.embed_dim
    tokens, hidden, pixels = patches + 1, int(d * c.mlp_ratio), c.patch_size**2 * c.in_chans
    linear = tokens * (3 * d * d + d * d + 2 * d * hidden)
    attention = 2 * tokens * tokens * d
    block, skip = linear + attention, tokens * 2 * d * d
    ends = 2 * patches * pixels * d + c.img_size**2 * 9 * c.in_chans**2
    total = (c.depth + 1) * block + c.depth // 2 * skip + ends
    return block / 1e9, (block + skip) / 1e9, total / 1e9


@pytest.mark.parametrize("preset", ["uvit_small", "uvit_tiny"])
def test_gflops_agree_with_a_hand_count(preset: str) -> None:
    cost = model_cost(with_exits(preset))
    block, block_with_skip, total = hand_count(PRESETS[preset])
    assert cost.full / 2 == pytest.approx(total, rel=1e-3)
    np.testing.assert_allclose(np.array(cost.blocks) / 2, [block] * 7 + [block_with_skip] * 6, rtol=1e-3)


def test_uvit_small_costs_what_is_published() -> None:
    """12.2 GMACs; 11.32 without the attention products (the blog's 22.75 GFLOPs leave them out and add norms)."""
    cost = model_cost(with_exits("uvit_small"))
    attention = 13 * 2 * 257 * 257 * 512 / 1e9
    assert cost.full / 2 == pytest.approx(12.20, abs=0.005)
    assert cost.full / 2 - attention == pytest.approx(11.32, abs=0.005)
    assert cost.uems[0] == pytest.approx(0.0002, abs=1e-4)
    assert model_cost(with_exits("uvit_small", "attention")).uems[0] == pytest.approx(0.26, abs=0.01)


def test_leaving_at_i_costs_i_blocks_and_every_uem_on_the_way() -> None:
    cost = model_cost(with_exits("uvit_tiny", "attention"))
    at = cost.at_exit(with_uem=True)
    assert at[0] == pytest.approx(cost.embed + cost.uems[0] + cost.heads[0])
    assert at[5] == pytest.approx(cost.embed + sum(cost.blocks[:5]) + sum(cost.uems[:6]) + cost.heads[5])
    assert at[12] == pytest.approx(cost.embed + sum(cost.blocks[:12]) + sum(cost.uems) + cost.heads[12])
    assert at[13] == pytest.approx(cost.full + sum(cost.uems))
    assert cost.at_exit(with_uem=False)[13] == pytest.approx(cost.full)


def published(shared: Path) -> dict[str, float]:
    """Layer reduction in per cent that Tables 1 and 3 print, by the names of the sets of exit layers."""
    results = json.loads((shared / "reference" / "published_results.json").read_text())
    table1 = {f"{r['uem']}_{r['scope']}_{r['backbone']}": r for r in results["table1"] if r["uem"]}
    table3 = {f"{r['uem']}_layer_finetuned_4losses": r for r in results["table3_finetuned"] if r["losses"] == 4}
    return {name: abs(row["layer_reduction_pct"]) for name, row in {**table1, **table3}.items()}


def test_published_exit_layers_give_the_published_layer_ratios(shared: Path, tmp_path: Path) -> None:
    run = import_exit_layers(shared / "reference" / "published_exit_layers.npz", tmp_path / "published")
    rows, checked = published(shared), 0
    for folder in sorted((run / "traces").iterdir()):
        trace = deediff.read_trace(folder)
        assert trace.images(range(4)) == []
        assert trace.why_no_what_if is not None
        assert 100 * (1 - trace.meta["layer_ratio"]) == pytest.approx(rows[folder.name], abs=0.15)
        checked += 1
    assert checked == 10


def test_a_folder_of_tensors_gives_the_same_trace_as_the_archive(shared: Path, tmp_path: Path) -> None:
    source = shared / "reference" / "duodiff_indices" / "attention_frozen"
    run = import_exit_layers(source, tmp_path / "one")
    trace = deediff.read_trace(run / "traces" / "attention_frozen")
    archive = np.load(shared / "reference" / "published_exit_layers.npz")["attention_layer_frozen"]
    expected = np.sort(archive[::-1].astype(np.int8), axis=1)  # the files' order is not the archive's
    np.testing.assert_array_equal(np.sort(trace.exit_layers().T, axis=1), expected)
    assert trace.timesteps[0] == 999
    assert trace.exit_layers()[:, 0].max() <= 3  # very early at t = 999
    assert trace.exit_layers()[:, -1].min() == 13  # never at t = 0
