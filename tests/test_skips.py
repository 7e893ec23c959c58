"""What is skipped is said, and a run that must skip nothing fails of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = """
import pytest

def test_of_a_browser():
    pytest.skip("no chromium on this machine")

def test_of_a_peer():
    pytest.importorskip("a_peer_that_nobody_has")

def test_of_data():
    pytest.skip("nobody, with their data, is not installed")
"""


@pytest.mark.parametrize(
    ("options", "test", "code", "said"),
    [
        ([], "browser", 0, "skipped 1: no chromium on this machine"),
        (["--nothing-skipped"], "browser", 1, "FAILED: --nothing-skipped, and skipped 1: no chr"),
        (["--nothing-skipped"], "peer", 0, "skipped 1: a_peer_that_nobody_has is not installed"),
        (["--nothing-skipped"], "data", 0, "skipped 1: nobody is not installed"),
    ],
)
def test_what_is_skipped_is_said(tmp_path, options, test, code, said):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_skips.py").write_text(SKIPS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "-k", test]
    run = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == code, run.stdout + run.stderr
    assert said in run.stdout
