"""The trials of one process, in short: ``python -m tests.endurance`` has them at length."""

import pytest

from tests.endurance import inside


@pytest.mark.parametrize(("trial", "count"), [("backward", 4), ("forks", 2)])
def test_it_is_what_it_is_alone(trial, count):
    assert "the same" in getattr(inside, trial)(count, lambda part: None)
