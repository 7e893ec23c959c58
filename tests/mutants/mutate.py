"""What may be wrong in a file: each place with one small change, made in its syntax tree."""

from __future__ import annotations

import ast
import copy
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_PAIRS = ["min max", "amin amax", "minimum maximum", "argmin argmax", "any all", "floor ceil"]
_PAIRS += ["clamp_min clamp_max"]
TWINS = {a: b for pair in _PAIRS for a, b in (pair.split(), pair.split()[::-1])}

Change = Callable[[ast.AST], ast.AST]
"""Gives the node that takes the place of a copy of one; may change the copy."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file; ``node`` counts those of its tree, ``kind`` names the change."""

    file: str
    line: int
    node: int
    kind: str
    text: str  # of the line
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line} #{self.node} {self.kind}"


def mutants(file: str, source: str) -> list[Mutant]:
    """Every mutant of a file, by line."""
    tree = ast.parse(source)
    place = {id(node): i for i, node in enumerate(ast.walk(tree))}
    lines, found = source.splitlines(), []
    for node in _code(tree):
        for kind, change in _changes(node):
            after = change(copy.deepcopy(node))
            shown = lines[node.lineno - 1].strip(), _head(node), _head(after)
            found.append(Mutant(file, node.lineno, place[id(node)], kind, *shown))
    return sorted(found, key=lambda m: (m.line, m.node, m.kind))


def apply(mutant: Mutant, source: str) -> ast.Module:
    """The tree of the file with the change made."""
    tree = ast.parse(source)
    node = next(itertools.islice(ast.walk(tree), mutant.node, None))
    change = dict(_changes(node))[mutant.kind]
    parent, field, index = _parent(tree, node)
    new = ast.copy_location(change(node), node)
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    return ast.fix_missing_locations(tree)


def drawn(root: Path, files: list[str], count: int, seed: int) -> list[Mutant]:
    """``count`` mutants in all, from each file as many, or all that it has."""
    rng = random.Random(seed)
    decks = []
    for file in files:
        deck = mutants(file, (root / file).read_text(encoding="utf-8"))
        rng.shuffle(deck)
        decks.append(deck)
    chosen: list[Mutant] = []
    for turn in range(max(map(len, decks), default=0)):
        row = [deck[turn] for deck in decks if turn < len(deck)]
        rng.shuffle(row)
        chosen += row
    return chosen[:count]


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What may be changed at a node, by a name that is its own among those of the node."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and not _text(node):
        yield from _swapped(node, type(node.op))
    if isinstance(node, ast.AugAssign):
        yield from _swapped(node, type(node.op))
        yield "drop", _nothing
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        yield type(node.ops[0]).__name__, _compared
    if isinstance(node, ast.UnaryOp):
        yield f"drop {type(node.op).__name__}", lambda n: n.operand
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "flip", lambda n: ast.Constant(not n.value)
        elif isinstance(node.value, int):
            yield "off by one", lambda n: ast.Constant(n.value + 1)
        elif isinstance(node.value, float):
            yield "scale", lambda n: ast.Constant(2 * n.value if n.value else 1.0)
    if isinstance(node, ast.IfExp):
        yield "branches", lambda n: ast.IfExp(n.test, n.orelse, n.body)
    if isinstance(node, ast.If):
        yield "branches", _negated
    if isinstance(node, ast.Call):
        yield from _of_call(node)
    if isinstance(node, ast.Raise | ast.Expr):
        yield "drop", _nothing
    if isinstance(node, ast.Assign) and _again(node):
        yield "drop", _nothing
    if isinstance(node, ast.Break):
        yield "go on", lambda n: ast.Continue()


def _of_call(node: ast.Call) -> Iterator[tuple[str, Change]]:
    for keyword in node.keywords:
        if keyword.arg is not None:
            yield f"drop {keyword.arg}=", _without(keyword.arg)
    called = node.func.attr if isinstance(node.func, ast.Attribute) else None
    called = node.func.id if isinstance(node.func, ast.Name) else called
    if called == "where" and len(node.args) == 3:
        yield "where", _where
    if called in TWINS:
        yield "twin", _twin


def _swapped(node: ast.AST, operator: type[ast.AST]) -> Iterator[tuple[str, Change]]:
    if operator in OPERATORS:
        yield operator.__name__, _operated


def _operated(node: ast.AST) -> ast.AST:
    node.op = OPERATORS[type(node.op)]()  # type: ignore[attr-defined]
    return node


def _compared(node: ast.AST) -> ast.AST:
    node.ops = [OPERATORS[type(node.ops[0])]()]  # type: ignore[attr-defined]
    return node


def _negated(node: ast.AST) -> ast.AST:
    node.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]
    return node


def _nothing(_: ast.AST) -> ast.AST:
    return ast.Pass()


def _without(name: str) -> Change:
    def change(node: ast.AST) -> ast.AST:
        node.keywords = [k for k in node.keywords if k.arg != name]  # type: ignore[attr-defined]
        return node

    return change


def _where(node: ast.AST) -> ast.AST:
    node.args[1:] = node.args[:0:-1]  # type: ignore[attr-defined]
    return node


def _twin(node: ast.AST) -> ast.AST:
    func = node.func  # type: ignore[attr-defined]
    if isinstance(func, ast.Name):
        func.id = TWINS[func.id]
    else:
        func.attr = TWINS[func.attr]
    return node


def _again(node: ast.Assign) -> bool:
    """Whether a name is made anew of itself: without the statement there is one still."""
    names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    read = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return bool(names) and names <= read


def _text(node: ast.AST) -> bool:
    """Whether it puts texts together."""
    parts = ast.iter_child_nodes(node)
    return any(
        isinstance(p, ast.JoinedStr) or isinstance(getattr(p, "value", None), str) for p in parts
    )


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that compute: no text, type, ``__all__``, error or overload among them."""
    if isinstance(node, ast.stmt | ast.expr) and not _documents(node):
        yield node
    for child in _within(node):
        yield from _code(child)


def _within(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.AnnAssign | ast.Assert) or _typing(node):
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.value
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if any("overload" in ast.unparse(d) for d in node.decorator_list):
            return
        yield from node.decorator_list
        yield from (d for d in [*node.args.defaults, *node.args.kw_defaults] if d is not None)
        yield from node.body
        return
    yield from ast.iter_child_nodes(node)


def _documents(node: ast.AST) -> bool:
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or _typing(node)


_TYPES = {"Literal", "Callable", "Union", "Optional", "Iterator", "Iterable", "Sequence", "Mapping"}


def _typing(node: ast.AST) -> bool:
    """Whether it is about names and types alone."""
    if isinstance(node, ast.Assign):
        names = {t.id for t in node.targets if isinstance(t, ast.Name)}
        about = ast.unparse(node.value)
        return "__all__" in names or any(about.startswith(f"{t}[") for t in _TYPES)
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    if isinstance(node, ast.ClassDef):
        return any("Protocol" in ast.unparse(base) for base in node.bases)
    return isinstance(node, ast.Import | ast.ImportFrom)


def _parent(tree: ast.AST, child: ast.AST) -> tuple[ast.AST, str, int | None]:
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if value is child:
                return node, field, None
            if isinstance(value, list):
                for i, item in enumerate(value):
                    if item is child:
                        return node, field, i
    raise LookupError(ast.dump(child))


def _head(node: ast.AST) -> str:
    """The node in a line, as long as a table has room for."""
    if isinstance(node, ast.If):
        return f"if {_head(node.test)}:"
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 110 else f"{text[:107]}..."
