"""What a search minimises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deediff.plans import Plan, PlanStep
from deediff.search.cache import FeatureCache
from deediff.search.score import ALLOWED_STEPS, Score
from deediff.search.start import uniform_plan
from tests.search.test_search import make_toy_judge
from tests.search.toy import toy_metric

COUNT = 12


def test_a_plan_pays_for_a_guard_that_is_worse_than_the_full_networks(
    run: Path, image_folder: Path, tmp_path: Path
) -> None:
    """The score of a plan is at least its distance, and more by the share by which its second distance is too large."""
    judge = make_toy_judge(run, image_folder)
    assert [distance.metric for distance in judge.distances] == ["fd-toy", "fd-pixels"]
    with toy_metric():
        score = Score(FeatureCache(judge, tmp_path), 0)
        features = judge.draw(
            Plan((PlanStep(999, 0, "input"), PlanStep(400)), 13, clip_x0=True), 0, range(COUNT)
        ).features
        full = judge.draw(uniform_plan(13, judge.schedule, ALLOWED_STEPS), 0, range(COUNT)).features
        assert score(full) == pytest.approx(judge.measured(full)[0])
        distance, guard = judge.measured(features)
        assert score(features) == pytest.approx(distance * max(1, guard / judge.measured(full)[1]))

        width = judge.distances[0].width
        exploiting = np.concatenate([full[:, :width], full[:, width:] + 0.3], axis=1)
        distance, guard = judge.measured(exploiting)
        assert distance == pytest.approx(judge.measured(full)[0])
        assert score(exploiting) > 1.2 * distance
