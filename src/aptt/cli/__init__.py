"""The command line: ``aptt COMMAND ...``.

Exit codes: 0 done, 2 a mistake in the call, said in one line, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from aptt import __version__
from aptt.cli.commands import COMMANDS
from aptt.cli.mistakes import MISTAKEN, STOPPED, Mistake, pick
from aptt.cli.streams import lost, settle

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line instead of the usage text."""

    def error(self, message: str) -> NoReturn:
        raise Mistake(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    settle()
    try:
        try:
            args = _parse(argv)
        except SystemExit:  # help or version, which are printed
            sys.stdout.flush()
            raise
        code: int = args.run(args)
        sys.stdout.flush()
    except Mistake as mistake:
        _say(str(mistake))
        return MISTAKEN
    except KeyboardInterrupt:
        _say("stopped")
        return STOPPED
    except BrokenPipeError as error:  # a reader such as `head` has seen enough
        lost(error)
        return 0
    except OSError as error:
        said = lost(error)
        if said is None:
            raise
        _say(said)
        return MISTAKEN
    return code


def _say(text: str) -> None:
    """Tell it on stderr, if that takes anything."""
    with suppress(OSError):
        print(f"aptt: {text}", file=sys.stderr, flush=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="aptt", description="Losses that a model's author can trust.")
    parser.add_argument("--version", action="version", version=f"aptt {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    parsers = {
        name: commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        for name, summary in COMMANDS.items()
    }
    if argv and not argv[0].startswith("-"):
        name = pick("command", argv[0], COMMANDS)
        argv = [name, *argv[1:]]
        module = importlib.import_module(f"aptt.cli.commands.{name}")
        module.configure(parsers[name])
        parsers[name].set_defaults(run=module.run, command_line=argv)
    return parser.parse_args(argv)
