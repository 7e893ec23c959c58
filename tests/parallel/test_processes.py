"""Real processes: what is spread over ranks is what one process computes."""

import functools
import re
import sys
from pathlib import Path

import pytest

from aptt.audit.ranks import in_a_world

sys.path.append(str(Path(__file__).parent))  # the processes import the workers by their name

import workers

CHECKS = [
    "vocabulary",
    "hard_rows",
    "dtensor",
    "memory",
    "sequence",
    "gathering",
    "embeddings",
    "linear_heads",
    "linear_memory",
    "fsdp_head",
    "dtensors",
    "ddp",
    "fsdp",
    "accumulation",
    "answers",
]


OF_ONE = ["embeddings", "answers"]
OF_TWO = [*CHECKS, "normalizers", "naive"]


@functools.cache
def found(world):
    """What each rank found in each check: in one world, for a process takes longer to start."""
    checks = {1: OF_ONE, 2: OF_TWO, 4: CHECKS}[world]
    ranks = in_a_world(world, workers.every, checks)
    return dict(zip(checks, zip(*ranks, strict=True), strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_it_is_what_one_process_computes(world):
    assert set(CHECKS) <= set(found(world))


@pytest.mark.parametrize("check", OF_ONE)
def test_a_world_of_one_is_compared(check):
    assert check in found(1)


def test_every_way_to_a_mean_over_ranks_is_the_same():
    assert "normalizers" in found(2)


def test_a_mean_of_means_is_off_by_what_the_documentation_says():
    (off,) = set(found(2)["naive"])
    page = Path(__file__).parents[2] / "docs" / "scale.md"
    assert off in page.read_text(encoding="utf-8")


def test_a_rank_that_is_lost_is_an_error_on_the_others():
    out = str([each for (each,) in in_a_world(2, workers.every, ["lost"])])
    assert re.search(r"\['.*(Timed out|timed out|timeout|closed).*', 'gone'\]", out, re.DOTALL)
