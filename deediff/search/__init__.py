"""Search for sampling plans: timesteps, exits and readouts found together, and validated with other noise."""

from deediff.search.contributions import measure_steps
from deediff.search.report import measure_plan
from deediff.search.search import search
from deediff.search.settings import SearchSettings, SearchState

__all__ = ["SearchSettings", "SearchState", "measure_plan", "measure_steps", "search"]
