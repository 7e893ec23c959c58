"""What :mod:`aptt.loss` holds, read from its signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from torch import nn

import aptt.loss
from aptt.cli.docstring import Docstring, definitions, read, symbols
from aptt.cli.mistakes import Mistake, pick

__all__ = ["Entry", "answering", "entries", "find", "find_function"]


@dataclass(frozen=True)
class Entry:
    """One public function with its module form, or one of them where there is no other."""

    function: str | None
    module_form: str | None
    file: str
    signatures: tuple[str, ...]
    family: Docstring
    doc: Docstring
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name to call it by."""
        return self.function or self.module_form or ""

    @property
    def names(self) -> str:
        """Both names, as a heading."""
        return " · ".join(name for name in (self.function, self.module_form) if name)

    @property
    def formula(self) -> str:
        """Its own formula, or that of its file."""
        return self.doc.formula or self.family.formula

    @property
    def where(self) -> str:
        """What the symbols of its own formula stand for, as far as only its file says so."""
        if not (self.doc.formula and self.function and self.module_form):
            return ""
        formula, known = self.doc.formula, definitions(self.family.formula)
        wanted, lines = symbols(formula), []
        row = next((name for name in known if _joined(name) == _joined(_short(self.name))), None)
        if row and any(len(name) > 4 and name not in self.options for name in wanted):
            wanted.insert(0, row)  # it speaks in words, which the file has in symbols
        for symbol in wanted:  # which grows on the way
            stem = next((k for k in known if k[:-1] == symbol[:-1] and k[-2:-1] == "_"), symbol)
            line = known.get(stem)
            said = re.search(rf"(^|[ ,]){symbol}( +=|:)", formula, re.MULTILINE)
            if line is None or line in lines or said:
                continue
            lines.append(line)
            if line.startswith(f"{stem} ="):
                wanted += symbols(line)
        return "\n".join(lines)

    @property
    def explained(self) -> str:
        """The formula, and below it what its symbols stand for."""
        if not self.where:
            return self.formula
        return f"{self.formula}\n\nwhere  " + self.where.replace("\n", "\n       ")

    @property
    def source(self) -> str:
        """Its papers; of those of its file only its own and its options', if that can be told."""
        text = self.family.sections.get("From", "")
        papers = " ".join(text.split()).rstrip(".").split("; ")
        own = {paper for paper in papers if self._leads(paper)}
        if not (own and self.function and self.module_form):
            return text
        words = {paper: re.findall(r"\w+", paper.partition(", ")[0]) for paper in papers}
        own |= {paper for paper in papers if {*words[paper]} & {*self.options}}
        return f"{'; '.join(paper for paper in papers if paper in own)}."

    def _leads(self, paper: str) -> bool:
        """Whether a paper begins with the name of this loss, or of one of its options."""
        names = [_joined(name) for name in paper.partition(", ")[0].split(" and ")]
        mine = {_joined(_short(self.name)), _joined(self.name.partition("_")[0])}
        options = [_joined(option) for option in self.options if len(option) > 4]
        return any(name in mine or name.startswith(tuple(options)) for name in names)

    @property
    def room(self) -> str:
        """The file or package of :mod:`aptt.loss` that it is in: ``bbox`` for each box loss."""
        return self.file.split(".")[2]

    @property
    def place(self) -> str:
        """What to import it from: ``aptt.loss.bbox``; ``aptt.loss`` where no file of it has it."""
        file = f"aptt.loss.{self.room}"
        return file if file in sys.modules else "aptt.loss"

    @property
    def room_title(self) -> str:
        """What that file or package is about."""
        if self.place == "aptt.loss":
            return "What all losses share."
        return read(sys.modules[self.place].__doc__).title

    def answers(self, word: str) -> int:
        """How well it answers to a word: 3 is its name, 2 a part of it, 1 a name elsewhere.

        So are the capitals of its module, ``dfl``, those of its title, ``GSPO``, and the initials
        of a paper's, ``gfl``.
        """
        names = [name for name in (self.function, self.module_form) if name]
        if word in map(_short, names):
            return 3
        if word in _parts(" ".join(names)):
            return 2
        elsewhere = " ".join(self.doc.sections.get("Elsewhere", "").split())
        known = [each for each in re.findall(r"\w+", elsewhere) if re.search(r".[A-Z_]", each)]
        capitals = "".join(re.findall(r"[A-Z]", self.module_form or ""))
        short = {each.lower() for each in (capitals, *re.findall(r"[A-Z]{3,}", self.doc.title))}
        long = len(word) > 3 and any(name.lower().startswith(word) for name in known)
        return int(
            long
            or word in short
            or any(word in _parts(name) for name in known)
            or (len(word) > 2 and any(each.startswith(word) for each in _initials(self.source)))
        )

    def to_json(self) -> dict[str, Any]:
        """Everything there is to know, for ``--json``."""
        sections = self.family.sections | self.doc.sections
        return {
            "function": self.function,
            "module_form": self.module_form,
            "file": self.file,
            "signatures": list(self.signatures),
            "family": self.family.title,
            "title": self.doc.title,
            "formula": self.formula,
            "where": self.where,
            "prose": self.doc.prose,
            "sections": {_key(name): text for name, text in sections.items()},
        }


