import json
import subprocess
import sys

import pytest

from aptt import __version__
from aptt.cli import main
from aptt.cli.commands import COMMANDS


def python(code):
    """Run code in a fresh interpreter, where nothing is imported yet."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def refused(capsys, *argv):
    """The one line that a mistake in the call is answered with."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_help_names_every_command_without_loading_torch():
    code = """
import sys
from aptt.cli import main
try:
    main(["--help"])
finally:
    print("torch" in sys.modules)
"""
    run = python(code)
    assert run.returncode == 0
    assert all(name in run.stdout for name in COMMANDS)
    assert run.stdout.splitlines()[-1] == "False"


HEAVY = ("matplotlib", "jinja2", "hypothesis", "rich", "sklearn", "pandas", "PIL", "sphinx")


@pytest.mark.parametrize(
    ("argv", "alien"),
    [
        (["--help"], ("torch", "aptt.loss", "aptt.audit", "aptt.report", "aptt.recipes")),
        (["--version"], ("torch", "aptt.loss", "aptt.audit", "aptt.report", "aptt.recipes")),
        (["audit", "--help"], ("torch", "aptt.loss", "aptt.audit")),
        (["plot", "--help"], ("torch", "aptt.loss", "aptt.report")),
        (
            ["list"],
            ("aptt.audit", "aptt.report", "aptt.recipes", "torch._dynamo", "torch._inductor"),
        ),
        (["show", "giou"], ("aptt.recipes",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_command_imports_only_what_it_needs(argv, alien):
    code = f"""
import sys
from aptt.cli import main
try:
    main({argv!r})
except SystemExit:
    pass
print(*sys.modules)
"""
    run = python(code)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.splitlines()[-1].split())
    assert not loaded & {*alien, *HEAVY}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"aptt {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["audit", "compare", "plot", "train"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"examples:\n  aptt {command} " in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"aptt {__version__}\n"


def test_unknown_command_is_told_what_was_meant(capsys):
    assert "did you mean 'train'?" in refused(capsys, "trian")


@pytest.mark.parametrize("argv", [(), ("list", "more"), ("train", "--seed", "one"), ("show",)])
def test_wrong_arguments_point_to_help(capsys, argv):
    assert "--help`" in refused(capsys, *argv)


def test_missing_extra_is_named():
    code = """
import sys
sys.modules["sklearn"] = None  # as if it were not installed
from aptt.cli import main
sys.exit(main(["train", "classification"]))
"""
    run = python(code)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr == (
        "aptt: 'sklearn' is not installed; it comes with: pip install \"aptt[recipes]\"\n"
    )


def test_list_works_without_the_extra():
    code = """
import sys
for name in ("jinja2", "matplotlib", "numpy", "rich", "sklearn"):
    sys.modules[name] = None
from aptt.cli import main
sys.exit(main(["list", "--json"]))
"""
    run = python(code)
    assert run.returncode == 0
    assert "cross_entropy" in {entry["function"] for entry in json.loads(run.stdout)}


def test_a_reader_may_leave_early():
    argv = [sys.executable, "-m", "aptt", "list"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 0
