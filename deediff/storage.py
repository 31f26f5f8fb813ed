"""Where traces lie: a local folder, or a folder that fsspec reaches by its URL (s3://…, sftp://…, memory://…)."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from deediff.errors import UserError

AnyPath = Path | UPath  # a UPath behaves like a Path, but is none; a local path is always a Path


def open_folder(path: str | AnyPath) -> AnyPath:
    """A URL as a UPath whose storage has answered once, everything else as a Path; neither need exist.

    Raises UserError when fsspec does not know the protocol, lacks its driver, or cannot reach the storage.
    """
    if isinstance(path, Path) or (isinstance(path, str) and "://" not in path):
        return Path(path)
    try:
        folder = UPath(path)
        if folder.protocol in ("file", "local"):
            return Path(folder.path)
        folder.fs.invalidate_cache()  # drivers remember listings, but other processes write here as well
        folder.fs.info(folder.path)
    except FileNotFoundError:  # it answered: there is nothing yet
        pass
    except ImportError as error:  # fsspec's message names the package
        raise UserError(
            f"{path} needs a driver that is not installed ({_reason(error)}): install it with pip"
        ) from None
    except Exception as error:  # every driver has its own
        raise UserError(
            f"{path} cannot be reached ({_reason(error)}): expected a local folder, or a URL that fsspec opens; "
            "check its protocol, server and credentials"
        ) from None
    return folder


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


def write_atomically(path: AnyPath, data: bytes, sync: bool = True) -> None:
    """Write under a temporary name, sync (unless told not to), rename: a reader sees the old file or the whole new one.

    Elsewhere than on a local disk it is handed over whole: object stores show no half of it. Raises OSError.
    """
    if not isinstance(path, Path):
        _hand_over(path, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:  # a full disk is not left fuller
        with suppress(OSError):
            temporary.unlink()
        raise


def leftovers(folder: AnyPath, *beginnings: str) -> Iterator[Path]:
    """What writers of files whose names begin so left under temporary names when they were killed."""
    if isinstance(folder, Path):
        yield from (path for path in folder.glob(".*.tmp") if path.name.removeprefix(".").startswith(beginnings))


def _hand_over(path: UPath, data: bytes) -> None:
    try:
        try:
            path.fs.pipe_file(path.path, data)
        except FileNotFoundError:  # this storage has folders, and lacks this one; a missing bucket is not made
            path.parent.mkdir(exist_ok=True)
            path.fs.pipe_file(path.path, data)
    except Exception as error:  # every driver has its own; callers know what a full disk is
        raise OSError(getattr(error, "errno", None) or errno.EIO, _reason(error)) from error


def read_table(path: AnyPath, **options: Any) -> pa.Table:
    """`pq.read_table`, from anywhere. Raises OSError or pa.ArrowInvalid when it is missing or damaged."""
    with _source(path) as source:
        return pq.read_table(source, **options)


def read_metadata(path: AnyPath) -> pq.FileMetaData:
    """`pq.read_metadata`, from anywhere. Raises OSError or pa.ArrowInvalid when it is missing or damaged."""
    with _source(path) as source:
        return pq.read_metadata(source)


@contextmanager
def _source(path: AnyPath) -> Iterator[Path | IO[bytes]]:
    """What pyarrow reads from: the path itself if it is local, so that nothing stands between; else an open file."""
    if isinstance(path, Path):
        yield path
    else:
        with path.open("rb") as file:
            yield file
