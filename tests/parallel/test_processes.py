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


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(
    "check",
    [
        "vocabulary",
        "hard_rows",
        "dtensor",
        "memory",
        "sequence",
        "gathering",
        "ddp",
        "fsdp",
        "accumulation",
    ],
)
def test_it_is_what_one_process_computes(check, world):
    assert check in run(check, world)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_embeddings_are_compared_with_those_of_all_ranks(world):
    assert "embeddings" in run("embeddings", world)


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
