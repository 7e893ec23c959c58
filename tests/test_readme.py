"""What the readme shows runs as it is written, and its table is complete."""

import re
from pathlib import Path

import pytest

import aptt.loss

ROOT = Path(__file__).parents[1]
READMES = sorted(ROOT.glob("README*.md"))


def names(path):
    return path.name


@pytest.mark.parametrize("path", READMES, ids=names)
def test_the_code_runs_from_top_to_bottom(path):
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    scope = {"__name__": path.stem}
    exec(compile("\n".join(blocks), path, "exec"), scope)
    assert scope["loss"].isfinite()
    assert scope["logits"].grad.isfinite().all()


@pytest.mark.parametrize("path", READMES, ids=names)
def test_the_table_names_losses_that_there_are(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`(\w+_loss|\w+_entropy)`", text)
    assert len(named) > 30
    assert set(named) <= set(aptt.loss.__all__)


@pytest.mark.parametrize("path", READMES, ids=names)
def test_it_fits_into_one_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 150


def test_the_overview_names_every_loss():
    text = (ROOT / "docs" / "modules_overview.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE)
    named = {(file, name) for file, cell in rows for name in re.findall(r"`(\w+)`", cell)}
    public = {
        (getattr(aptt.loss, name).__module__.split(".")[2], name) for name in aptt.loss.__all__
    }
    assert {(file, name) for file, name in public if name.lower().endswith("loss")} <= named


def test_the_readmes_show_the_same_code():
    codes = [
        re.sub(
            r" *#.*", "", "".join(re.findall(r"```\w+\n.*?```", path.read_text("utf-8"), re.DOTALL))
        )
        for path in READMES
    ]
    assert len(codes) == 2
    assert codes[0] == codes[1]
