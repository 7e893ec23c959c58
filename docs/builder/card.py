"""The report card of the field: ours and the peers that are installed, under the same audit.

Run ``python -m docs.builder card`` from the repository to write ``docs/audit.md``.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from aptt import __version__
from aptt.audit import PROMISES, SPECS, Record, audit
from docs.builder.peers import PEERS, Peer

__all__ = ["write"]

_HEAD = """\
# The report card

Our losses and those of other libraries under the same audit. Written by `python -m docs.builder card`, not by hand.

- **kept**: checked, and it holds. **broken**: checked, and it does not; the input that shows it is below.
- **choice**: it does not hold, and its authors meant it so or all of their library does alike; the reason is given.
- **not asked**: it cannot be asked of this loss, such as "ignored equals removed" where nothing can be ignored.

Where a peer has other conventions, it is asked for less: any error counts as a refusal, its own accuracy is allowed
for, and what its interface does not offer is not asked. Ours are held to all of it, each with every option set away
from its default in some case. A broken promise is not always a bug that bites; read the input and judge.

The same for a loss of your own:

```sh
pip install ".[audit]"  # in the folder of the source
aptt audit mine.losses:MyLoss --kind logits+classes
```
"""  # noqa: E501


def write(path: Path) -> None:
    """Audit everything, and write the page."""
    ours = list(audit(SPECS.values(), PROMISES.values()))
    theirs: list[tuple[Peer, list[Record]]] = []
    missing: list[str] = []
    for peer in PEERS:
        try:
            row = peer.row()
        except ModuleNotFoundError as error:
            missing.append(f"{peer.library} `{peer.title}`: {error}")
            continue
        print(f"{peer.library} {peer.title}", file=sys.stderr)
        theirs.append((peer, list(audit([row], PROMISES.values(), shrink=True))))
    path.write_text(_page(ours, theirs, missing), encoding="utf-8")


def _page(
    ours: Sequence[Record], theirs: Sequence[tuple[Peer, list[Record]]], missing: Sequence[str]
) -> str:
    names = sorted({peer.library for peer, _ in theirs})
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    made = (
        f"Made with aptt {__version__}, {versions}, Python {platform.python_version()}, on the CPU."
    )
    lines = [_HEAD, made, "", "## At a glance", ""]
    lines += ["| loss | kept | broken | choice | not asked |", "| --- | --: | --: | --: | --: |"]
    for loss in dict.fromkeys(record.loss for record in ours):
        lines.append(_counts(f"aptt `{loss}`", [r for r in ours if r.loss == loss], {}))
    for peer, records in theirs:
        lines.append(_counts(f"{peer.library} `{peer.title}`", records, peer.choices))
    lines += ["", "## The promises", "", "| promise | what it says | what it does not see |"]
    lines += ["| --- | --- | --- |"]
    lines += [f"| `{p.name}` | {_cell(p.about)} | {_cell(p.limits)} |" for p in PROMISES.values()]
    broken = [record for record in ours if record.state == "broken"]
    lines += ["", "## Ours", ""]
    lines += [f"- `{r.loss}`, {r.promise}: {_cell(r.why)}" for r in broken] or [
        "Every promise that applies is kept, in every dtype. What does not apply, and why, is on "
        "the page of each loss."
    ]
    for peer, records in theirs:
        lines += _failures(peer, records)
    if missing:
        lines += ["", "## Not installed here", "", *(f"- {line}" for line in missing)]
    return "\n".join(lines) + "\n"


def _counts(name: str, records: Iterable[Record], choices: Iterable[str]) -> str:
    records = list(records)
    broken = [r for r in records if r.state == "broken"]
    chosen = sum(r.promise in set(choices) for r in broken)
    kept = sum(r.state == "kept" for r in records)
    rest = len(records) - kept - len(broken)
    return f"| {name} | {kept} | {len(broken) - chosen} | {chosen} | {rest} |"


def _failures(peer: Peer, records: Sequence[Record]) -> list[str]:
    lines = ["", f"## {peer.library} `{peer.title}`", ""]
    broken = [record for record in records if record.state == "broken"]
    if not broken:
        return [*lines, "Every promise that could be asked is kept."]
    lines += ["| promise | | how | smallest input found |", "| --- | --- | --- | --- |"]
    for record in sorted(broken, key=lambda r: r.promise in peer.choices):
        choice = peer.choices.get(record.promise)
        mark = "choice" if choice else "**broken**"
        how = f"{choice}. {_cell(record.why)}" if choice else _cell(record.why)
        shown = record.smallest.partition(": ")[0]
        small = f"`{_cell(shown, 150)}`" if shown and not choice else ""
        lines.append(f"| `{record.promise}` | {mark} | {how} | {small} |")
    return lines


def _cell(text: str, most: int = 260) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("``", "`")
    text = text.replace("<", "&lt;") if "`" not in text else text
    return text if len(text) <= most else text[: most - 1] + "…"


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(Path(__file__).parents[1] / "audit.md")
