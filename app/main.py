"""The server of the explorer: `streamlit run app/main.py`. Its pages are defined in explorer.py.

To open the first page sooner, its imports are done before the server answers, and the browser fetches plotly.js
while Streamlit's own scripts arrive.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit.cli_util import open_browser
from streamlit.web.server.server_util import get_url

FOLDER = Path(__file__).resolve().parent
if str(FOLDER) in sys.path:  # Streamlit adds the script's own folder; modules are imported as app.…
    sys.path.remove(str(FOLDER))
sys.path.insert(0, str(FOLDER.parent))

from app.shell import head  # noqa: E402
from deediff.openmp import wait_passively  # noqa: E402

wait_passively()

FIRST_PAGE = ("app.shell.frame", *(f"app.views.overview.{name}" for name in ("worth", "where", "why", "about")))
SOON = 1.0  # seconds after which the server certainly answers


@asynccontextmanager
async def ready(_: st.App) -> AsyncIterator[None]:
    """Import the modules of the first page, and open it where there is a screen, as Streamlit's own servers do."""
    for module in FIRST_PAGE:
        import_module(module)
    if not st.get_option("server.headless"):
        asyncio.get_running_loop().call_later(SOON, open_browser, get_url("localhost"))
    yield


app = st.App(
    "explorer.py",
    lifespan=ready,
    routes=head.routes(),
    middleware=[Middleware(head.InHead)],
)
