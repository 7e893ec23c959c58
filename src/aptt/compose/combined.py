"""Several losses as one: each gets its own inputs, the sum is one number, and none is anonymous.

total = sum over terms of weight * term(its inputs)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aptt.compose import dump
from aptt.compose.balance import Balance
from aptt.compose.gradients import GradReport
from aptt.compose.names import check_known, check_mapping, unknown
from aptt.compose.nonfinite import NonFiniteError
from aptt.compose.options import Function, plain_options
from aptt.compose.schedule import Weight
from aptt.compose.slopes import At, Parts
from aptt.compose.total import Total, as_is
from aptt.core.checks import check_choice

__all__ = ["CombinedLoss"]

Inputs = Sequence[str] | Mapping[str, str]
"""Which inputs a term takes: by position, or as ``{its argument: name of the input}``."""


class CombinedLoss(Total):
    """Named losses, weighted and summed.

        total = sum over terms of weight * term(its inputs)

    Args:
        terms: a loss for each name: any module, ours, torch's or a stranger's, or a function.
            Each has to return one number.
        weights: a number or a schedule by name; 1 where none is given.
        inputs: for each name what it is called with: ``("pred_box", "target_box")``, or with
            keywords ``{"input": "pred_box", "target": "target_box"}``. None: every term gets all
            that the sum is called with.
        balance: :class:`Uncertainty`, :class:`GradShare`, :class:`GradNorm`, :class:`DWA` or
            None.
        on_nonfinite: ``"record"`` counts what is not finite and waits for nothing. ``"raise"``
            looks at each step's values, which waits for the device, and raises
            :class:`NonFiniteError` with the names of the term and of the argument. ``"dump"``
            first writes the term's inputs to a file in ``dump_to``, and says in the error how to
            have the same value from it elsewhere. ``"skip"`` leaves out, on all ranks alike, a
            training step whose total is not finite on any of them: the total is 0 without a
            graph, ``skipped`` is True until the next call, and ``log`` counts it. An optimizer
            whose gradients were set to None does nothing then; with ``GradScaler``, or where
            micro-batches accumulate, look at ``skipped`` before the optimizer's step.
        dump_to: the folder for such files.

    ``step()`` or ``at_step(n)`` moves the schedules; ``log()``, ``report()`` and ``grad_report()``
    say how the terms do. All of its state, and that of the terms, is in ``state_dict()``. In
    ``eval()`` nothing is counted and no balancer learns.

    A term is not computed while its weight is 0. The account says so: its calls stand still, its
    weight is 0 and its value NaN. Its inputs get a gradient of zeros, for data parallel.

    Example:
        >>> import torch
        >>> from torch.nn import functional as F
        >>> from aptt.compose import CombinedLoss, Ramp
        >>> criterion = CombinedLoss(
        ...     {"cls": torch.nn.CrossEntropyLoss(), "box": F.l1_loss},
        ...     weights={"box": Ramp(0.0, 5.0, over=10)},
        ...     inputs={"cls": ("logits", "labels"), "box": ("boxes", "targets")},
        ... )
        >>> criterion
        CombinedLoss(
          total = 1*cls + Ramp(start=0.0, stop=5.0, over=10, begin=0)*box
          cls = CrossEntropyLoss()(logits, labels)
          box = l1_loss(boxes, targets)
        )
        >>> criterion.at_step(4)
        >>> boxes = {"boxes": torch.ones(3, 4), "targets": torch.zeros(3, 4)}
        >>> logits = {"logits": torch.zeros(3, 2), "labels": torch.tensor([0, 1, 1])}
        >>> criterion.eval()(logits, boxes)
        tensor(2.6931)
    """

    def __init__(
        self,
        terms: Mapping[str, Callable[..., Tensor]],
        weights: Mapping[str, Weight] | None = None,
        inputs: Mapping[str, Inputs] | None = None,
        *,
        balance: Balance | None = None,
        on_nonfinite: Literal["record", "raise", "dump", "skip"] = "record",
        dump_to: str | Path = ".",
    ) -> None:
        check_choice("on_nonfinite", on_nonfinite, ("record", "raise", "dump", "skip"))
        check_mapping("terms", terms)
        weights = check_mapping("weights", {} if weights is None else weights)
        check_known("term", weights, terms)
        super().__init__({name: weights.get(name, 1.0) for name in terms}, balance, on_nonfinite)
        self.terms = nn.ModuleDict({name: _module(name, term) for name, term in terms.items()})
        self.inputs = None if inputs is None else _checked(inputs, self.names)
        self.dump_to = Path(dump_to)

    def forward(self, *inputs: Any, at: At | None = None, **named: Any) -> Tensor:
        """The total.

        Where the terms' inputs have names, they come by keyword, or in mappings by position, such
        as what a model returns; a mapping may hold more than is wanted, a keyword may not. A term
        is absent from a batch if an input that it takes by position is None. ``at`` is the tensor
        that :class:`GradShare` and :class:`GradNorm` compare gradients at.
        """
        calls = self._calls(inputs, named)
        if self.on_nonfinite in ("record", "skip"):
            return self._summed(calls, at)
        try:
            return self._summed(calls, at)
        except NonFiniteError as error:
            raise self._explained(error, calls) from None

    def grad_report(self, *inputs: Any, at: At, **named: Any) -> GradReport:
        """Each term's share of the gradient at ``at``, and their cosines, for these inputs.

        The terms are computed once more; nothing is counted. Before ``backward``, which frees the
        graph between ``at`` and the inputs.
        """
        with as_is(self):
            return self._grad_report(self._parts(self._calls(inputs, named)), at)

    def config(self) -> dict[str, Any]:
        """This loss as plain data, of which :func:`build` makes an equal one."""
        terms: dict[str, Any] = {}
        for name, term in self.terms.items():
            entry: dict[str, Any] = {"loss": _used(f"term {name!r}", term)}
            weight = self.weights[name]
            entry["weight"] = _used(f"weight of {name!r}", weight) if callable(weight) else weight
            if self.inputs is not None:
                wanted = self.inputs[name]
                entry["inputs"] = dict(wanted) if isinstance(wanted, Mapping) else list(wanted)
            terms[name] = entry
        plain: dict[str, Any] = {"terms": terms}
        if self.balance is not None:
            plain["balance"] = _used("balance", self.balance)
        if self.on_nonfinite != "record":
            plain["on_nonfinite"] = self.on_nonfinite
        if self.on_nonfinite == "dump":
            plain["dump_to"] = str(self.dump_to)
        return plain

    # ------------------------------------------------------------- what each term is called with

    def _calls(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> list[dump.Call]:
        if self.inputs is None:
            return [(list(inputs), named) for _ in self.names]
        given = self._given(self.inputs, inputs, named)
        calls: list[dump.Call] = []
        for name in self.names:
            wanted = self.inputs[name]
            sources = wanted.values() if isinstance(wanted, Mapping) else wanted
            for source in sources:
                if source not in given:
                    raise unknown("input", source, given, hint=f" (wanted by term {name!r})")
            if isinstance(wanted, Mapping):
                calls.append(([], {key: given[source] for key, source in wanted.items()}))
            else:
                calls.append(([given[source] for source in wanted], {}))
        return calls

    def _given(
        self, wanted: Mapping[str, Inputs], inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> dict[str, Any]:
        known = {
            source
            for each in wanted.values()
            for source in (each.values() if isinstance(each, Mapping) else each)
        }
        given: dict[str, Any] = {}
        for mapping in (*inputs, named):
            if not isinstance(mapping, Mapping):
                raise TypeError(
                    f"got a {type(mapping).__name__} by position: the inputs of this loss have "
                    "names; pass them by keyword, or mappings that hold them"
                )
            for name in mapping:
                if name in given and name in known:
                    raise ValueError(f"input {name!r}: given twice")
                given[name] = mapping[name]
        check_known("input", named, sorted(known))
        return given

    def _summed(self, calls: Sequence[dump.Call], at: At | None) -> Tensor:
        out = [call for off, call in zip(self._off, calls, strict=True) if off]
        left = [t for t in _tensors(out) if t.requires_grad and t.is_floating_point()]
        return self._total(self._parts(calls), at, left)

    def _parts(self, calls: Sequence[dump.Call]) -> Parts:
        return [
            None if off or self._absent(call) else term(*call[0], **call[1])
            for term, call, off in zip(self.terms.values(), calls, self._off, strict=True)
        ]

    def _absent(self, call: dump.Call) -> bool:
        return self.inputs is not None and any(value is None for value in call[0])

    # ------------------------------------------------------------------ what is not finite

    def _explained(self, error: NonFiniteError, calls: Sequence[dump.Call]) -> NonFiniteError:
        lines = [str(error)]
        for name, value in error.terms.items():
            call = calls[self.names.index(name)]
            lines.append(f"{name}: {dump.blame(self._called(name, call))}")
            if self.on_nonfinite == "dump":
                term = self.terms[name]
                file = self.dump_to / f"nonfinite-{name}-step{error.step}{_rank()}.pt"
                try:
                    path = dump.write(file.absolute(), name, error.step, value, term, call)
                except (OSError, RuntimeError) as fault:  # torch.save raises either on a full disk
                    lines.append(f"{name}: its inputs cannot be written to {file}: {fault}")
                    continue
                lines.append(f"{name}: its inputs are in {path}; to have it again:")
                lines.append(dump.reproduce(path, term))
        return NonFiniteError("\n".join(lines), error.terms, error.step)

    def _called(self, name: str, call: dump.Call) -> dict[str, Any]:
        wanted = None if self.inputs is None else self.inputs[name]
        if isinstance(wanted, Mapping):
            return {source: call[1][key] for key, source in wanted.items()}
        places = wanted or [f"argument {i}" for i in range(len(call[0]))]
        return {**dict(zip(places, call[0], strict=True)), **call[1]}

    def __repr__(self) -> str:
        lines = [f"total = {self._formula()}"]
        for name, term in self.terms.items():
            wanted: Inputs = ("...",) if self.inputs is None else self.inputs[name]
            if isinstance(wanted, Mapping):
                wanted = [f"{key}={source}" for key, source in wanted.items()]
            text = f"{name} = {term!r}({', '.join(wanted)})"
            lines.append(text.replace("\n", "\n  "))
        return "\n".join([f"{type(self).__name__}(", *(f"  {line}" for line in lines), ")"])


def _tensors(held: Any) -> Iterator[Tensor]:
    """The tensors of nested sequences and mappings."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, list | tuple):
        for each in held:
            yield from _tensors(each)
    elif isinstance(held, Mapping):
        yield from _tensors(list(held.values()))


