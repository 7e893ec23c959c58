"""The page about combining losses runs from top to bottom."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "compose.md"


def test_the_code_runs(capsys):
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope = {"__name__": "compose"}
    exec(compile("\n".join(blocks), PAGE, "exec"), scope)
    said = capsys.readouterr().out
    assert "*box" in said
    assert "'train/box/weight': 0.5" in said
    assert "term 'l1' is nan at step 0" in said
    assert "y has 1 of 2 that are not, the first at [1]" in said


def test_the_yaml_is_hydra_s():
    hydra = pytest.importorskip("hydra.utils")
    yaml = pytest.importorskip("yaml")
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    loss = hydra.instantiate(yaml.safe_load(text))
    assert list(loss.config()["terms"]) == ["cls", "box"]


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((\.\.[^)]*)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / link).exists(), link
