"""A call, as a program that runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.fuzz.check import Failure, module_form
from tests.fuzz.draw import Call, over

__all__ = ["snippet"]


def snippet(call: Call, failure: Failure) -> str:
    """What went wrong, and how to see it."""
    lines = [
        f"# {call.name}: {failure.kind}; {failure.message}",
        "import torch",
        "from torch import inf, nan",
        "from aptt.core.engine import walking",
        f"from aptt.loss import {call.name}, engine",
    ]
    text = {key: _value(value, key in call.grads) for key, value in call.args.items()}
    if any(value == "over" for value in text.values()):
        lines += [
            "",
            "def over(total, count, *, term):",
            "    return total / (count + 1.5).to(total.dtype)",
        ]
    if any(value == "pooled" for value in text.values()):
        lines += ["", "def pooled(sums):", "    return sums"]
    lines += ["", *(f"{key} = {value}" for key, value in text.items())]
    named = ", ".join(f"{key}={key}" for key in text)
    lines += [
        *(f"# {note}" for note in _notes(call)),
        f'with engine("{"plain" if call.engine == "plain" else "auto"}"), {_walk(call)}:',
        f"    result = {_function(call)}({named})",
        "    print(result)",
    ]
    if not call.wrong:
        lines += [
            "terms = [result] if isinstance(result, torch.Tensor) else [*dict(result).values()]"
            if not call.name.endswith("token_stats")
            else "terms = [*result]",
            "sum(term.sum() for term in terms).backward()  # upstream 1; the fuzzer takes others",
        ]
        lines += [
            f"print({key}.grad)" for key in call.grads if isinstance(call.args.get(key), Tensor)
        ]
    return "\n".join(lines)


def _notes(call: Call) -> list[str]:
    """What the program does otherwise than the fuzzer did."""
    form = module_form(call) if call.module else None
    notes = [] if form is None else [f"by {form[0].__name__}({', '.join(sorted(form[1]))})"]
    return notes + ["on aptt.audit.pretend.register()"] * (call.engine == "pretend")


def _walk(call: Call) -> str:
    in_one = ", in_one=True" * (call.engine in ("pretend", "in one block"))
    return f"walking({call.block}, lambda cuts: None{in_one})"


def _function(call: Call) -> str:
    return f'torch.compile({call.name}, backend="aot_eager")' * (call.engine == "traced") or (
        call.name
    )


def _value(value: Any, learns: bool) -> str:
    if isinstance(value, Tensor):
        return _tensor(value) + ".requires_grad_()" * (learns and value.is_floating_point())
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_value(v, learns)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_value(v, learns) for v in value)
        if hasattr(value, "_fields"):
            return f"__import__('aptt.loss').loss.{type(value).__name__}({inner})"
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
    if callable(value):
        if value is over:
            return "over"
        name = getattr(value, "__name__", repr(value))
        if name == "gather":
            return "__import__('aptt.parallel').parallel.gather"
        return "pooled" if name == "_pooled" else f"__import__('aptt.loss').loss.{name}"
    return repr(value)


def _tensor(t: Tensor) -> str:
    if t.numel() > 400:
        return f"torch.zeros({tuple(t.shape)}, dtype={t.dtype})  # too large to print"
    text = f"torch.tensor({t.detach().tolist()}, dtype={t.dtype})"
    if t.numel() == 0:
        text = f"torch.zeros({tuple(t.shape)}, dtype={t.dtype})"
    if t.is_contiguous() or t.numel() == 0:
        return text
    room = f"torch.empty_strided({tuple(t.shape)}, {t.stride()}, dtype={t.dtype})"
    return f"{room}.copy_({text})"
