"""Who is looking: the browser tab behind this run of the script."""

from __future__ import annotations

from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.jobs.queue import Session


def current() -> Session:
    """This tab. Its `connected` may be asked from any thread, and for as long as one likes."""
    context = get_script_run_ctx()
    key = context.session_id if context is not None else "no browser"

    def connected() -> bool:
        if not runtime.exists():
            return True
        return runtime.get_instance().is_active_session(key) is not False  # stand-ins in tests say neither

    return Session(key, connected)