def _module(name: str, term: Any) -> nn.Module:
    if isinstance(term, nn.Module):
        return term
    if isinstance(term, type) or not callable(term):
        wanted = "a module or a function" + (", so call it" if isinstance(term, type) else "")
        raise TypeError(f"term {name!r}: got {term!r}, wanted {wanted}")
    return Function(term)


def _checked(inputs: Mapping[str, Inputs], names: Sequence[str]) -> dict[str, Inputs]:
    check_known("term", check_mapping("inputs", inputs), names)
    checked: dict[str, Inputs] = {}
    for name in names:
        if name not in inputs:
            raise ValueError(f"inputs: none for term {name!r}")
        wanted = inputs[name]
        if isinstance(wanted, str) or not isinstance(wanted, Sequence | Mapping):
            raise TypeError(f"inputs of {name!r}: got {wanted!r}, wanted a list of names")
        sources = list(wanted.values() if isinstance(wanted, Mapping) else wanted)
        if not sources or not all(isinstance(s, str) and s != "at" for s in sources):
            raise ValueError(f"inputs of {name!r}: got {sources}, wanted names other than 'at'")
        checked[name] = dict(wanted) if isinstance(wanted, Mapping) else tuple(wanted)
    return checked


def _used(what: str, made: Any) -> dict[str, Any]:
    if isinstance(made, Function) or not hasattr(type(made), "__init__"):
        raise ValueError(f"{what}: {made!r} cannot be written down as plain data")
    options, missing = plain_options(made)
    if missing or type(made).__name__ == "function":
        holds = ", ".join(missing) or "it"
        raise ValueError(f"{what}: {made!r} cannot be written down as plain data ({holds})")
    return {"use": type(made).__name__, **options}


def _rank() -> str:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return f"-rank{torch.distributed.get_rank()}" if there else ""
