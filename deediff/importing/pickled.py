"""`torch.load` without code execution."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from deediff.errors import UserError

PLAIN: list[Any] = [  # classes of plain data, and the names under which pickles refer to them
    (argparse.Namespace, "argparse.Namespace"),
    *(
        (plain, f"{module}.{name}")
        for plain in (PurePosixPath, PureWindowsPath)
        for module in ("pathlib", "pathlib._local")  # the latter in Python 3.13
        for name in (plain.__name__, plain.__name__.removeprefix("Pure"))
    ),
]


def load_pickled(path: Path) -> Any:
    """`torch.load` without code execution. Raises UserError when the file is missing, corrupt or holds code.

    Parsed arguments and paths, which trainers often save beside the weights, count as plain data: paths of any system
    and Python version are loaded as pure paths, which cannot access the file system.
    """
    try:
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise UserError(
            f"{path} is not a file of plain tensors ({reason}): it is corrupt, or holds code, which was not run"
        ) from None
