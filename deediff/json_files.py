"""JSON files, written atomically and checked when read."""

from __future__ import annotations

import json
from typing import Any

from deediff.errors import UserError
from deediff.storage import AnyPath, write_atomically

FORMAT_VERSION = 1


def write_json(path: AnyPath, content: dict[str, Any]) -> None:
    """Write JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: AnyPath) -> dict[str, Any]:
    """Read a JSON object. Raises UserError when the file is missing or holds anything else."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except RecursionError:
        raise UserError(f"{path} cannot be read as JSON (nested too deeply): restore the file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        kinds = {list: "array", str: "string", bool: "boolean", type(None): "null"}
        raise UserError(f"{path} holds a JSON {kinds.get(type(content), 'number')}, expected an object")
    return content
