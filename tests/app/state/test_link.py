"""Lists of names in the URL: a link reopens runs and traces of any name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.state.link import joined, parted

NAMES = st.lists(st.one_of(st.text(min_size=1), st.sampled_from(["none", "a,b", "50%", "%2C", "a b", "naïve τ=0.1"])))


@given(NAMES)
def test_a_list_comes_back_as_it_was_written(names: list[str]) -> None:
    assert parted(joined(names)) == names


def test_links_written_before_commas_were_escaped_stay_readable() -> None:
    assert parted("mnist_tiny/ddim50-never,mnist_tiny/t-0.1") == ["mnist_tiny/ddim50-never", "mnist_tiny/t-0.1"]
    assert joined(["mnist_tiny", "uvit_tiny"]) == "mnist_tiny,uvit_tiny"
    assert parted("none") == []
