"""Search for sampling plans: timesteps, exits and readouts found together, and validated with other noise."""

from deediff.search.search import SearchSettings, SearchState, search

__all__ = ["SearchSettings", "SearchState", "search"]
