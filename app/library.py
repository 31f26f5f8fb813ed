"""What the browser needs before anything else: plotly.js, and the styles around every page.

Imports nothing that takes long, so that the browser fetches it while the rest of the app is imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import streamlit as st
from streamlit.components.v1 import declare_component

_FOLDER = Path(__file__).parent / "components"
_PLOTLY = find_spec("plotly")
assert _PLOTLY is not None
assert _PLOTLY.submodule_search_locations is not None
# Serves plotly.js from the installed package; as a component it is never mounted.
_SERVED = declare_component("plotly", path=str(Path(_PLOTLY.submodule_search_locations[0]) / "package_data"))
_mount = st.components.v2.component(
    "library", html="<span></span>", css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
    js=(_FOLDER / "library.js").read_text(encoding="utf-8"), isolate_styles=False,
)  # fmt: skip


def load() -> None:
    """Have the browser fetch plotly.js, unless it has."""
    base = st.get_option("server.baseUrlPath").strip("/")
    address = f"{'/' + base if base else ''}/component/{_SERVED.name}/plotly.min.js"
    _mount(data={"address": address})
