"""The browser tab of this run of the script."""

from __future__ import annotations

from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.jobs.queue import Session


def this_tab() -> Session:
    """Its `connected` may be called from any thread, at any time."""
    context = get_script_run_ctx()
    key = context.session_id if context is not None else "no browser"

    def connected() -> bool:
        if not runtime.exists():
            return True
        return runtime.get_instance().is_active_session(key) is not False  # the test runtime returns neither

    return Session(key, connected)
