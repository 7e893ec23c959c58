"""The command line: ``aptt COMMAND ...``.

Exit codes: 0 done, 2 a mistake in the call, said in one line, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from aptt import __version__
from aptt.cli.commands import COMMANDS
from aptt.cli.mistakes import MISTAKEN, STOPPED, Mistake, pick

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line instead of the usage text."""

    def error(self, message: str) -> NoReturn:
        raise Mistake(f"{message} (see `{self.prog} --help`)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _parse(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except Mistake as mistake:
        print(f"aptt: {mistake}", file=sys.stderr)
        return MISTAKEN
    except KeyboardInterrupt:
        print("aptt: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


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
