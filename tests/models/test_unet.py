"""The U-Net of DDPM, against diffusers' network, and exits from stages of different resolutions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deediff import _torchvision  # noqa: F401  (before diffusers imports torchvision)
from deediff.cost.components import model_components, model_cost
from deediff.errors import UserError
from deediff.models import PRESETS, EarlyExitModel, UNet, UNetConfig, make_backbone
from deediff.models.uems import UEMS
from deediff.plans import Plan, PlanStep
from deediff.sampling import sample
from tests.conftest import TINY_UNET, make_model

X, T = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 500, 999])


@pytest.fixture
def model() -> EarlyExitModel:
    return make_model(config=TINY_UNET)


@pytest.mark.parametrize("head_dim", [0, 4])
def test_it_equals_the_network_of_diffusers(head_dim: int) -> None:
    import diffusers

    net = make_model(config=replace(TINY_UNET, head_dim=head_dim)).backbone
    theirs = diffusers.UNet2DModel(
        sample_size=16,
        center_input_sample=False,
        freq_shift=1,
        flip_sin_to_cos=False,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16, 16),
        downsample_padding=0,
        norm_num_groups=4,
        norm_eps=1e-6,
        attention_head_dim=head_dim or 16,
    )
    theirs.load_state_dict(net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net(X, T), theirs.eval()(X, T).sample, atol=1e-5, rtol=1e-5)


def test_unet_small_is_ddpms_network() -> None:
    """35.7 M parameters (Ho et al. 2020, appendix B)."""
    with torch.device("meta"):
        net = make_backbone(PRESETS["unet_small"])
    assert sum(p.numel() for p in net.parameters()) == 35_746_307
    assert net.num_blocks == 9


def test_states_have_a_token_per_pixel_of_their_stage(model: EarlyExitModel) -> None:
    net = model.backbone
    shapes = [tuple(state.shape[1:]) for state in net.states(X, T)]
    sides, widths = (16, 16, 8, 4, 4, 4, 8, 16), (8, 8 + 16, 8 + 32, 16 + 32, 16, 16, 16, 8)
    assert shapes == [(1 + side**2, width) for side, width in zip(sides, widths, strict=True)]
    assert [net.layer_dim(i) for i in range(8)] == list(widths)
    assert [net.layer_patch_dim(i) for i in range(8)] == [3 * (16 // side) ** 2 for side in sides]
    assert net.state_size == max(tokens * width for tokens, width in shapes)


def test_the_stages_know_the_timestep_without_being_told(model: EarlyExitModel) -> None:
    *states, _ = model.backbone.states(X[:1].expand(2, -1, -1, -1), torch.tensor([100, 800]))
    for i, state in enumerate(states):
        changed = state.clone()
        changed[0, 0] = state[1, 0]  # the timestep's token
        skip = model.backbone.skip_source(i)
        joined = None if skip is None else states[skip + 1]
        before, after = model.backbone.block(i, state, joined), model.backbone.block(i, changed, joined)
        assert not torch.allclose(before[0, 1:], after[0, 1:])
        assert torch.equal(before[1], after[1])


def test_values_of_a_token_go_to_the_pixels_of_its_place() -> None:
    net = UNet(TINY_UNET)
    for side in (16, 8, 4):
        p = 16 // side
        values = torch.zeros(1, side**2, 3 * p * p)
        values[0, side + 2] = torch.arange(1.0, 3 * p * p + 1)  # row 1, column 2
        image = net.unpatchify(values)
        assert image.shape == (1, 3, 16, 16)
        assert sorted(image[0, :, p : 2 * p, 2 * p : 3 * p].flatten().tolist()) == values[0, side + 2].tolist()
        assert image.count_nonzero() == values.count_nonzero()
        assert net.unpatchify(values[..., :1]).shape == (1, 1, side, side)


def test_each_exit_has_a_head_of_its_resolution_and_the_last_one_starts_as_the_networks(model: EarlyExitModel) -> None:
    fresh = EarlyExitModel(model.backbone).add_exits({"name": "mlp"})
    predictions, _ = fresh.all_exits(X, T)
    assert predictions.shape == (8, 3, 3, 16, 16)
    assert not predictions[1:-1].any()
    assert torch.equal(fresh.heads[0].conv.weight, model.backbone.conv_out.weight)


@pytest.mark.parametrize("uem", [{"name": "mlp"}, {"name": "mlp", "map": True}, {"name": "attention", "num_heads": 2}])
@pytest.mark.parametrize("layers", [None, [1, 4]])
def test_uems_read_states_of_every_width(uem: dict[str, object], layers: list[int] | None) -> None:
    assert set(UEMS) == {"mlp", "attention"}
    torch.manual_seed(0)
    model = EarlyExitModel(UNet(TINY_UNET)).add_exits({**uem, "layers": layers})
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        _, u = model.all_exits(X, T)
        found = sorted(range(7) if layers is None else layers)
        assert (~u.isnan()).all(dim=1).nonzero().flatten().tolist() == found
        assert ((u[found] > 0) & (u[found] < 1)).all()
        if uem["name"] == "mlp":
            maps = model.uncertainty_maps(X, T)
            assert maps.shape == (7, 3, 16, 16) if layers is None or "map" in uem else maps.shape[0] == 7
            assert (~maps.isnan()).all(dim=(1, 2, 3)).nonzero().flatten().tolist() == found


def test_a_map_has_a_value_for_every_pixel_and_channel_at_every_resolution() -> None:
    model = EarlyExitModel(UNet(TINY_UNET)).add_exits({"name": "mlp", "map": True})
    assert model.uem is not None
    for i, state in zip(range(7), model.backbone.states(X, T), strict=False):
        assert model.backbone.unpatchify(model.uem.map(i, state, T)).shape == (3, 3, 16, 16)


def test_maps_of_low_resolutions_are_repeated_at_the_finest(model: EarlyExitModel) -> None:
    maps = model.uncertainty_maps(X, T)
    blocks = maps[3].unflatten(1, (4, 4)).unflatten(3, (4, 4))  # layer 3 has 4×4 pixels
    assert torch.equal(blocks, blocks[:, :, :1, :, :1].expand_as(blocks))
    assert len(maps[3].unique()) > 16


@pytest.mark.parametrize("heads", ["shared", "decoder"])
def test_heads_that_would_have_to_read_all_shapes_are_refused(heads: str) -> None:
    with pytest.raises(ValueError, match=f"the states of a UNet differ in shape, so heads '{heads}' cannot read all"):
        EarlyExitModel(UNet(TINY_UNET)).add_exits({"name": "mlp"}, heads)


def test_uems_per_timestep_are_refused() -> None:
    with pytest.raises(ValueError, match="whose widths differ here: use scope 'layer'"):
        EarlyExitModel(UNet(TINY_UNET)).add_exits({"name": "mlp", "scope": "timestep"})


def test_the_cost_of_a_convolution_by_hand() -> None:
    parts = model_components(EarlyExitModel(UNet(TINY_UNET)).add_exits({"name": "mlp"}))
    assert parts.embed.macs == 16 * 16 * 9 * 3 * 8
    assert parts.decode.macs == parts.heads[0].macs == 16 * 16 * 9 * 8 * 3
    assert parts.heads[3].macs == 4 * 4 * 9 * (16 + 32) * 3 * 4 * 4
    time = 8 * 32 + 32 * 32 + 2 * 32 * 8  # the timestep's MLP, and its maps into two residual blocks
    assert parts.blocks[0].macs == time + 16 * 16 * 9 * 4 * 8 * 8
    assert parts.decode.norm_ops == 5 * 16 * 16 * 8
    cost = model_cost(EarlyExitModel(make_backbone(PRESETS["unet_small"])))
    assert cost.without_attention is not None
    assert cost.without_attention.full / 2 == pytest.approx(6.1, abs=0.05)  # GMACs, as Fang et al. 2023 print them


def test_memory_reads_exits_of_the_last_layers_shape_and_deep_all_others(model: EarlyExitModel) -> None:
    def plan(layer: int, readout: str) -> Plan:
        return Plan((PlanStep(900), PlanStep(500, layer, readout), PlanStep(100)), num_blocks=7)

    for layer, readout in ((0, "memory:0"), (2, "deep:2")):
        steps = list(sample(model, num_samples=2, plan=plan(layer, readout)))
        assert [int(step.exit_layer[0]) for step in steps] == [7, layer, 7]
    with pytest.raises(UserError, match="whose shape differs from that of layer 3"):
        sample(model, plan=plan(3, "memory:0"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"img_size": 18}, "image size 18 cannot be halved 2 times"),
        ({"channels": (6, 12)}, r"channels \(6, 12\) are not all multiples of the 4 groups"),
        ({"num_classes": 3}, "its classes 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(TINY_UNET, **fields)


def test_a_config_survives_json() -> None:
    assert UNetConfig(channels=[8, 16], attention=[4], norm_groups=4) == UNetConfig(  # type: ignore[arg-type]
        channels=(8, 16), attention=(4,), norm_groups=4
    )
