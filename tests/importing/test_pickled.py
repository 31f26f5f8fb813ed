"""Loading a pickle executes no code."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from deediff.errors import UserError
from deediff.importing.checkpoint import import_checkpoint
from deediff.importing.pickled import load_pickled


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_not_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="holds code, which was not run"):
        import_checkpoint(tmp_path / "evil.pth", tmp_path / "run")
    assert "executed" not in capsys.readouterr().out


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(UserError, match="not a file of plain tensors"):
        import_checkpoint(tmp_path / "empty.pth", tmp_path / "run")


@pytest.mark.parametrize("name", ["pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath"])
def test_a_pickled_path_of_any_system_and_python_is_loaded_as_a_pure_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module, kind = name.rsplit(".", 1)
    if module == "pathlib._local":  # the module's name in Python 3.13
        there = ModuleType(module)
        setattr(there, kind, type(kind, (), {"__module__": module}))
        monkeypatch.setitem(sys.modules, module, there)

    class Pickled:
        def __reduce__(self) -> tuple[type, tuple[str, ...]]:
            return getattr(sys.modules[module], kind), ("logs", "run 1")

    torch.save({"args": Namespace(log_path=Pickled())}, tmp_path / "training.pth")
    path = load_pickled(tmp_path / "training.pth")["args"].log_path
    assert path.parts == ("logs", "run 1")
    assert not hasattr(path, "open")
