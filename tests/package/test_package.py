"""The package as a user gets it: built, installed somewhere new, imported, and type-checked."""

import json
import math
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import torch

import aptt

ROOT = Path(__file__).parents[2]


def run(*command, cwd=ROOT, **env):
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=cwd, env=clean | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, from the source folder."""
    pytest.importorskip("hatchling", reason="it comes with aptt[dev]")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(out))
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if "dist-info" not in name}


def test_the_wheel_is_the_library_and_no_more(built):
    files = names(built[0])
    assert "aptt/py.typed" in files
    assert {name.split("/")[0] for name in files} == {"aptt"}
    tracked = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "aptt").rglob("*")
               if p.is_file() and "__pycache__" not in p.parts}  # fmt: skip
    assert files == tracked
    with zipfile.ZipFile(built[0]) as archive:
        (about,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        text = archive.read(about).decode()
    assert f"Version: {aptt.__version__}\n" in text
    wanted = re.findall(r"^Requires-Dist: ([^;\n]+)$", text, re.MULTILINE)
    assert [re.split(r"[ <>=!~]", each)[0] for each in wanted] == ["torch"]


def test_the_sdist_makes_the_same_wheel(built, tmp_path):
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "LICENSE").is_file()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=source)
    (again,) = tmp_path.glob("*.whl")
    assert names(again) == names(wheel)


def test_it_installs_where_nothing_else_of_it_is(built, tmp_path):
    new = tmp_path / "new"
    venv.create(new, with_pip=False, symlinks=True)
    python = new / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(new)]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(built[0]))
    # torch, which is large, is lent; the wheel comes first
    packages = next(new.glob("[Ll]ib*/**/site-packages"))
    (packages / "lent.pth").write_text(str(Path(torch.__file__).parents[1]))
    told = run(
        str(python),
        "-c",
        "import json, torch, aptt, aptt.loss, aptt.cli\n"
        "loss = aptt.loss.CrossEntropyLoss()(torch.zeros(2, 3), torch.tensor([0, 1]))\n"
        "print(json.dumps([aptt.__file__, aptt.__version__, loss.item()]))",
        cwd=tmp_path,
    )
    file, version, loss = json.loads(told)
    assert Path(file).is_relative_to(new)
    assert version == aptt.__version__
    assert loss == pytest.approx(math.log(3))
    assert run(str(python.parent / "aptt"), "--version", cwd=tmp_path) == f"aptt {version}\n"


def test_a_typed_program_is_checked_as_its_author_means_it():
    program = Path(__file__).with_name("typed_user.py")
    wrong = [i for i, line in enumerate(program.read_text().splitlines(), 1) if "# wrong" in line]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(program)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": "src"},
        capture_output=True,
        text=True,
    )
    found = [int(line) for line in re.findall(r"typed_user.py:(\d+): error", done.stdout)]
    assert found == wrong, done.stdout + done.stderr
