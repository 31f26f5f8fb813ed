"""The script that Streamlit runs for every page: navigation, then the page within its frame.

The pages are in `views/`, not in a folder called `pages`: Streamlit would apply its older convention to that, and
the first link opened on a new server would show the page without its frame.
"""

import os
import time
from pathlib import Path

import streamlit as st

from app.shell import frame, head
from app.state.selection import SELECTION

start = time.thread_time()
st.set_page_config(
    page_title="DeeDiff explorer", page_icon=str(Path(__file__).parent / "assets" / "icon.png"), layout="wide"
)
head.load_styles()

PAGES = {  # folder in views/, and path of the URL: title, icon
    "overview": ("Overview", "home"),
    "runs": ("Runs", "folder_open"),
    "trends": ("Exit trends", "stairs"),
    "live": ("Sample live", "play_circle"),
    "uncertainty": ("Uncertainty", "blur_on"),
    "images": ("Images", "grid_view"),
    "sample": ("Sample", "movie"),
    "compare": ("Compare", "scatter_plot"),
    "plans": ("Plans", "timeline"),
    "designer": ("Plan designer", "tune"),
    "method": ("Method", "school"),
}
FIRST = "overview"  # the page at the server's bare address
OF_TRENDS = {"also", "budget"}  # in links of when Exit trends was that page

page = st.navigation(
    [
        st.Page(f"views/{name}/page.py", title=title, icon=f":material/{icon}:", url_path=name, default=name == FIRST)
        for name, (title, icon) in PAGES.items()
    ]
)
if not page.url_path and SELECTION not in st.session_state and OF_TRENDS & set(st.query_params):
    st.switch_page("views/trends/page.py", query_params=st.query_params.to_dict())
frame.around(page)
if "DEEDIFF_BENCH" in os.environ:  # read from the browser by `deediff bench app`
    spent = 1000 * (time.thread_time() - start)
    st.html(f'<span class="server-ms" data-ms="{spent:.3f}" data-run="{time.time_ns() // 1000}"></span>')
