"""The class that a sample of a class-conditional model was drawn from."""

from __future__ import annotations

from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.traces.reader import Trace


def class_of(trace: Trace, number: int) -> str | None:
    """Name of the sample's class, its number where the run names none; None where neither is known."""
    try:
        run = read_json(trace.path.parent.parent / "run.json")
    except UserError:
        run = {}
    names = run.get("class_names") or []
    model = (run.get("config") or {}).get("model") or {}
    all_of_them = range(len(names) if model.get("num_classes") else 0)  # none for an unconditional model
    drawn = (trace.meta.settings and trace.meta.settings.classes) or all_of_them
    if not drawn:
        return None
    label = int(drawn[number % len(drawn)])
    return str(names[label]) if label < len(names) else str(label)
