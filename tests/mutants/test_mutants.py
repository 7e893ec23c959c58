"""The tool on a module of a few lines, with tests that have a hole: it finds that one."""

import ast
import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # tests are no part of the package

from tests.mutants.mutate import apply, drawn, mutants  # noqa: E402
from tests.mutants.select import Recorded  # noqa: E402

SOURCE = '''\
"""At most 1: 2 - 1."""

__all__ = ["clipped"]
LIMIT = 1.0


def clipped(x: float, low: float = 0.0) -> float:
    """Within low and 1."""
    if x != x:
        raise ValueError("x: got nan" + "!")
    return max(low, min(x, LIMIT))


def unseen(x: float) -> float:
    return x + 1
'''
TESTS = """
import pytest
from tiny.module import clipped

def test_within():
    assert clipped(0.25) == 0.25

def test_below():
    assert clipped(-3.0) == 0.0

def test_above():
    assert clipped(3.0) == 1.0
"""


DRIVER = """
import json, sys
from pathlib import Path
from tests.mutants.mutate import mutants
from tests.mutants.trial import cold, serving

root, found = Path.cwd(), []
path, package, options = root / "tiny/module.py", root / "tiny", ["-c", "/dev/null", "--rootdir=."]
_, way = serving([*options, "test_tiny.py"], package)
plan = [("own", way.recv())]
for mutant in mutants("tiny/module.py", path.read_text()):
    way.send((mutant, path, plan, 5.0))
    verdict = way.recv()
    again = verdict.end == "cold"
    if again:
        verdict = cold(mutant, path, package, plan, 5.0, options)
    found.append([mutant.kind, mutant.before, verdict.end, verdict.test, again])
way.send(None)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Of every mutant of the module, by its kind and what it was: end, test, and whether cold."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "tiny").mkdir()
    for name, text in {"__init__": "", "module": SOURCE}.items():
        (root / "tiny" / f"{name}.py").write_text(text)
    (root / "test_tiny.py").write_text(TESTS)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{root}"}
    command = [sys.executable, "-c", DRIVER]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return {(kind, before): rest for kind, before, *rest in json.loads(run.stdout)}


def test_the_hole_is_found_and_nothing_else(verdicts):
    lived = {mutant for mutant, (end, *_) in verdicts.items() if end == "survived"}
    assert lived == {
        ("drop", "raise ValueError('x: got nan' + '!')"),
        ("Add", "x + 1"),
        ("off by one", "1"),
    }


def test_a_wrong_within_a_function_is_seen_by_the_test_of_it(verdicts):
    assert verdicts["twin", "max(low, min(x, LIMIT))"] == [
        *("killed", "test_tiny.py::test_within", False)
    ]
    assert verdicts["NotEq", "x != x"][0] == "killed"


@pytest.mark.parametrize(
    ("before", "test"), [("1.0", "test_above"), ("0.0", "test_within")], ids=["constant", "default"]
)
def test_a_wrong_in_what_is_made_at_import_is_seen(verdicts, before, test):
    assert verdicts["scale", before] == ["killed", f"test_tiny.py::{test}", True]


def test_texts_types_and_lists_of_names_are_left_alone(verdicts):
    texts = [before for _, before in verdicts if "got nan" in before or "clipped" in before]
    assert texts == ["raise ValueError('x: got nan' + '!')"]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("Sub", "a - b", "a + b"),
        ("LtE", "a <= b", "a < b"),
        ("And", "a and b", "a or b"),
        ("drop Not", "not a", "a"),
        ("drop USub", "-a", "a"),
        ("flip", "True", "False"),
        ("branches", "a if b else c", "c if b else a"),
        ("where", "torch.where(a, b, c)", "torch.where(a, c, b)"),
        ("drop dim=", "a.sum(dim=b)", "a.sum()"),
        ("twin", "a.amax(b)", "a.amin(b)"),
        ("drop", "a.add_(b)", "pass"),
        ("drop", "a = a[b]", "pass"),
        ("Mult", "a *= b", "a /= b"),
    ],
)
def test_a_change_is_one_change(kind, before, after):
    source = f"def f(a, b, c):\n    {before}\n    return a\n"
    (mutant,) = (m for m in mutants("x.py", source) if m.kind == kind)
    assert mutant.line == 2
    assert ast.unparse(apply(mutant, source)).splitlines()[1].strip() == after


def test_files_have_equal_shares(tmp_path):
    sizes = {"large.py": 50, "small.py": 1, "empty.py": 0, "medium.py": 20}
    for name, size in sizes.items():
        (tmp_path / name).write_text("".join(f"x{i} = {i}\n" for i in range(size)))
    chosen = drawn(tmp_path, list(sizes), 21, seed=3)
    assert Counter(m.file for m in chosen) == {"large.py": 10, "medium.py": 10, "small.py": 1}
    assert chosen == drawn(tmp_path, list(sizes), 21, seed=3)
    assert chosen[:11] == drawn(tmp_path, list(sizes), 11, seed=3)


def test_who_executes_a_line_is_tried_on_it_quickest_first(tmp_path):
    (tmp_path / "src/aptt/core").mkdir(parents=True)
    source = "def f(a):\n    b = a\n    return b + 1\n"
    (tmp_path / "src/aptt/core/x.py").write_text(source)
    names = ["tests/core/test_x.py::slow", "tests/core/test_x.py::quick", "tests/loss/test_y.py::z"]
    rows = [f"tests/test_conformance.py::test_promise[cpu-{p}-y]" for p in ("one", "two")]
    recorded = {
        "tests": dict(zip([*names, rows[0]], [2.0, 0.1, 0.1, 0.1], strict=True)),
        "lines": {"src/aptt/core/x.py": {"2": [0, 1, 2], "3": [0, 1, 3]}},
    }
    recorded["sources"] = {"src/aptt/core/x.py": zlib.crc32(source.encode())}
    (tmp_path / "lines.json").write_text(json.dumps(recorded))
    tests = Recorded(tmp_path, [tmp_path / "lines.json"], names + rows)
    (mutant,) = (m for m in mutants("src/aptt/core/x.py", source) if m.kind == "Add")
    plan = [(place, names) for place, names in tests.of(mutant) if names]
    assert plan == [("own", names[1:2]), ("conformance", rows), ("own", names[:1])]
