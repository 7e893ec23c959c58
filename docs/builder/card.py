"""The report card of the field: ours and the peers that are installed, under the same audit.

Run ``python -m docs.builder card`` from the repository to write ``docs/audit.md``. What is audited
is kept in ``build/card``: a run that was stopped goes on, and only what has changed is asked again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import torch

from aptt.audit import PROMISES, SPECS, Record, audit
from benchmarks.peers import torchvision_imports
from docs.builder.card_page import page
from docs.builder.peers import PEERS

__all__ = ["write"]

ROOT = Path(__file__).parents[2]
_LEFT_OUT = "not here: "


def write(path: Path, *, jobs: int = 1, kept: Path = ROOT / "build" / "card") -> None:
    """Audit everything, in so many processes, and write the page."""
    kept.mkdir(parents=True, exist_ok=True)
    mine = _print(ROOT.glob("src/aptt/**/*.py"), torch.__version__)
    made = _print(ROOT.glob("docs/builder/peers/*.py"), mine)
    rows = {_file(kept, f"aptt {name}", mine): (ours, name) for name in SPECS}
    for i, peer in enumerate(PEERS):
        title = f"{peer.library} {peer.title}"
        rows[_file(kept, title, _print([], made, _version(peer.library)))] = (theirs, i)
    _ask({file: row for file, row in rows.items() if not file.exists()}, jobs)
    found = [_read(file) for file in rows]
    ours_found = [record for some in found[: len(SPECS)] for record in some]
    peers = list(zip(PEERS, found[len(SPECS) :], strict=True))
    versions = {peer.library: _version(peer.library) for peer, some in peers if _asked(some)}
    missing = [
        f"{peer.library} `{peer.title}`: {some[0].why.removeprefix(_LEFT_OUT)}"
        for peer, some in peers
        if not _asked(some)
    ]
    there = [(peer, some) for peer, some in peers if _asked(some)]
    path.write_text(page(ours_found, there, missing, versions), encoding="utf-8")


def ours(name: str) -> list[Record]:
    """What became of a row of ours."""
    return list(audit([SPECS[name]], PROMISES.values()))


def theirs(index: int) -> list[Record]:
    """What became of a peer, with the smallest inputs; or one record why it is not here."""
    peer = PEERS[index]
    try:
        row = peer.row()
    except Exception as error:  # whatever a library raises where it does not import
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        return [Record(peer.title, "", "does not apply", _LEFT_OUT + said)]
    return list(audit([row], PROMISES.values(), shrink=True))


def _ask(rows: dict[Path, tuple[Callable[..., list[Record]], object]], jobs: int) -> None:
    """Audit in processes of their own, and keep what comes out, each as it comes."""
    start = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, initializer=_quietly) as pool:
        asked = {pool.submit(call, what): file for file, (call, what) in rows.items()}
        for i, done in enumerate(as_completed(asked), start=1):
            file, records = asked[done], done.result()
            file.write_text(json.dumps([asdict(r) for r in records]), encoding="utf-8")
            broken = sum(r.state == "broken" for r in records)
            spent = f"{time.monotonic() - start:.0f} s"
            said = f"{i} of {len(asked)}, {spent}: {records[0].loss}, {broken} broken"
            print(said, file=sys.stderr, flush=True)


def _quietly() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        torchvision_imports()  # before what imports it
    except Exception:  # a row that needs it says so
        return


def _asked(records: Sequence[Record]) -> bool:
    return not records[0].why.startswith(_LEFT_OUT)


def _read(file: Path) -> list[Record]:
    return [Record(**record) for record in json.loads(file.read_text(encoding="utf-8"))]


def _file(kept: Path, title: str, fingerprint: str) -> Path:
    """Where the records of a row are kept, by all that they depend on."""
    return kept / f"{hashlib.sha256(f'{title} {fingerprint}'.encode()).hexdigest()[:20]}.json"


def _print(files: Iterable[Path], *besides: str) -> str:
    found = hashlib.sha256(" ".join(besides).encode())
    for file in sorted(files):
        found.update(file.read_bytes())
    return found.hexdigest()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""
