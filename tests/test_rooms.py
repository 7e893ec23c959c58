"""The house rule: who may import whom, and what `import aptt.loss` may do."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import aptt

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "aptt"
FOUNDATION = sorted([*SOURCE.glob("core/**/*.py"), *SOURCE.glob("loss/**/*.py")])


def test_imports_go_one_way(capsys):
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FASTER = {"core/assignment": {"scipy"}}
"""What is taken where it is installed, and changes nothing but the time; tests go without."""


@pytest.mark.parametrize("path", FOUNDATION, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_losses_need_torch_alone(path):
    allowed = {"aptt", "torch"} | sys.stdlib_module_names
    allowed |= FASTER.get(f"{path.parent.name}/{path.stem}", set())
    assert {name.partition(".")[0] for name in _imports(path)} <= allowed


def test_losses_know_nothing_of_ranks():
    names = {name for path in SOURCE.glob("loss/**/*.py") for name in _imports(path)}
    assert not {name for name in names if name.startswith("torch.distributed")}


IMPORT = """
import json, os, random, sys, warnings
import torch

def state():
    return {
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "generator": torch.get_rng_state().tolist(),
        "random": repr(random.getstate()),
        "print": str(torch._tensor_str.PRINT_OPTS),
        "warnings": repr(warnings.filters),
        "environment": dict(os.environ),
    }

modules, before = set(sys.modules), state()
import aptt.loss
print(json.dumps({
    "modules": sorted(set(sys.modules) - modules),
    "changed": [name for name, value in state().items() if value != before[name]],
}))
"""


@pytest.fixture(scope="module")
def importing():
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_importing_the_losses_loads_only_them_and_torch(importing):
    ours = {name for name in importing["modules"] if name.partition(".")[0] == "aptt"}
    others = {name.partition(".")[0] for name in importing["modules"]} - {"aptt", "torch"}
    assert others <= sys.stdlib_module_names
    assert {name.split(".")[1] for name in ours if "." in name} == {"core", "loss"}


def test_importing_the_losses_changes_nothing(importing):
    assert importing["changed"] == []


@pytest.mark.parametrize(("name", "room"), [("FocalLoss", "loss"), ("CombinedLoss", "compose")])
def test_a_name_that_is_looked_for_in_the_wrong_room_is_sent_to_the_right_one(name, room):
    with pytest.raises(ImportError, match=f"from aptt.{room} import {name}$"):
        exec(f"from aptt import {name}")
    with pytest.raises(ImportError, match="cannot import name 'nonsense'"):
        exec("from aptt import nonsense")
    assert not hasattr(aptt, name)  # as those ask who look for the shortest path of a class
