"""Threads wait passively: the environment says so before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import REPO

WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch is imported with", os.environ.get("OMP_WAIT_POLICY"))
sys.meta_path.insert(0, Watch())
"""
STARTS = {
    "deediff": "from deediff.cli import main; main(['flops', 'uvit_tiny'])",
    "trainer": "from trainer.run import main; main(['--help'])",
    "explorer": "import app.main, torch",
}


@pytest.mark.parametrize(("start", "policy"), [*((start, None) for start in STARTS), ("deediff", "ACTIVE")])
def test_threads_are_set_to_wait_passively_before_torch_is_imported(start: str, policy: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
    code = [sys.executable, "-c", WATCH + STARTS[start]]
    found = subprocess.run(code, env=environment, cwd=REPO, capture_output=True, text=True, timeout=300, check=True)
    lines = [line for line in found.stdout.splitlines() if line.startswith("torch is imported")]
    assert lines == [f"torch is imported with {policy or 'PASSIVE'}"]
