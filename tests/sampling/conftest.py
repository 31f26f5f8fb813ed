from __future__ import annotations

import pytest

from tests.sampling.common import CONFIGS, UNCONDITIONAL, Case, make_case


@pytest.fixture(scope="module", params=CONFIGS)
def case(request: pytest.FixtureRequest) -> Case:
    """Every backbone in turn."""
    return make_case(request.param)


@pytest.fixture(scope="module", params=[name for name in CONFIGS if name not in UNCONDITIONAL])
def conditional_case(request: pytest.FixtureRequest) -> Case:
    """Every backbone that takes classes, in turn."""
    return make_case(request.param)
