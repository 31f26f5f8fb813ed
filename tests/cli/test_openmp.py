"""In the explorer threads wait passively: the environment says so before torch is imported."""

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


@pytest.mark.parametrize(
    ("start", "given", "expected"),
    [
        ("explorer", None, "PASSIVE"),
        ("explorer", "ACTIVE", "ACTIVE"),
        ("deediff", None, None),
        ("trainer", None, None),
    ],
)
def test_only_the_explorer_lets_threads_sleep(start: str, given: str | None, expected: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    code = [sys.executable, "-c", WATCH + STARTS[start]]
    found = subprocess.run(code, env=environment, cwd=REPO, capture_output=True, text=True, timeout=300, check=True)
    lines = [line for line in found.stdout.splitlines() if line.startswith("torch is imported")]
    assert lines == [f"torch is imported with {expected}"]
