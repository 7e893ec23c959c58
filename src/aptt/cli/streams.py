"""What is printed arrives, whatever the terminal: any encoding, any width, closed or full."""

from __future__ import annotations

import codecs
import errno
import os
import shutil
import sys
import textwrap
import unicodedata

__all__ = ["LOST", "fitted", "lost", "plainly", "settle", "width"]

LOST = {errno.ENOSPC, errno.EBADF, errno.EIO, errno.EPIPE}
"""What the system says where an output takes nothing."""

_PLAIN = {"·": "|", "—": "-", "…": "...", "→": "->", "≤": "<="}
_PLAIN |= {bar: str(height) for height, bar in enumerate("▁▂▃▄▅▆▇█", start=1)}
_PIPE = 10**6


def settle() -> None:
    """Make both streams take every text: what they cannot encode is written in plain letters."""
    codecs.register_error("aptt.plain", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed from the start
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream.errors == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="aptt.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plainly(error.object[error.start : error.end]), error.end


def plainly(text: str) -> str:
    """Text in ASCII: bars as their heights, letters without their accents.

    >>> plainly("Lovász · ▁▄█")
    'Lovasz | 148'
    """
    text = "".join(_PLAIN.get(letter, letter) for letter in text)
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def lost(error: OSError) -> str | None:
    """What to say if an error is that of an output that takes nothing; it is taken out of use."""
    if error.errno not in LOST or error.filename is not None:
        return None
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    return f"the output cannot be written: {error.strerror}"


def width() -> int:
    """How wide lines may be: as the terminal is, or as COLUMNS says; as they are in a pipe."""
    return max(shutil.get_terminal_size((_PIPE, 24)).columns, 24)


def fitted(text: str) -> str:
    """Text with its lines broken to the width, each under its own indent."""
    limit = width()
    lines = []
    for line in text.splitlines():
        if len(line) <= limit:
            lines.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line.strip(),
            limit,
            initial_indent=indent,
            subsequent_indent=f"{indent}    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
