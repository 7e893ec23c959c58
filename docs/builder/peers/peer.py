"""What the card is told of one loss of another library."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aptt.audit import PROMISES, Inputs, Options, Spec, make
from aptt.audit.spec import Maker

__all__ = ["HALVES", "Peer", "equal", "of"]

_DTYPE = "it computes in the dtype of its input, as torch does, and leaves float32 to the caller"
HALVES = dict.fromkeys(("half_matches_truth", "autocast", "follows_to_dtype_and_device"), _DTYPE)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One loss of another library: of a kind of inputs, or of inputs that are made for it."""

    library: str
    name: str
    load: Callable[[], Any]
    kind: str | None = None
    inputs: Maker | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    """Promises that it breaks on purpose, with what its authors say."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the audit cannot deduce of its inputs, as a :class:`Spec` has it."""
    unasked: Mapping[str, str] = field(default_factory=dict)
    """Promises that mean nothing for it, with the reason."""

    @property
    def title(self) -> str:
        """Its call, as one writes it."""
        options = ", ".join(f"{k}={v!r}" for k, v in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def row(self) -> Spec:
        """What the audit takes; raises ModuleNotFoundError where the library is missing."""
        row = make(
            self.load(), kind=self.kind, inputs=self.inputs, options=self.options, name=self.title
        )
        known = {name for name, promise in PROMISES.items() if {*promise.needs} & {*self.told}}
        exempt = {name: why for name, why in row.exempt.items() if name not in known}
        return replace(row, **{**self.told, "exempt": {**exempt, **self.unasked}})


def of(module: str, name: str) -> Callable[[], Any]:
    """A loss by its import."""
    return lambda: getattr(importlib.import_module(module), name)


def equal(first: str, second: str) -> Callable[[Inputs, Options], tuple[Inputs, None]]:
    """The best prediction, where it is the target."""
    return lambda inputs, options: ({**inputs, first: inputs[second]}, None)
