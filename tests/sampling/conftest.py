from __future__ import annotations

import pytest

from tests.sampling.common import CONFIGS, Case, make_case


@pytest.fixture(scope="module", params=CONFIGS)
def case(request: pytest.FixtureRequest) -> Case:
    """Every backbone in turn."""
    return make_case(request.param)
