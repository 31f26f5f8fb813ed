"""Storage of traces: a local folder, or any folder that fsspec opens by URL (s3://…, sftp://…, memory://…)."""

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

AnyPath = Path | UPath  # local paths are always Path; UPath has the same methods but is no subclass


def open_folder(path: str | AnyPath) -> AnyPath:
    """A Path, or for a URL a UPath after one successful request to its storage. The folder need not exist.

    Raises UserError when the path is empty, the protocol is unknown, its driver is missing, or the storage is
    unreachable.
    """
    if path == "":
        raise UserError("the path is empty, expected a folder or a URL")
    if isinstance(path, Path) or (isinstance(path, str) and "://" not in path):
        return Path(path)
    try:
        folder = UPath(path)
        if folder.protocol in ("file", "local"):
            return Path(folder.path)
        folder.fs.invalidate_cache()  # drivers cache listings, but other processes write here too
        folder.fs.info(folder.path)
    except FileNotFoundError:  # the storage is reachable, the folder does not exist yet
        pass
    except ImportError as error:  # fsspec's message names the package
        raise UserError(
            f"{path} needs a driver that is not installed ({_reason(error)}): install it with pip"
        ) from None
    except Exception as error:  # exception types differ between drivers
        raise UserError(
            f"{path} cannot be reached ({_reason(error)}): expected a local folder, or a URL that fsspec opens; "
            "check its protocol, server and credentials"
        ) from None
    return folder


def _reason(error: Exception) -> str:
    """The error's message on one line."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


def write_atomically(path: AnyPath, data: bytes, sync: bool = True) -> None:
    """Write under a temporary name, sync (optional), rename: a reader sees the old file or the complete new one.

    Remote files are uploaded in one request, which object stores apply atomically. Raises OSError.
    """
    if not isinstance(path, Path):
        _upload(path, data)
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
    except OSError:  # such as a full disk: do not leave the temporary file
        with suppress(OSError):
            temporary.unlink()
        raise


def leftovers(folder: AnyPath, *prefixes: str) -> Iterator[Path]:
    """Temporary files that killed writers left behind, for file names with these prefixes."""
    if isinstance(folder, Path):
        yield from (path for path in folder.glob(".*.tmp") if path.name.removeprefix(".").startswith(prefixes))


def _upload(path: UPath, data: bytes) -> None:
    try:
        try:
            path.fs.pipe_file(path.path, data)
        except FileNotFoundError:  # a storage with folders, where this one is missing; buckets are not created
            path.parent.mkdir(exist_ok=True)
            path.fs.pipe_file(path.path, data)
    except Exception as error:  # exception types differ between drivers; callers handle OSError
        raise OSError(getattr(error, "errno", None) or errno.EIO, _reason(error)) from error


def read_table(path: AnyPath, **options: Any) -> pa.Table:
    """`pq.read_table` for local and remote paths. Raises UserError when it is missing or damaged."""
    try:
        with _source(path) as source:
            return pq.read_table(source, **options)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged ({_reason(error)}): delete it, and run the same command again") from None


def read_metadata(path: AnyPath) -> pq.FileMetaData:
    """`pq.read_metadata` for local and remote paths. Raises OSError or pa.ArrowInvalid when damaged."""
    with _source(path) as source:
        return pq.read_metadata(source)


@contextmanager
def _source(path: AnyPath) -> Iterator[Path | IO[bytes]]:
    """The path itself if it is local, which pyarrow maps directly; else an open file."""
    if isinstance(path, Path):
        yield path
    else:
        with path.open("rb") as file:
            yield file
