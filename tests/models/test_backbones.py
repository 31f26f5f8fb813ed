"""All other code depends on the `Backbone` interface alone: another backbone trains, calibrates and samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

import deediff
from deediff.analysis.origin import origin_of
from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.noise import sample_noise
from deediff.models import BACKBONES, Backbone, BackboneConfig, DiTConfig, EarlyExitModel, UNetConfig
from deediff.policies import make_policy
from deediff.sampling.forward import predict
from deediff.sampling.request import Request
from tests.conftest import sample_trace
from trainer.config import Method, Stage, TrainConfig
from trainer.loop import Training


@dataclass(frozen=True)
class MixerConfig(BackboneConfig):
    """Sizes of a `Mixer`."""

    img_size: int = 8
    in_chans: int = 3
    width: int = 16
    blocks: int = 5
    num_classes: int = 0

    def __str__(self) -> str:
        return f"a mixer of {self.blocks} blocks"


class Mixer(Backbone):
    """A token per row of pixels and none for the time, which is added; block 3 reads the output of block 0."""

    extras = 0

    def __init__(self, config: MixerConfig):
        super().__init__()
        self.cfg, self.num_blocks, self.dim = config, config.blocks, config.width
        self.img_size, self.in_chans, self.num_classes = config.img_size, config.in_chans, config.num_classes
        self.patch_dim = config.img_size * config.in_chans
        self.state_size = config.img_size * config.width
        self.enter, self.leave = nn.Linear(self.patch_dim, self.dim), nn.Linear(self.dim, self.patch_dim)
        self.time = nn.Linear(1, self.dim)
        self.layers = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in range(self.num_blocks))

    def embed(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.enter(rearrange(x, "b c h w -> b h (w c)")) + self.time(t[:, None, None] / 1000)

    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        mixed = state + state.flip(1).roll(1, dims=1)
        return state + self.layers[i](mixed).tanh() + (0 if skip is None else skip)

    def skip_source(self, i: int) -> int | None:
        return 0 if i == 3 else None

    def decode(self, state: Tensor) -> Tensor:
        return self.unpatchify(self.leave(state))

    def unpatchify(self, values: Tensor) -> Tensor:
        channels = self.in_chans if values.shape[2] == self.patch_dim else 1
        return rearrange(values, "b h (w c) -> b c h w", c=channels)

    def make_head(self, layer: int) -> nn.Module:
        return MixerHead(self)

    def config(self) -> dict[str, Any]:
        return {"name": "mixer", **asdict(self.cfg)}


class MixerHead(nn.Module):
    """A linear map."""

    def __init__(self, net: Mixer):
        super().__init__()
        self.leave, self.channels = nn.Linear(net.dim, net.patch_dim), net.in_chans

    def forward(self, state: Tensor) -> Tensor:
        return rearrange(self.leave(state), "b h (w c) -> b c h w", c=self.channels)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    BACKBONES["mixer"] = (MixerConfig, Mixer)
    yield
    del BACKBONES["mixer"]


CONFIGS = [
    MixerConfig(),
    DiTConfig(8, 4, 3, embed_dim=16, depth=4, num_heads=2, num_classes=0),
    UNetConfig(8, 3, channels=(8, 16), attention=(4,), norm_groups=4),
]
NAMES = ("a mixer of 5 blocks", "DiT 3×8×8, 4 blocks, width 16, patch 4", "U-Net 3×8×8, 5 stages, channels 8, 16")


@pytest.fixture(params=CONFIGS, ids=lambda config: type(config).__name__)
def run(image_folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    stage = Stage(steps=3, batch_size=4, warmup=1)
    config = TrainConfig(
        dataset=str(image_folder),
        model=request.param,
        backbone=stage,
        exits=stage,
        method=Method(map=True),
        out=tmp_path / "run",
        device="cpu",
        sample_every=2,
        log_every=1,
    )
    return Training("tiny", config).run()


def test_it_trains_calibrates_samples_and_is_described(run: Path, image_folder: Path) -> None:
    calibrate_checkpoint(run, CalibrationSettings(8, 3, dataset=str(image_folder)), "cpu")
    for policy in ("never", "threshold:0.5", "fixed:2", "excess:0.1", "stopping:0.0002"):
        folder = run / "traces" / policy.partition(":")[0]
        sample_trace(run, folder, 4, policy, steps=3, record="full", maps=range(2))
        trace = deediff.read_trace(folder)
        assert 0 < trace.meta.mean_gflops <= trace.cost.at_exit(with_uem=True)[-1]
        assert trace.maps(0).shape == (3, trace.meta.num_blocks, 8, 8)
        assert origin_of(trace).model in NAMES


def test_its_real_exits_equal_the_simulated_ones(run: Path) -> None:
    model = deediff.load(run)
    with torch.no_grad():
        assert isinstance(model.uem.weight, Tensor)
        model.uem.weight.normal_(std=2.0)
    x = sample_noise(0, range(16), 0, model.image_shape)
    answers, u = model.all_exits(x, torch.full((16,), 500))
    tau = float(u.amin(dim=0).median())
    found = predict(model, x, Request(make_policy(f"threshold:{tau}"), 0, 500, np.arange(16)))
    leaves = torch.cat([u <= np.float32(tau), torch.ones(1, 16, dtype=torch.bool)])
    layers = leaves.float().argmax(dim=0)
    assert len(layers.unique()) > 1
    assert torch.equal(found.exit_layer, layers)
    torch.testing.assert_close(found.output, answers[layers, torch.arange(16)], atol=1e-5, rtol=1e-4)


def test_its_cost_is_counted_by_hand() -> None:
    net = Mixer(MixerConfig())
    cost = model_cost(EarlyExitModel(net).add_exits({"name": "mlp"}))
    assert cost.blocks == [2 * 8 * 16 * 16 / 1e9] * 5  # 8 tokens through a 16 × 16 matrix
    assert cost.heads == [2 * 8 * 16 * 24 / 1e9] * 5
    assert cost.decode == cost.heads[0]
