"""All pages of a run as one HTML file, without a browser: `python -m app.export RUNS RUN FILE PAGE …`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import urlencode

from streamlit.testing.v1 import AppTest

from app.shell.report import Section, report
from app.state.selection import SELECTION, Selection
from app.state.shown import SHOWN
from deediff.storage import write_atomically

PAGES = {  # without those that wait for the reader: folder in views/, title
    "overview": "Overview",
    "trends": "Exit trends",
    "uncertainty": "Uncertainty",
    "images": "Images",
    "compare": "Compare",
    "plans": "Plans",
    "method": "Method",
}
PATIENCE = 600  # seconds for a page


def export(run: str, pages: list[str]) -> str:
    """The report of some pages, each opened on the run's default selection."""
    sections, selected = list[Section](), list[Selection]()
    for name in pages:
        app = AppTest.from_file(str(Path(__file__).parent / "explorer.py"), default_timeout=PATIENCE)
        app.query_params["run"] = run
        app.run()
        app.switch_page(f"views/{name}/page.py").run()
        query = {key: value[0] if isinstance(value, list) else value for key, value in app.query_params.items()}
        path = "" if name == next(iter(PAGES)) else name  # the first page is at the server's bare address
        sections.append(Section(PAGES[name], list(app.session_state[SHOWN].values()), f"{path}?{urlencode(query)}"))
        selected.append(app.session_state[SELECTION])
    return report(selected[0], sections)


if __name__ == "__main__":
    root, run, out, *chosen = sys.argv[1:]
    os.environ["DEEDIFF_RUNS"] = root
    write_atomically(Path(out), export(run, chosen or list(PAGES)).encode())
