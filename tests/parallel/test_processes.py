"""Real processes: what is spread over ranks is what one process computes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

WORKERS = Path(__file__).with_name("workers.py")


def run(check, world):
    done = subprocess.run(
        [sys.executable, str(WORKERS), check, str(world)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


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


@pytest.mark.parametrize("world", [2, 4])
def test_it_is_what_one_process_computes(world):
    """In one world, for a process takes longer to start than a check to run."""
    out = run(",".join(CHECKS), world)
    assert [line.split()[0] for line in out.splitlines() if line] == CHECKS


def test_embeddings_of_a_world_of_one_are_compared():
    assert "embeddings" in run("embeddings", 1)


def test_answers_of_a_world_of_one_are_compared():
    assert "answers" in run("answers", 1)


def test_every_way_to_a_mean_over_ranks_is_the_same():
    assert "normalizers" in run("normalizers", 2)


def test_a_mean_of_means_is_off_by_what_the_documentation_says():
    out = run("naive", 2)
    (off,) = re.findall(r"off by ([\d.]+%)", out)
    page = Path(__file__).parents[2] / "docs" / "scale.md"
    assert f"off by {off}" in page.read_text(encoding="utf-8")


def test_a_rank_that_is_lost_is_an_error_on_the_others():
    out = run("lost", 2)
    assert re.search(r"\['.*(Timed out|timed out|timeout|closed).*', 'gone'\]", out, re.DOTALL)
