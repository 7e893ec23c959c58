"""Which tests to try on a mutant, in which order: the likeliest to see it, then the quickest."""

from __future__ import annotations

import ast
import json
import re
import zlib
from collections import Counter
from pathlib import Path

from tests.mutants.mutate import Mutant

PLACES = ("own", "conformance", "other")
ROWS = 4  # of the conformance suite, of the many that execute a line of core
FEW, OTHERS = 40, 400
USERS = 2  # files of tests that are a file's own besides those of its name
EACH, LATE = 2, 1.0  # of a test with many parameters those first; one of so many seconds later
ORDER = {  # of promises: the likeliest to see a wrong for their time, and those that cost most last
    name: place
    for place, names in enumerate(
        (
            "gradient_reaches_all_who_ask twin_agrees bad_input_is_refused ignoring_is_removing",
            "gradient_is_right finite_at_extremes nothing_left_is_zero none_sums_to_sum",
            "",  # every other
            "perfect_is_minimal transforms respects_upstream_gradient half_matches_truth",
            "streamed_equals_plain asks_little_of_the_device meta_device double_backward",
        )
    )
    for name in names.split()
}
OTHERWISE, LATE_PROMISES = 2, 3
COMPILES = "traces_without_breaks"  # slow; tried, of two rows, where nothing else runs a line
_PROMISE = re.compile(r"tests/test_conformance\.py::test_promise\[(\w+)-(\w+)-(.*)\]")


class Recorded:
    """What was recorded, and the tests that exist."""

    def __init__(self, root: Path, recordings: list[Path], names: list[str]) -> None:
        self.root = root
        self.names = set(names)
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, set[str]]] = {}
        self.changed: set[str] = set()  # since they were recorded: of lines nothing is known
        for path in recordings:
            self._add(json.loads(path.read_text()))
        self.rows: dict[str, list[str]] = {}
        for name in names:
            if found := _PROMISE.fullmatch(name):
                self.rows.setdefault(found[3], []).append(name)
        self.files = {name.partition("::")[0] for name in names}

    def _add(self, recorded: dict) -> None:
        names = list(recorded["tests"])
        self.seconds |= recorded["tests"]
        for file, lines in recorded["lines"].items():
            mine = self.lines.setdefault(file, {})
            path = self.root / file
            if not path.exists() or zlib.crc32(path.read_bytes()) != recorded["sources"][file]:
                self.changed.add(file)
            for line, found in lines.items():
                mine.setdefault(int(line), set()).update(names[i] for i in found)

    def of(self, mutant: Mutant) -> list[tuple[str, list[str]]]:
        """Tests by the place they stand in, as they are to be run."""
        touching, exactly = self._touching(mutant)
        own = self._own(mutant.file)
        first = [n for n in touching if n.partition("::")[0] in own]
        if not touching:  # not recorded, as what compiles
            first = sorted(n for n in self.names if n.partition("::")[0] in own)
        rows = Counter(m[3] for n in touching if (m := _PROMISE.fullmatch(n)))
        cheap = sorted(rows, key=lambda row: (self._row_seconds(row), row))[:ROWS]
        every = [n for row in cheap for n in self.rows.get(row, [])]
        promises = sorted((n for n in every if COMPILES not in n), key=_turn)
        in_body = _in_body(mutant.line, self._tree(mutant))
        traced = [] if exactly or not in_body else [n for n in every if COMPILES in n][:2]
        rest = [n for n in touching if n not in set(first) and not _PROMISE.fullmatch(n)]
        frozen = [n for n in self.names if n.startswith("tests/test_public_api.py") and not in_body]
        some, more = self._some(sorted(first, key=self._second))
        others = sorted(rest, key=self._second)
        return [
            ("conformance", traced),
            ("own", some),
            ("other", frozen),  # defaults
            ("conformance", [n for n in promises if _turn(n) < LATE_PROMISES]),
            ("other", others[:FEW]),
            ("conformance", [n for n in promises if _turn(n) >= LATE_PROMISES]),
            ("own", more),
            ("other", others[FEW:OTHERS]),
        ]

    def _some(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Of each function the quickest, and the rest."""
        seen: Counter[str] = Counter()
        parts: tuple[list[str], list[str]] = [], []
        for name in names:
            function = name.partition("[")[0]
            seen[function] += 1
            late = seen[function] > EACH or self._second(name) > LATE
            parts[late].append(name)
        return parts

    def _tree(self, mutant: Mutant) -> ast.Module:
        return ast.parse((self.root / mutant.file).read_text(encoding="utf-8"))

    def _second(self, name: str) -> float:
        return self.seconds.get(name, 1.0)

    def _row_seconds(self, row: str) -> float:
        return sum(self.seconds.get(name, 0.0) for name in self.rows.get(row, []))

    def _touching(self, mutant: Mutant) -> tuple[set[str], bool]:
        """Tests that execute the statement; or else, and False, its function or its file."""
        if mutant.file in self.changed:
            return self._using(mutant.file), True
        lines = self.lines.get(mutant.file, {})
        tree = self._tree(mutant)
        exactly = _in_body(mutant.line, tree)
        for first, last in _ranges(tree, mutant.line):
            found = set().union(*(lines.get(i, ()) for i in range(first, last + 1)))
            if found := found & self.names:
                return found, exactly
            exactly = False
        return self._using(mutant.file), False

    def _using(self, file: str) -> set[str]:
        """Tests that execute anything of a file; if it has no function, of those that import it."""
        lines = self.lines.get(file)
        if lines:
            return set().union(*lines.values()) & self.names
        module = ".".join(Path(file).relative_to("src").with_suffix("").parts)
        there = {f: self.root / f for f in self.lines if (self.root / f).exists()}
        by = [f for f, path in there.items() if f"from {module} import" in path.read_text("utf-8")]
        return set().union(*(self._using(f) for f in by))

    def _own(self, file: str) -> set[str]:
        """Files of tests with a file's name, or its folder's, and those that use it most."""
        path = Path(file)
        room = path.relative_to("src/aptt").parts[0]
        named = {f"tests/{room}/test_{part}.py" for part in (path.stem, path.parent.name)}
        tests = (n for n in self._using(file) if n.startswith(f"tests/{room}/"))
        using = Counter(n.partition("::")[0] for n in tests)
        return {file, *named & self.files, *(name for name, _ in using.most_common(USERS))}


def _turn(name: str) -> int:
    return ORDER.get(_PROMISE.fullmatch(name)[2], OTHERWISE)


def _ranges(tree: ast.Module, line: int) -> list[tuple[int, int]]:
    """Lines of the statement at a line, of the function around it, and of the whole file."""
    within = [
        n for n in ast.walk(tree) if isinstance(n, ast.stmt) and _first(n) <= line <= _last(n)
    ]
    within.sort(key=lambda n: _last(n) - _first(n))
    defined = ast.FunctionDef | ast.ClassDef
    header = [n for n in within if not isinstance(n, defined)][:1]
    ranges = [(_first(n), _end_of_header(n)) for n in header]
    ranges += [(_first(n), _last(n)) for n in within if isinstance(n, defined)]
    return [*ranges, (1, 10**6)]


def _in_body(line: int, tree: ast.Module) -> bool:
    """Whether a function computes it; else it is made at import, a default among it."""
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    return any(n.body[0].lineno <= line <= _last(n) for n in functions)


def _first(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _last(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _end_of_header(node: ast.stmt) -> int:
    body = getattr(node, "body", None)
    return max(node.lineno, body[0].lineno - 1) if body else _last(node)
