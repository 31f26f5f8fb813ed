"""Classes and guidance of a class-conditional model."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deediff.digits import whole_number
from deediff.errors import UserError
from deediff.models import EarlyExitModel


@dataclass(frozen=True)
class Condition:
    """Classes of a class-conditional model."""

    labels: Tensor  # (B,)
    guidance: float | None = None  # scale of classifier-free guidance; None: without
    null_label: int = 0  # the label that means "no class"

    def rows(self) -> Tensor:
        """Labels of the network's rows: (B,), or with guidance (2·B,), label and null label of each sample in turn."""
        if self.guidance is None:
            return self.labels
        return torch.stack([self.labels, torch.full_like(self.labels, self.null_label)], dim=1).flatten()

    def combine(self, output: Tensor) -> Tensor:
        """Classifier-free guidance: (n, …), or with guidance (2·n, …) in the order of `rows` → (n,C,H,W) float32.

        Source: Ho & Salimans 2022, Eq. 6, where a scale of 0 is no guidance; here it is 1.
        """
        if self.guidance is None:
            return output.float()
        with_label, without = output.float().unflatten(0, (-1, 2)).unbind(dim=1)
        return without + self.guidance * (with_label - without)

    def split(self, size: int) -> list[Condition]:
        """Conditions of consecutive groups of `size` samples."""
        return [replace(self, labels=labels) for labels in self.labels.split(size)]


def make_condition(
    model: EarlyExitModel, samples: range, classes: Sequence[int] | None, guidance: float | None = None
) -> Condition | None:
    """Sample k is of class `classes[k mod their number]`; None for an unconditional model. Raises UserError."""
    classes = _check_classes(model, classes, guidance)
    if classes is None:
        return None
    labels = torch.tensor([classes[k % len(classes)] for k in samples], device=next(model.parameters()).device)
    return Condition(labels, guidance, null_label=model.backbone.num_classes - 1)


def class_numbers(model: EarlyExitModel, classes: Sequence[int | str] | None) -> tuple[int, ...] | None:
    """Classes by number, given by number, by name, or by names and numbers separated by commas.

    Where names of classes are numbers, a text is a name. Composed and decomposed letters are the same: file systems
    change them. Raises UserError for one that is unknown.
    """
    if classes is None:
        return None
    names, found = list(model.class_names), list[int]()
    composed = [_composed(name) for name in names]
    for given in classes:
        whole = isinstance(given, int) or _composed(given) in composed
        for text in [given] if whole else [part.strip() for part in str(given).split(",")]:
            if isinstance(text, int):
                found.append(text)
            elif _composed(text) in composed:
                found.append(composed.index(_composed(text)))
            elif (number := whole_number(text)) is not None and not any(name.isdecimal() for name in names):
                found.append(number)
            else:
                known = ", ".join(names[:20]) + ", …" * (len(names) > 20) if names else "numbers, for example 0,3"
                raise UserError(f"unknown class {text!r}, expected {'some of ' * bool(names)}{known}")
    return tuple(found)


def _check_classes(
    model: EarlyExitModel, classes: Sequence[int] | None, guidance: float | None
) -> Sequence[int] | None:
    """The classes to draw from, None for an unconditional model. Raises UserError when they do not fit the model."""
    labels = model.backbone.num_classes
    if not labels:
        if classes is not None or guidance is not None:
            raise UserError("this model is unconditional: it takes neither classes nor a guidance scale")
        return None
    if guidance is not None and not model.null_label:
        raise UserError("guidance needs a label that means no class: train the model with --label-dropout")
    if classes is None:
        return range(labels - model.null_label)
    if not classes or not all(0 <= label < labels for label in classes):
        raise UserError(f"the classes are {list(classes)}, expected some of 0 … {labels - 1}")
    return classes


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
