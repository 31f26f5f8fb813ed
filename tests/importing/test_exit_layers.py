"""Exit layers of published runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deediff.errors import UserError
from deediff.importing.exit_layers import import_exit_layers


def test_exit_layers_out_of_range_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mlp=np.full((10, 4), 14))
    with pytest.raises(UserError, match="expected exit layers 0 … 13"):
        import_exit_layers(tmp_path / "a.npz", tmp_path / "run")
    np.savez(tmp_path / "b.npz", other=np.full((10, 4), 13))
    with pytest.raises(UserError, match="pass --uem mlp or --uem attention"):
        import_exit_layers(tmp_path / "b.npz", tmp_path / "run")


def test_files_without_exit_layers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"neither a folder nor a readable \.npz"):
        import_exit_layers(tmp_path / "empty.npz", tmp_path / "run")
    np.savez(tmp_path / "out.npz", **{"mlp_/../../elsewhere": np.full((10, 4), 13)})
    with pytest.raises(UserError, match="expected letters, digits"):
        import_exit_layers(tmp_path / "out.npz", tmp_path / "run")
    (tmp_path / "sets").mkdir()
    torch.save({"a": torch.zeros(3)}, tmp_path / "sets" / "1.pt")
    with pytest.raises(UserError, match=r"are not tensors \(timesteps, samples\)"):
        import_exit_layers(tmp_path / "sets", tmp_path / "run")
