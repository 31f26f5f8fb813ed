"""Tensors by name put into a network, with an example of what does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from deediff.errors import UserError


def load_by_name(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """`load_state_dict`. Raises ValueError with an example of tensors that are missing, left over or of other shape."""
    expected = net.state_dict()
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    both = [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    found = [f"lacks {len(missing)} tensors, for example {missing[0]}"] if missing else []
    found += [f"has {len(extra)} more, for example {extra[0]}"] if extra else []
    found += [
        f"has {name} of shape {tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}" for name in both[:1]
    ]
    if found:
        raise ValueError(f"it {' and '.join(found)}: try another --layout")
    net.load_state_dict(dict(tensors))


def known_heads(num_heads: int | None, known: Mapping[tuple[int, int], int], width: int, depth: int) -> int:
    """Attention heads, which shapes do not show: those given, or of the preset of this width and depth.

    Raises UserError when there is none.
    """
    found = num_heads or known.get((width, depth))
    if found is None:
        raise UserError(
            f"no preset has width {width} and depth {depth}, and tensors do not show the number of attention heads: "
            "give it with --num-heads"
        )
    return found
