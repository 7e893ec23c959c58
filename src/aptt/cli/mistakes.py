"""Mistakes in a call, each told in one line, and the exit codes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["MISTAKEN", "STOPPED", "Mistake", "needs_extra", "pick", "writable", "writing"]

MISTAKEN = 2
STOPPED = 130  # what a shell reports of a program that Ctrl-C ended


class Mistake(Exception):
    """Something in the call that the user can mend; its text says how."""


def pick(
    kind: str,
    name: str,
    names: Iterable[str],
    *,
    key: Callable[[str], str] = str.lower,
    every: str | None = None,
) -> str:
    """Return the one of ``names`` that ``name`` stands for, or say which was probably meant.

    Names are compared by their ``key``. ``every`` says where to find them all, if they are many.

    >>> pick("recipe", "Segmentation", ["classification", "segmentation"])
    'segmentation'
    >>> pick("recipe", "segmentatoin", ["classification", "segmentation"])
    Traceback (most recent call last):
    aptt.cli.mistakes.Mistake: unknown recipe 'segmentatoin'; did you mean 'segmentation'?
    >>> pick("recipe", "x", ["classification", "segmentation"])
    Traceback (most recent call last):
    aptt.cli.mistakes.Mistake: unknown recipe 'x'; there are: classification, segmentation
    """
    by_key = {key(each): each for each in names}
    if key(name) in by_key:
        return by_key[key(name)]
    close = difflib.get_close_matches(key(name), by_key, n=1)
    if close:
        raise Mistake(f"unknown {kind} {name!r}; did you mean {by_key[close[0]]!r}?")
    every = every or "there are: " + ", ".join(map(_quoted, by_key.values()))
    raise Mistake(f"unknown {kind} {name!r}; {every}")


def _quoted(name: str) -> str:
    """A name as one writes it in a shell."""
    return f"'{name}'" if " " in name or "," in name else name


def writable(option: str, path: Path) -> Path:
    """Hold a file that is to be written to where one can be, before the work is begun."""
    if path.is_dir():
        raise Mistake(f"{option}: {str(path)!r} is a folder, wanted a file")
    if not path.parent.is_dir():
        raise Mistake(f"{option}: there is no folder {str(path.parent)!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Mistake(f"{option}: {str(path)!r} may not be written")
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a file that could not be written whole, and leave no part of it."""
    try:
        yield
    except OSError as error:
        if path.is_file() and not path.is_symlink():
            with suppress(OSError):
                path.unlink()
        raise Mistake(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn the absence of an optional package into the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "aptt").partition(".")[0]
        if package == "aptt":
            raise
        raise Mistake(
            f'{package!r} is not installed; it comes with: pip install "aptt[{extra}]"'
        ) from error
