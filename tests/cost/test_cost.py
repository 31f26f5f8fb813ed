"""GFLOPs against a hand count, another counter, and published tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import deediff
from deediff.cost.calls import component_calls
from deediff.cost.components import model_components, model_cost, parameters_used
from deediff.cost.cost import Cost
from deediff.cost.table import component_table, exit_cost_table
from deediff.importing.exit_layers import import_exit_layers
from deediff.models import PRESETS, BackboneConfig, DiTConfig, EarlyExitModel, UViT, UViTConfig, make_backbone

CONDITIONAL = UViTConfig(32, 8, embed_dim=64, depth=4, num_heads=2, num_classes=10, mlp_time_embed=True)
CONDITIONALS = [CONDITIONAL, DiTConfig(32, 8, 3, embed_dim=64, depth=4, num_heads=2, num_classes=10)]
UEM_VARIANTS = [
    {"name": "mlp", "scope": "layer"},
    {"name": "mlp", "scope": "timestep"},
    {"name": "mlp", "scope": "layer_timestep", "layers": [1, 3]},
    {"name": "mlp", "map": True, "timestep_embedding": True, "aggregation": "max"},
    {"name": "attention", "num_heads": 2},
]


def with_exits(preset: str, uem: str = "mlp") -> EarlyExitModel:
    return EarlyExitModel(UViT(PRESETS[preset])).add_exits({"name": uem, "scope": "layer"})


def hand_count(c: UViTConfig) -> tuple[int, int, int, int]:
    """MACs of a block's linear maps, of its skip's, of its two attention products, and of both ends."""
    patches, d = (c.img_size // c.patch_size) ** 2, c.embed_dim
    tokens, hidden, pixels = patches + 1, int(d * c.mlp_ratio), c.patch_size**2 * c.in_chans
    linear = tokens * (3 * d * d + d * d + 2 * d * hidden)  # qkv, projection, MLP
    skip = tokens * 2 * d * d
    attention = 2 * tokens * tokens * d  # q kᵀ, and its product with v, over all heads
    ends = 2 * patches * pixels * d + c.img_size**2 * 9 * c.in_chans**2  # patches in and out, 3×3 convolution
    return linear, skip, attention, ends


@pytest.mark.parametrize("preset", ["uvit_small", "uvit_tiny"])
def test_macs_agree_with_a_hand_count(preset: str) -> None:
    linear, skip, attention, ends = hand_count(PRESETS[preset])
    parts = model_components(with_exits(preset))
    assert [block.macs for block in parts.blocks] == [linear] * 7 + [linear + skip] * 6
    assert [block.attention_macs for block in parts.blocks] == [attention] * 13
    assert parts.embed.macs + parts.decode.macs == ends
    cost = model_cost(with_exits(preset))
    assert cost.without_attention is not None
    assert cost.without_attention.full == pytest.approx(2 * (13 * linear + 6 * skip + ends) / 1e9, rel=1e-12)
    assert cost.full - cost.without_attention.full == pytest.approx(2 * 13 * attention / 1e9, rel=1e-9)


def test_norms_and_elementwise_operations_are_counted_separately() -> None:
    parts, tokens, d = model_components(with_exits("uvit_small")), 257, 512
    assert [block.norm_ops for block in parts.blocks] == [2 * 5 * tokens * d] * 13
    assert parts.decode.norm_ops == 5 * 256 * d
    additions, gelu, softmax = 2 * tokens * d, tokens * 4 * d, 5 * 8 * tokens * tokens
    assert parts.blocks[0].elementwise_ops == additions + gelu + softmax
    assert parts.blocks[0].gflops() == 2 * (parts.blocks[0].macs + parts.blocks[0].attention_macs) / 1e9


@pytest.mark.parametrize("uem", UEM_VARIANTS, ids=lambda uem: "-".join(map(str, uem.values())))
@pytest.mark.parametrize("config", CONDITIONALS, ids=lambda config: type(config).__name__)
def test_macs_are_those_of_another_counter(config: BackboneConfig, uem: dict) -> None:
    """Torch's counter, on an explicit attention: on the CPU it misses the fused one."""
    model = EarlyExitModel(make_backbone(config)).add_exits(uem)
    parts = {part.name: part for part in model_components(model)}
    calls = component_calls(model)
    assert list(parts) == list(calls)
    for name, call in calls.items():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            call.run()
        assert 2 * (parts[name].macs + parts[name].attention_macs) == counter.get_total_flops(), name


def test_uvit_small_costs_what_is_published() -> None:
    """12.2 GMACs; 11.32 without the attention products (the blog's 22.75 GFLOPs leave them out)."""
    cost = model_cost(with_exits("uvit_small"))
    assert cost.without_attention is not None
    assert cost.full / 2 == pytest.approx(12.20, abs=0.005)
    assert cost.without_attention.full / 2 == pytest.approx(11.32, abs=0.005)
    assert cost.without_attention.full == pytest.approx(22.75, rel=0.006)


def test_the_published_component_table_cuts_its_digits_off(shared: Path) -> None:
    """The probes' 0.269 and 0.00026 are printed as 0.26 and 0.0002: cut, not rounded.

    Read so, the head's 0.0035 is our 0.0033 and its norm at one MAC per element. (Without the norm it
    is 0.0033; with the norm as fvcore counts it, 5 per element, 0.0046.)
    """
    table = json.loads((shared / "reference" / "published_results.json").read_text())["table2_gflops"]
    mlp, attention = (model_components(with_exits("uvit_small", uem)) for uem in ("mlp", "attention"))
    probes = [parts.uems[0] for parts in (mlp, attention)]
    assert all(probes)
    macs = {"mlp_probe": probes[0].macs, "attention_probe": probes[1].macs + probes[1].attention_macs}
    head = mlp.heads[0]
    macs["output_head"] = head.macs + head.norm_ops // 5
    for name, digits in (("attention_probe", 2), ("mlp_probe", 4), ("output_head", 4)):
        assert math.floor(2 * macs[name] / 1e9 * 10**digits) / 10**digits == table[name]
    assert head.gflops() == pytest.approx(0.0033, abs=5e-5)
    assert 2 * (head.macs + head.norm_ops) / 1e9 == pytest.approx(0.0046, abs=5e-5)