@cache
def entries() -> Sequence[Entry]:
    """Every public name of :mod:`aptt.loss`, a function together with its module form."""
    public = {name: getattr(aptt.loss, name) for name in aptt.loss.__all__}
    forms = {_function_of(form): form for form in public.values() if inspect.isclass(form)}
    functions = [value for value in public.values() if inspect.isfunction(value)]
    paired = [(function, forms.pop(function.__name__, None)) for function in functions]
    found = [_entry(*pair) for pair in paired] + [_entry(None, form) for form in forms.values()]
    return sorted(found, key=lambda e: (e.place == "aptt.loss", e.place, e.file, e.name))


def answering(name: str) -> Sequence[Entry]:
    """The losses that answer to a word: to a name, a part of one, or what others call them."""
    found = [(entry.answers(_short(name)), entry) for entry in entries()]
    return [entry for rank, entry in sorted(found, key=lambda each: -each[0]) if rank]


def find(name: str) -> Entry:
    """Find a loss by any of its names, by a short form of one, or by what others call it.

    ``giou``, ``GIoULoss``, ``kd``. Where several answer and none has that very name, it says which.
    """
    answers = answering(name)
    if answers and answers[0].answers(_short(name)) < 3:
        if len(answers) == 1:
            return answers[0]
        names = ", ".join(entry.name for entry in answers)
        raise Mistake(f"several losses answer to {name!r}: {names}")
    known = {entry.module_form: entry for entry in entries() if entry.module_form}
    known |= {entry.name: entry for entry in entries()}
    return known[pick("loss", name, known, key=_short, every="`aptt list` shows them all")]


def find_function(name: str) -> Entry | None:
    """Find the loss whose function has this very name, if there is one."""
    return next((entry for entry in entries() if entry.function == name), None)


def _entry(function: Any, form: Any) -> Entry:
    first = function or form
    module: ModuleType = sys.modules[first.__module__]
    return Entry(
        function=function and function.__name__,
        module_form=form and form.__name__,
        file=module.__name__,
        signatures=tuple(_calls(function, form)),
        options=tuple(
            p.name
            for p in inspect.signature(first).parameters.values()
            if p.kind is inspect.Parameter.KEYWORD_ONLY
        ),
        family=read(module.__doc__),
        doc=read(first.__doc__),
    )


def _function_of(form: type) -> str:
    """The function that a module form names in its docstring, or else its own name."""
    named = re.search(r":func:`~?([\w.]+)`", form.__doc__ or "")
    return named[1].rpartition(".")[2] if named else form.__name__


def _calls(function: Callable[..., Any] | None, form: type | None) -> Iterator[str]:
    """How the function is called, and a module made and then called."""
    if function:
        yield _signature(function, function.__name__)
    if form:
        yield _signature(form, form.__name__)
    if form and issubclass(form, nn.Module):
        forward = inspect.signature(form.forward)
        _, *called = forward.parameters.values()
        yield _signature(forward.replace(parameters=called), "loss_fn")


def _signature(value: Any, name: str) -> str:
    """A signature with names and defaults; what each is, the arguments section says."""
    signature = value if isinstance(value, inspect.Signature) else inspect.signature(value)
    bare = [_bare(parameter) for parameter in signature.parameters.values()]
    return f"{name}{inspect.Signature(bare)}"


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    """Without its annotation, and a function as default by its name, not its address."""
    default = parameter.default
    if inspect.isfunction(default):
        default = _Name(default.__name__)
    return parameter.replace(annotation=inspect.Parameter.empty, default=default)


class _Name(str):
    """A word that is shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _joined(name: str) -> str:
    """A name without its marks, in one spelling."""
    return re.sub(r"[\W_]", "", name).lower().replace("ised", "ized")


def _initials(source: str) -> list[str]:
    """The initials of the titles in quotes, each, of papers as a docstring names them."""
    titles = re.findall(r'"([^"]+)"', " ".join(source.split()))
    return ["".join(word[0] for word in re.findall(r"\w+", t)).lower() for t in titles]


def _short(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower().removesuffix("loss")


def _parts(name: str) -> set[str]:
    """A name's words, as they are cut by underscores, dots and capitals; and the whole of it."""
    words = re.findall(r"\w+", name)
    cut = [re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z\d]+|[A-Z\d]+", word) for word in words]
    return {part.lower() for word in cut for part in word} | {_short(word) for word in words}


def _key(section: str) -> str:
    return section.lower().replace(" ", "_")
