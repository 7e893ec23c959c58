"""The page of the report card, from what the audit found."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from aptt import __version__
from aptt.audit import PROMISES, Record
from aptt.cli.catalogue import entries
from aptt.cli.curve import rows_of
from docs.builder.peers import Peer

__all__ = ["page"]

Theirs = Sequence[tuple[Peer, list[Record]]]

_HEAD = """\
# The report card

Our losses and those of other libraries under the same audit. Written by `python -m docs.builder card`, not by hand.

- **kept**: checked, and it holds. **broken**: checked, and it does not; the input that shows it is below.
- **choice**: it does not hold, and its authors meant it so or all of their library does alike; the reason is given.
- **not asked**: it cannot be asked of this loss, such as "ignored equals removed" where nothing can be ignored.

Where a peer has other conventions, it is asked for less: any error counts as a refusal, its own accuracy is allowed
for, and what its interface does not offer is not asked. Ours are held to all of it, each with every option set away
from its default in some case. A broken promise is not always a bug that bites; read the input and judge. What is kept
is kept on the inputs that were tried; the last column of [the promises](#the-promises) says which were not.

The same for a loss of your own:

```sh
pip install ".[audit]"  # in the folder of the source
aptt audit mine.losses:MyLoss --kind logits+classes
```
"""  # noqa: E501

_MATRIX = """\
How many of its losses keep a promise, of those that were asked: **bold** where one breaks it, *slanted* where those that
do not keep it do so by choice.
"""  # noqa: E501


def page(
    ours: Sequence[Record], theirs: Theirs, missing: Sequence[str], versions: Mapping[str, str]
) -> str:
    """The whole page: who was asked, at a glance, by promise, and all that is broken."""
    made = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines = [
        _HEAD,
        f"Made with aptt {__version__}, {made}, Python {platform.python_version()}, on the CPU.",
        *("", "## At a glance", ""),
        *_libraries(ours, theirs),
        *("", "### Promise by promise", "", _MATRIX),
        *_matrix(ours, theirs),
        *("", "### Loss by loss", ""),
        *_losses(theirs),
        *("", "## The promises", "", "| promise | what it says | what it does not see |"),
        "| --- | --- | --- |",
        *(f"| `{p.name}` | {cell(p.about)} | {cell(p.limits)} |" for p in PROMISES.values()),
        *("", "## Ours", ""),
        *_ours(ours),
    ]
    for library, some in groupby(theirs, key=lambda row: row[0].library):
        lines += ["", f"## {library}"]
        for peer, records in some:
            lines += ["", f"### {library} `{peer.title}`", "", *_failures(peer, records)]
    if missing:
        lines += ["", "## Not imported here", "", *(f"- {cell(line)}" for line in missing)]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------- at a glance


def _libraries(ours: Sequence[Record], theirs: Theirs) -> list[str]:
    lines = [
        "| library | losses | kept | broken | choice | not asked |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    lines.append(_counts(f"**aptt** | {len({r.loss for r in ours})}", ours, []))
    for library, some in groupby(theirs, key=lambda row: row[0].library):
        rows = list(some)
        counts = [_count(records, peer.choices) for peer, records in rows]
        counted = [sum(column) for column in zip(*counts, strict=True)]
        lines.append(f"| {library} | {len(rows)} | {' | '.join(map(str, counted))} |")
    return lines


def _matrix(ours: Sequence[Record], theirs: Theirs) -> list[str]:
    """Tables that are narrow enough for a page, of the promises that not all keep."""
    marked: dict[str, list[tuple[Record, bool]]] = {"aptt": [(r, False) for r in ours]}
    for peer, records in theirs:
        some = marked.setdefault(peer.library, [])
        some += [(record, record.promise in peer.choices) for record in records]
    shares = {
        promise: {
            library: _share([(r, chosen) for r, chosen in some if r.promise == promise])
            for library, some in marked.items()
        }
        for promise in PROMISES
    }
    differ = [promise for promise, some in shares.items() if any("*" in s for s in some.values())]
    others = [library for library in marked if library != "aptt"]
    lines: list[str] = []
    for start in range(0, len(others), _COLUMNS):
        libraries = ["aptt", *others[start : start + _COLUMNS]]
        lines += [
            f"| promise | {' | '.join(_short(name) for name in libraries)} |",
            "| --- |" + " --: |" * len(libraries),
        ]
        for promise in differ:
            cells = " | ".join(shares[promise][library] for library in libraries)
            lines.append(f"| `{promise}` | {cells} |")
        lines.append("")
    kept = ", ".join(f"`{promise}`" for promise in PROMISES if promise not in differ)
    return [*lines, f"Kept by all that were asked: {kept}."]


_COLUMNS = 5


def _short(library: str) -> str:
    """A name that leaves a column narrow."""
    parts = library.split("-")
    return "".join(part[0] for part in parts) if len(parts) > 2 else parts[0]


def _share(records: Sequence[tuple[Record, bool]]) -> str:
    asked = [(r, chosen) for r, chosen in records if r.state != "does not apply"]
    if not asked:
        return ""
    kept = sum(r.state == "kept" for r, _ in asked)
    said = f"{kept}/{len(asked)}"
    broken = [chosen for r, chosen in asked if r.state == "broken"]
    return f"**{said}**" if not all(broken) else f"*{said}*" if broken else said


def _losses(theirs: Theirs) -> list[str]:
    lines = ["| loss | kept | broken | choice | not asked |", "| --- | --: | --: | --: | --: |"]
    for peer, records in theirs:
        lines.append(_counts(f"{peer.library} `{peer.title}`", records, peer.choices))
    return lines


def _counts(name: str, records: Iterable[Record], choices: Iterable[str]) -> str:
    return f"| {name} | {' | '.join(map(str, _count(records, choices)))} |"


def _count(records: Iterable[Record], choices: Iterable[str]) -> tuple[int, int, int, int]:
    """Kept, broken, chosen, not asked."""
    records = list(records)
    broken = [r for r in records if r.state == "broken"]
    chosen = sum(r.promise in set(choices) for r in broken)
    kept = sum(r.state == "kept" for r in records)
    return kept, len(broken) - chosen, chosen, len(records) - kept - len(broken)


# ------------------------------------------------------------------------------ what is broken


def _ours(ours: Sequence[Record]) -> list[str]:
    """What is broken; and by family, what is asked of whom."""
    broken = [record for record in ours if record.state == "broken"]
    lines = [f"- `{r.loss}`, {r.promise}: {cell(r.why)}" for r in broken] or [
        "Every promise that applies is kept, in every dtype. What does not apply, and why, is on "
        "the page of each loss. The number beside a loss says how many promises it was held to."
    ]
    lines += ["", "| family | rows | losses, and the promises each was held to |"]
    lines += ["| --- | --: | --- |"]
    for family, losses in _families(list(dict.fromkeys(r.loss for r in ours))).items():
        held = {n: sum(r.loss == n and r.state != "does not apply" for r in ours) for n in losses}
        said = ", ".join(f"`{name}` {count}" for name, count in held.items())
        lines.append(f"| {family} | {len(losses)} | {said} |")
    return lines


def _families(losses: Sequence[str]) -> dict[str, list[str]]:
    """The rows by family, as the gallery has them, in the order of the rows."""
    where = {
        spec.name: entry.room_title.partition(":")[0].rstrip(".")
        for entry in entries()
        for spec in rows_of(entry)
    }
    families: dict[str, list[str]] = {}
    for name in losses:
        families.setdefault(where.get(name, "others"), []).append(name)
    return families


def _failures(peer: Peer, records: Sequence[Record]) -> list[str]:
    broken = [record for record in records if record.state == "broken"]
    chosen = [record for record in broken if record.promise in peer.choices]
    shown = [record for record in broken if record not in chosen]
    lines = [] if shown else ["Every promise that could be asked is kept, but for choices."]
    lines = lines if broken else ["Every promise that could be asked is kept."]
    if shown:
        lines += ["| broken promise | how | smallest input found |", "| --- | --- | --- |"]
        for record in shown:
            small = record.smallest.partition(": ")[0]
            small = f"`{cell(small, 150)}`" if small else ""
            lines.append(f"| `{record.promise}` | {cell(record.why)} | {small} |")
    reasons: dict[str, list[str]] = {}
    for record in chosen:
        reasons.setdefault(peer.choices[record.promise], []).append(f"`{record.promise}`")
    if reasons:
        said = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
        lines += ["", f"By choice not kept: {said}."]
    return lines


def cell(text: str, most: int = 260) -> str:
    """A text as it stands in a table."""
    text = " ".join(text.split()).replace("|", "\\|").replace("``", "`")
    text = text.replace("<", "&lt;") if "`" not in text else text
    return text if len(text) <= most else text[: most - 1] + "…"
