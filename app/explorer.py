"""What every run of the script begins with. Navigation only; what a page shows stands in app/views/.

(Not in a folder called `pages`: Streamlit would take that for its older convention, and the first link
that a fresh server gets would open the page without the frame around it.)
"""

import os
import time
from pathlib import Path

import streamlit as st

import frame
import library

begin = time.thread_time()
st.set_page_config(
    page_title="DeeDiff explorer", page_icon=str(Path(__file__).parent / "assets" / "icon.png"), layout="wide"
)
library.load()

page = st.navigation(
    [
        st.Page("views/runs.py", title="Runs", icon=":material/folder_open:"),
        st.Page("views/trends.py", title="Exit trends", icon=":material/stairs:", default=True),
        st.Page("views/live.py", title="Sample live", icon=":material/play_circle:"),
        st.Page("views/uncertainty.py", title="Uncertainty", icon=":material/blur_on:"),
        st.Page("views/images.py", title="Images", icon=":material/grid_view:"),
        st.Page("views/sample.py", title="Sample", icon=":material/movie:"),
        st.Page("views/compare.py", title="Compare", icon=":material/scatter_plot:"),
        st.Page("views/method.py", title="Method", icon=":material/school:"),
    ]
)
frame.around(page)
if "DEEDIFF_BENCH" in os.environ:  # for `deediff bench app`, which looks from outside
    spent = 1000 * (time.thread_time() - begin)
    st.html(f'<span class="server-ms" data-ms="{spent:.3f}" data-run="{time.time_ns() // 1000}"></span>')
