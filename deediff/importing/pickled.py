"""`torch.load` without code execution."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from deediff.errors import UserError
from deediff.importing.files import is_safetensors, strange_content

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
    """`torch.load` without code execution; safetensors by their content, whatever the file's name.

    Parsed arguments, paths and NumPy's numbers, which trainers often save beside the weights, count as plain data:
    paths of any system and Python version are loaded as pure paths, which cannot access the file system. Raises
    UserError when the file is missing, corrupt, no file of weights, or holds code.
    """
    try:
        if strange := strange_content(path):
            raise UserError(f"{path} is not a file of plain tensors: {strange}")
        if is_safetensors(path):
            return load_file(path)
        with torch.serialization.safe_globals([*PLAIN, *_numpy()]), warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # torch's, on the version of a pickle
            return torch.load(file, map_location="cpu", weights_only=True)  # an open file: its name decides nothing
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except UserError:  # a ValueError, too
        raise
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} is not a file of plain tensors ({_reason(error)}): it is corrupt, or holds code, which was not run"
        ) from None


def _reason(error: Exception) -> str:
    """The error on one line, without torch's advice to run the code."""
    text = " ".join(str(error).split())
    if code := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it refers to {code[1]}"
    if "weights_only" in text or "Weights only" in text:
        return "its content is no plain data"
    return text[:160] or type(error).__name__


def _numpy() -> list[Any]:
    """Classes of NumPy's numbers, by the names of its versions 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, (np.dtype, "numpy.dtype"), *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?"))]
