"""The server imports the modules of its first page before it answers, and no torch with them."""

from __future__ import annotations

import subprocess
import sys

from app.main import FIRST_PAGE


def test_the_first_page_is_imported_without_torch() -> None:
    code = f"import sys, {', '.join(FIRST_PAGE)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
