"""Official U-ViT checkpoints, and files that are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import deediff
from deediff.checkpoints import load_checkpoint
from deediff.errors import UserError
from deediff.importing.checkpoint import Untold, import_checkpoint
from deediff.models import UViT, UViTConfig
from deediff.models.official import uvit_config
from deediff.models.presets import UVITS
from tests.conftest import TINY


@pytest.mark.parametrize(
    "config",
    [TINY, replace(TINY, num_classes=4), replace(TINY, mlp_time_embed=True, qkv_bias=True), replace(TINY, conv=False)],
)
def test_an_official_state_dict_gives_the_same_network(tmp_path: Path, config: object) -> None:
    net = UViT(config)  # type: ignore[arg-type]
    torch.save(net.state_dict(), tmp_path / "official.pth")
    untold = Untold(num_heads=2, null_label=False if net.num_classes else None)
    run = import_checkpoint(tmp_path / "official.pth", tmp_path / "run", images_seen=640, untold=untold)
    model, info = load_checkpoint(run)
    assert model.backbone.config() == net.config()
    assert info["images_seen"] == 640
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    y = torch.tensor([0, 1]) if net.num_classes else None
    with torch.no_grad():
        torch.testing.assert_close(model(x, t, y), net(x, t, y))


@pytest.mark.parametrize("preset", list(UVITS))
def test_presets_are_recognised_with_their_number_of_heads(preset: str) -> None:
    with torch.device("meta"):
        state = UViT(UVITS[preset]).state_dict()
    assert uvit_config(state) == UVITS[preset]


@pytest.mark.parametrize(("width", "depth", "heads"), [(512, 12, 8), (768, 16, 12), (1024, 20, 16), (1152, 28, 16)])
def test_the_official_sizes_have_their_number_of_heads_at_any_resolution(width: int, depth: int, heads: int) -> None:
    """S, M, L and H; H has 72 channels per head, also on the 64×64 latents of ImageNet 512."""
    for pixels, patch, channels, classes in ((32, 2, 4, 1001), (64, 4, 4, 1001), (64, 4, 3, 0)):
        wanted = UViTConfig(pixels, patch, channels, width, depth, heads, num_classes=classes, conv=False)
        with torch.device("meta"):
            assert uvit_config(UViT(wanted).state_dict()) == wanted


@pytest.mark.parametrize(("classes", "null_label"), [(0, False), (1000, False), (1001, True)])
def test_the_null_label_of_official_models(tmp_path: Path, classes: int, null_label: bool) -> None:
    torch.save(UViT(replace(TINY, num_classes=classes)).state_dict(), tmp_path / "official.pth")
    run = import_checkpoint(tmp_path / "official.pth", tmp_path / "run", num_heads=2)
    assert deediff.load(run).null_label == null_label


def test_the_warm_start_imports(shared: Path, tmp_path: Path) -> None:
    model = deediff.load(import_checkpoint(shared / "checkpoints" / "uvit_tiny_cifar10.pth", tmp_path / "run"))
    assert model.num_blocks == 13
    assert model.uem is None


def test_other_files_are_refused_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no tensors")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        import_checkpoint(tmp_path / "text.pth", tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        import_checkpoint(tmp_path / "none.pth", tmp_path / "run")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not an official U-ViT state dict"):
        import_checkpoint(tmp_path / "other.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layout", ["adadiff", "duodiff"])
def test_a_plain_uvit_is_refused_as_a_layout_with_exits(tmp_path: Path, layout: str) -> None:
    torch.save(UViT(TINY).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(UserError, match="has no"):
        import_checkpoint(tmp_path / "plain.pth", tmp_path / "run", layout, num_heads=2)
