"""Lists of names in the URL: whatever runs and traces are called, a link reopens them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.app.test_app import APP

NAMES = st.lists(st.one_of(st.text(min_size=1), st.sampled_from(["none", "a,b", "50%", "%2C", "a b", "naïve τ=0.1"])))


@pytest.fixture(autouse=True)
def app_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))


@given(NAMES)
def test_a_list_comes_back_as_it_was_written(names: list[str]) -> None:
    from link import joined, parted

    assert parted(joined(names)) == names


def test_links_written_before_commas_were_escaped_stay_readable() -> None:
    from link import joined, parted

    assert parted("mnist_tiny/ddim50-never,mnist_tiny/t-0.1") == ["mnist_tiny/ddim50-never", "mnist_tiny/t-0.1"]
    assert joined(["mnist_tiny", "uvit_tiny"]) == "mnist_tiny,uvit_tiny"
    assert parted("none") == []
