"""Feature extractors: torch-fidelity's pretrained networks, the small classifiers that ship, or plain pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from deediff.checkpoints import file_sha256
from deediff.datasets import to_model_range
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.quality.features import FeatureNetwork

SHIPPED = Path(__file__).parent / "weights"


class MissingWeights(UserError):
    """The extractor's weights are not found and cannot be downloaded; metrics of other extractors still work."""


@dataclass(frozen=True)
class Extractor:
    """Images (B,C,H,W) uint8 on its device → features (B,D) float32."""

    name: str
    key: str  # digest of the weights; features of different keys are not comparable
    extract: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        return self.extract(images.to(self.device)).float().cpu()


@dataclass(frozen=True)
class Pretrained:
    """A network that torch-fidelity builds, and the source of its weights."""

    registered: str  # torch-fidelity's name
    layer: str
    file: str  # in torch.hub's folder, where torch-fidelity keeps it
    url: str
    sha256: str
    normalise: bool = False  # to length 1


CLIP_SHA = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
PRETRAINED = {
    "inception-v3": Pretrained(
        "inception-v3-compat",
        "2048",
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "clip-vit-l-14-336": Pretrained(
        "clip-vit-l-14-336px",
        "clip",
        f"clip-vit-l-14-336px-{CLIP_SHA}.pt",
        f"https://openaipublic.azureedge.net/clip/models/{CLIP_SHA}/ViT-L-14-336px.pt",
        CLIP_SHA,
        normalise=True,  # CMMD's kernel width is for embeddings of length 1
    ),
    "vgg16": Pretrained(
        "vgg16",
        "fc2_relu",
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
}
SMALL = ("fd-cifar", "fd-mnist")
PIXELS, SIDE = "pixels", 8


def load_extractor(name: str, device: torch.device, weights: Path | None = None) -> Extractor:
    """An extractor by name; `weights` is a file, or a folder that is searched before torch.hub's.

    Raises MissingWeights when there are none, UserError when their SHA-256 is not the expected one.
    """
    if name == PIXELS:
        return Extractor(name, f"{PIXELS}-{SIDE}", _pixels, device)
    return _small(name, device) if name in SMALL else _pretrained(name, device, weights)


def _pixels(images: Tensor) -> Tensor:
    """The image at 8×8 pixels, in [0, 1]: (B,C,H,W) uint8 → (B, C·64). No network, so no judge that was trained."""
    return F.adaptive_avg_pool2d(images.float() / 255, SIDE).flatten(1)


def _small(name: str, device: torch.device) -> Extractor:
    file = SHIPPED / f"{name}.safetensors"
    info = read_json(file.with_suffix(".json"))
    if file_sha256(file) != info["sha256"]:
        raise UserError(f"{file} is damaged: its SHA-256 is not the one in {file.with_suffix('.json').name}; reinstall")
    network = FeatureNetwork(info["in_chans"])
    network.load_state_dict({n: v.float() if v.is_floating_point() else v for n, v in load_file(file).items()})
    network.to(device).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU

    def extract(images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != (network.in_chans, 32, 32):
            c, h, w = images.shape[1:]
            kind = "grey" if network.in_chans == 1 else "RGB"
            raise UserError(f"{name} compares {kind} images of 32×32 pixels; these are {c}×{h}×{w}: try --metrics fid")
        return network.features(to_model_range(images).contiguous(memory_format=torch.channels_last))

    return Extractor(name, info["sha256"], extract, device)


def _pretrained(name: str, device: torch.device, weights: Path | None) -> Extractor:
    from deediff import _torchvision  # noqa: F401, I001  (must come before torch_fidelity)
    from torch_fidelity.utils import create_feature_extractor

    known = PRETRAINED[name]
    path = find_weights(known, weights)
    network: Any = create_feature_extractor(
        known.registered, [known.layer], cuda=False, feature_extractor_weights_path=str(path), verbose=False
    )
    network.to(device)

    def extract(images: Tensor) -> Tensor:
        (features,) = network(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)
        return F.normalize(features) if known.normalise else features

    return Extractor(name, known.sha256, extract, device)


def find_weights(known: Pretrained, weights: Path | None = None) -> Path:
    """The weights file. Its SHA-256 is checked before it is loaded, because it is a pickle.

    Raises MissingWeights when there is none, UserError when its SHA-256 is not the published one.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints" / known.file
    places = [hub] if weights is None else [weights / known.file if weights.is_dir() else weights, hub]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        try:
            hub.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(known.url, str(hub), hash_prefix=known.sha256, progress=False)
        except Exception as error:  # urllib, ssl, file system
            reason = " ".join(str(error).split())[:120]
            raise MissingWeights(
                f"the weights {known.file} are not found and cannot be downloaded ({reason}): "
                f"put the file from {known.url} into {hub.parent}, or name it with --weights"
            ) from None
        path = hub
    if file_sha256(path) != known.sha256:
        raise UserError(
            f"{path} is not {known.file} as published (SHA-256 differs from {known.sha256[:8]}…): "
            "it is cut short or another file; delete it and download it again"
        )
    return path
