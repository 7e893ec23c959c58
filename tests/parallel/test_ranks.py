"""Real processes: every row is the same however its batch is split over ranks and micro-batches."""

import pytest

from aptt.audit.ranks import held_by_rank


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_loss_is_what_its_splits_average_to(world):
    assert held_by_rank(world) == {}
