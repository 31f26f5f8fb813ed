"""Makes `import torchvision` work when its compiled operators do not match the installed torch.

torchvision's wheels from PyPI are CUDA builds; with a CPU-only torch they fail on import: "operator torchvision::nms
does not exist". Data sets and transforms use neither operator, so declaring the two names is sufficient. Import this
module before torchvision or torch_fidelity.
"""

from __future__ import annotations

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None


def declare_missing_operators() -> bool:
    """Declare `torchvision::nms` and `qnms` if `import torchvision` fails without them. Returns whether it did."""
    global _library
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(f"{name}{_SCHEMA}")
        return True
    return False


declare_missing_operators()
