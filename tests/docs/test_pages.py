"""The code on the pages runs as it is written."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from aptt.cli import main
from aptt.recipes import RECIPES

TEXT = (Path(__file__).parents[2] / "docs" / "getting_started.md").read_text(encoding="utf-8")
FIRST, MINE, INPUTS, TEST = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_first_loss_runs():
    scope = {}
    exec(FIRST, scope)
    assert scope["logits"].grad.isfinite().all()


def test_the_audit_of_ones_own_loss_finds_what_the_page_says(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "aptt audit mine:my_loss --kind logits+multilabel" in TEXT
    argv = ["audit", "mine:my_loss", "--kind", "logits+multilabel"]
    assert main([*argv, "--promise", "finite_at_extremes"]) == 1
    assert "! finite_at_extremes: BROKEN" in capsys.readouterr().out
    (tmp_path / "mine.py").write_text(MINE + INPUTS)
    sys.modules.pop("mine", None)
    assert "aptt audit mine:my_loss --inputs mine:inputs" in TEXT
    argv = ["audit", "mine:my_loss", "--inputs", "mine:inputs"]
    assert main([*argv, "--promise", "finite_at_extremes"]) == 1
    assert "! finite_at_extremes: BROKEN" in capsys.readouterr().out
    exec(TEST, scope := {})
    assert len(scope["test_my_loss"].pytestmark[0].args[1]) > 20


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_has_the_data_of_every_recipe_with_its_terms(name):
    rows = [row for row in TEXT.splitlines() if row.startswith("| ") and name in row]
    recipe = getattr(importlib.import_module(f"aptt.recipes.{name}"), RECIPES[name])
    for source in recipe.sources:
        assert [row for row in rows if all(part in row for part in (source.name, source.terms))], (
            source
        )
