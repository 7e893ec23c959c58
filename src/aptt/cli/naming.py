"""Find what a command line names: an object in a module, a function in a file, a value."""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from aptt.cli.mistakes import Mistake

__all__ = ["from_file", "load", "value"]


def load(target: str) -> Any:
    """The object that ``package.module:name`` names; modules of the working folder count too."""
    path, _, name = target.partition(":")
    if not path or not name:
        raise Mistake(f"{target!r}: wanted package.module:name")
    if path.endswith(".py"):
        module = path.removesuffix(".py").replace("/", ".").lstrip(".")
        raise Mistake(f"{target!r}: a module goes without .py: {module}:{name}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise Mistake(f"{target!r}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise Mistake(f"{target!r}: {path!r} has no {name!r}{meant}")
        found = getattr(found, part)
    return found


def from_file(file: Path, name: str) -> Any:
    """What a Python file calls ``name``."""
    if not file.is_file():
        raise Mistake(f"{file}: there is no such file")
    scope = runpy.run_path(str(file))
    if name not in scope:
        raise Mistake(f"{file}: it has no {name!r}")
    return scope[name]


def value(text: str) -> Any:
    """A Python literal, or else the text itself.

    >>> value("2"), value("(1, 2)"), value("binary")
    (2, (1, 2), 'binary')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
