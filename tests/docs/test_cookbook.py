"""Each program of the cookbook is complete, short, and runs."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_twelve_and_the_readmes_lead_to_them():
    assert len(PROGRAMS) == 12 == TEXT.count("```python")
    for name in ("README.md", "README.de.md"):
        first_screen = (ROOT / name).read_text(encoding="utf-8").splitlines()[:40]
        assert "(docs/cookbook.md)" in "\n".join(first_screen)


@pytest.mark.parametrize("program", [p for _, p in PROGRAMS], ids=[title for title, _ in PROGRAMS])
def test_a_program_runs_and_is_short(program):
    lines = [line for line in program.splitlines() if line.strip()]
    assert 12 <= len(lines) <= 25
    with torch.random.fork_rng():
        exec(program, scope := {"__name__": "cookbook"})
    assert scope["loss"].isfinite()
    assert scope["loss"].requires_grad
