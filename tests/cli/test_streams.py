"""Every text arrives on every terminal, and no output that takes nothing ends in a traceback."""

import errno
import io
import sys

import pytest

from aptt.cli import main
from aptt.cli.streams import fitted, plainly


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize("argv", [["list"], ["show", "lovasz"], ["audit", "--promises"]])
def test_any_encoding_will_do(monkeypatch, argv, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(argv) == 0
    text = written.getvalue().decode(encoding)
    assert len(text) > 200
    assert "?" not in text.split("Args:")[0].replace("?.", "")


def test_bars_become_their_heights():
    assert plainly("Lovász · ▁▄█ x") == "Lovasz | 148 x"


def test_a_stdout_that_was_closed_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["audit", "--kinds"]) == 0
    sys.stdout.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")
@pytest.mark.parametrize("argv", [["audit", "--kinds"], ["audit", "--help"], ["--version"]])
def test_a_full_output_is_told_in_a_line(monkeypatch, capsys, argv):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(argv) == 2
        assert capsys.readouterr().err == (
            "aptt: the output cannot be written: No space left on device\n"
        )


class _Full(io.StringIO):
    errors = "backslashreplace"

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_mistake_needs_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Full())
    assert main(["shwo"]) == 2


@pytest.mark.parametrize("argv", [["list"], ["show", "giou"], ["show", "sdr"]])
def test_lines_are_as_narrow_as_the_terminal(monkeypatch, capsys, argv):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(argv) == 0
    long = [line for line in capsys.readouterr().out.splitlines() if len(line) > 60]
    assert not [line for line in long if " " in line.strip()]


def test_in_a_pipe_lines_stay_whole(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert fitted("x " * 200).count("\n") == 0


@pytest.mark.parametrize(
    ("argv", "option"), [(["audit", "wing"], "--junit"), (["plot", "wing"], "--out")]
)
def test_where_nothing_can_be_written_no_work_is_begun(tmp_path, capsys, argv, option):
    for path, said in (
        (tmp_path / "no" / "x.png", "there is no folder"),
        (tmp_path, "is a folder" if option == "--junit" else "wanted a name with .png or .svg"),
    ):
        assert main([*argv, option, str(path)]) == 2
        assert said in capsys.readouterr().err
