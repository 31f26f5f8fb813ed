"""Arrays measured for a checkpoint, in one file beside it: an `.npz` with a JSON record named `info`."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.storage import write_atomically

FORMAT_VERSION = 1


class Measured(NamedTuple):
    """The content of a file."""

    info: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    sha256: str  # of the file


def write_npz(path: Path, info: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the file atomically."""
    buffer = io.BytesIO()
    record = np.array(json.dumps({"format_version": FORMAT_VERSION, **info}))
    np.savez_compressed(buffer, info=record, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def read_npz(path: Path, names: Sequence[str], what: str) -> Measured:
    """Read arrays by name. Raises UserError when the file is missing, or is not readable as `what`."""
    again = "run 'deediff calibrate' again"
    try:
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            info = json.loads(str(file["info"]))
            arrays = {name: file[name] for name in names}
        if not isinstance(info, dict):
            raise ValueError("its info is no JSON object")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: 'deediff calibrate CHECKPOINT' writes it") from None
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a readable {what} ({error}): {again}") from None
    if info.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path}: format_version is {info.get('format_version')}, expected {FORMAT_VERSION}: {again}")
    return Measured(info, arrays, hashlib.sha256(data).hexdigest())