def test_parameters_are_those_that_a_component_uses() -> None:
    model = with_exits("uvit_small", "attention")
    used = parameters_used(model)
    assert sum(used.values()) == sum(p.numel() for p in model.parameters())  # no parameter is shared
    d, hidden = 512, 2048
    linear, norms = 3 * d * d + (d * d + d) + (d * hidden + hidden) + (hidden * d + d), 2 * 2 * d
    assert used["block 0"] == linear + norms
    assert used["block 7"] == linear + norms + 2 * d * d + d
    assert used["patch embedding"] == (12 * d + d) + 257 * d
    assert used["UEM 3"] == d + (d * 2 * d + 2 * d) + (d * d + d) + (d + 1)
    assert used["head 3"] == used["final layers"] == 2 * d + (12 * d + 12) + (3 * 3 * 9 + 3)
    shared = EarlyExitModel(UViT(CONDITIONAL)).add_exits({"name": "mlp", "scope": "timestep"}, "decoder")
    used = parameters_used(shared)
    assert used["UEM 0"] == used["UEM 4"] == 1000 * 65
    assert used["head 0"] == used["final layers"]


def test_the_tables_add_up() -> None:
    model = EarlyExitModel(UViT(CONDITIONAL)).add_exits({"name": "mlp", "layers": [1, 3]})
    seconds = {name: float(i + 1) for i, name in enumerate(component_calls(model))}
    *parts, full = component_table(model, seconds)
    backbone = [row for row in parts if row["component"].split()[0] in ("patch", "block", "final")]
    for column in set(full) - {"component"}:
        assert full[column] == pytest.approx(sum(row[column] for row in backbone)), column
    exits = {row["exit_layer"]: row for row in exit_cost_table(model, seconds)}
    rows = {row["component"]: row for row in parts}
    names = ["patch embedding", "block 0", "block 1", "UEM 1", "head 2"]
    for column in ("gmacs", "gflops", "gmacs_without_attention", "gflops_without_attention", "ms"):
        assert exits[2][column] == pytest.approx(sum(rows[name][column] for name in names)), column
        uems = rows["UEM 1"][column] + rows["UEM 3"][column]
        assert exits[5][column] == pytest.approx(full[column] + uems), column


def test_a_cost_survives_its_file_and_its_multiples() -> None:
    cost, shallow = model_cost(with_exits("uvit_tiny")), model_cost(with_exits("uvit_shallow"))
    plain = shallow.without_attention
    assert plain is not None
    whole = cost.times(2).with_fixed([2 * shallow.full, None], [2 * plain.full, None])
    assert Cost.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    assert whole.without_attention is not None
    assert whole.without_attention.fixed == [2 * plain.full, None]
    assert whole.full == pytest.approx(2 * cost.full)
    before_plans = {**cost.to_json(), "shallow": 0.5, "shallow_steps": 2}
    del before_plans["fixed"]
    assert Cost.from_json(before_plans).fixed == [0.5, 0.5]
    old = {key: value for key, value in cost.to_json().items() if key != "without_attention"}
    assert Cost.from_json(old).without_attention is None


def test_exit_i_costs_i_blocks_and_every_uem_up_to_it() -> None:
    cost = model_cost(with_exits("uvit_tiny", "attention"))
    at = cost.at_exit(with_uem=True)
    assert at[0] == pytest.approx(cost.embed + cost.uems[0] + cost.heads[0])
    assert at[5] == pytest.approx(cost.embed + sum(cost.blocks[:5]) + sum(cost.uems[:6]) + cost.heads[5])
    assert at[12] == pytest.approx(cost.embed + sum(cost.blocks[:12]) + sum(cost.uems) + cost.heads[12])
    assert at[13] == pytest.approx(cost.full + sum(cost.uems))
    assert cost.at_exit(with_uem=False)[13] == pytest.approx(cost.full)


def published(shared: Path) -> dict[str, dict[str, float]]:
    """Rows of Tables 1 and 3, by the names of the sets of exit layers."""
    results = json.loads((shared / "reference" / "published_results.json").read_text())
    table1 = {f"{r['uem']}_{r['scope']}_{r['backbone']}": r for r in results["table1"] if r["uem"]}
    table3 = {f"{r['uem']}_layer_finetuned_4losses": r for r in results["table3_finetuned"] if r["losses"] == 4}
    return {**table1, **table3}


def test_published_exit_layers_give_the_published_tables(shared: Path, tmp_path: Path) -> None:
    """Layer ratios to 0.15 percentage points, GFLOPs to 0.6 %: the tables leave the attention products out."""
    run = import_exit_layers(shared / "reference" / "published_exit_layers.npz", tmp_path / "published")
    rows, checked = published(shared), 0
    for folder in sorted((run / "traces").iterdir()):
        trace, row = deediff.read_trace(folder), rows[folder.name]
        assert trace.images(range(4)) == []
        assert trace.why_no_what_if is not None
        assert 100 * (1 - trace.meta.layer_ratio) == pytest.approx(abs(row["layer_reduction_pct"]), abs=0.15)
        plain = trace.cost.without_attention
        assert plain is not None
        assert plain.mean_gflops(trace.summary.exits, with_uem=True) == pytest.approx(row["gflops"], rel=0.006)
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
