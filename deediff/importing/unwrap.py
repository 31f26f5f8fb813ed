"""The state dict within a checkpoint as people have them: nested, wrapped, prefixed, in any precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from deediff.errors import UserError

AVERAGED = ("ema", "nnet_ema", "params_ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "net_ema")
PLAIN = ("model_state_dict", "state_dict", "model", "nnet", "net", "network", "params", "module", "weights", "unet")
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # anywhere in a name
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step")  # of averages: no weights
SIGNATURES = {  # layout → names of tensors that it has
    "duodiff": ("uvit.patch_embed.proj.weight", "uvit.mid_block.mlp.fc1.weight"),
    "adadiff": ("patch_embed.proj.weight", "lte_classifer.0.lte.weight"),
    "uvit": ("patch_embed.proj.weight", "mid_block.mlp.fc1.weight"),
    "dit": ("x_embedder.proj.weight", "blocks.0.mlp.fc1.weight"),
}


class Unwrapped(NamedTuple):
    """A state dict, and how it was found."""

    state: dict[str, Tensor]  # floating-point values in float32
    layout: str
    notes: list[str]


def unwrap_state(content: Any, path: Path, layout: str = "auto") -> Unwrapped:
    """The state dict in the content of a checkpoint, and its layout.

    Averaged weights are preferred. Raises UserError when there is no state dict or, for `auto`, no known layout.
    """
    places: list[str] = []
    state = _nested(content, places)
    if state is None:
        raise UserError(f"{path} holds no state dict (names → tensors)")
    notes = [f"weights: {'/'.join(places)} of the file"] if places else []
    for wrapper in WRAPPERS:
        state = {name.replace(wrapper, ""): value for name, value in state.items()}
    candidates = [layout] if layout in SIGNATURES else list(SIGNATURES) if layout == "auto" else []
    for known in candidates:
        prefixes = _prefixes(state, SIGNATURES[known])
        if not prefixes:
            continue
        prefix = min(prefixes, key=lambda p: ("ema" not in p.lower(), len(p)))
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        notes += [f"prefix {prefix} removed"] if prefix else []
        notes += [f"layout {known}: it has {' and '.join(SIGNATURES[known])}"] if layout == "auto" else []
        return Unwrapped(_weights(state, path), known, notes)
    if layout == "auto":
        example = ", ".join(list(state)[:3])
        raise UserError(
            f"{path} is of no known layout ({', '.join(SIGNATURES)}): its tensors are named {example}, …; adapt the "
            "network as deediff/README.md shows"
        )
    return Unwrapped(_weights(state, path), layout, notes)


def _nested(content: Any, places: list[str]) -> dict[str, Tensor] | None:
    """The innermost dict of tensors; `places` gets the names on the way to it."""
    if not isinstance(content, Mapping):
        return None
    for name in (*AVERAGED, *PLAIN):
        if isinstance(content.get(name), Mapping):
            inner: list[str] = []
            found = _nested(content[name], inner)
            if found:
                places += [name, *inner]
                return found
    for name in (name for name, value in content.items() if isinstance(name, str) and isinstance(value, Mapping)):
        inner = []
        found = _nested(content[name], inner)
        if found and any(_prefixes(found, signature) for signature in SIGNATURES.values()):  # no optimizer's state
            places += [name, *inner]
            return found
    tensors = {name: v for name, v in content.items() if isinstance(name, str) and isinstance(v, Tensor)}
    others = [name for name, v in content.items() if name not in tensors and isinstance(v, Mapping | list | tuple)]
    return tensors if tensors and not others else None


def _prefixes(state: Mapping[str, Tensor], signature: tuple[str, ...]) -> list[str]:
    """What stands before the names of a layout, for each copy of its network."""
    first, *others = signature
    found = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    return [prefix for prefix in found if all(prefix + name in state for name in others)]


def _weights(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors in float32, without counters. Raises UserError for values that are not finite real numbers."""
    found = {name: v.float() if v.is_floating_point() else v for name, v in state.items() if name not in COUNTERS}
    if bad := [name for name, v in found.items() if v.is_complex() or not v.isfinite().all()]:
        raise UserError(f"{path}: {bad[0]} holds values that are not finite real numbers: import another checkpoint")
    return found
