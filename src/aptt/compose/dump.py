"""The first value that is not finite: which argument brought it, and a file to have it again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aptt.compose.options import Function, plain_options

__all__ = ["blame", "reproduce", "write"]

Call = tuple[list[Any], dict[str, Any]]
"""The arguments of a term, by position and by keyword."""


def blame(called: Mapping[str, Any]) -> str:
    """Which of the arguments are not finite, in words; they are named as the caller knows them."""
    found = []
    for name, value in _leaves(called):
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            wrong = ~value.detach().isfinite()
            if count := int(wrong.sum()):
                first = wrong.nonzero()[0].tolist()
                found.append(
                    f"{name} has {count} of {value.numel()} that are not, the first at {first}"
                )
    return "; ".join(found) or "all its arguments are finite, so it arose in the term itself"


def _leaves(called: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What the arguments hold, lists and mappings taken apart: ``outputs['hm'][0]``."""
    for name, value in called.items():
        if isinstance(value, Mapping):
            yield from _leaves({f"{name}[{key!r}]": each for key, each in value.items()})
        elif isinstance(value, list | tuple):
            yield from _leaves({f"{name}[{i}]": each for i, each in enumerate(value)})
        else:
            yield name, torch.tensor(value) if isinstance(value, float) else value


def write(path: Path, name: str, step: int, value: float, loss: nn.Module, call: Call) -> Path:
    """Write a term and its arguments: tensors and plain data only, for ``weights_only=True``."""
    options, missing = _options(loss)
    device = next(
        (a.device.type for a in (*call[0], *call[1].values()) if isinstance(a, Tensor)), "cpu"
    )
    autocast = torch.is_autocast_enabled(device)
    kind = _kind(loss)
    dump = {
        "format": 1,
        "term": name,
        "step": step,
        "value": value,
        "loss": f"{kind.__module__}.{getattr(kind, '__qualname__', kind)}",
        "repr": repr(loss),
        "options": options,
        "not_plain": missing,
        "state": {key: t.detach().cpu() for key, t in loss.state_dict().items()},
        "training": loss.training,
        "autocast": [device, str(torch.get_autocast_dtype(device))] if autocast else None,
        "args": [_kept(argument) for argument in call[0]],
        "kwargs": {key: _kept(argument) for key, argument in call[1].items()},
        "torch": torch.__version__.split("+")[0],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        torch.save(dump, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def reproduce(path: Path, loss: nn.Module) -> str:
    """Three lines of Python that have the value again, from the file alone."""
    options, missing = _options(loss)
    kind = _kind(loss)
    module, made = _imported(kind)
    if made == "...":
        missing = [*missing, getattr(kind, "__qualname__", repr(kind))]
    if kind is type(loss):
        made += "(...)" if missing else "(**d['options'])"
        if loss.state_dict().keys() - options.keys():
            made = f"(m := {made}, m.load_state_dict(d['state']))[0]"
        made += "" if loss.training else ".eval()"
    lines = [
        f"import {module}",
        f"d = torch.load({str(path)!r}, weights_only=True)",
        f"print({made}(*d['args'], **d['kwargs']))",
    ]
    autocast = torch.load(path, weights_only=True)["autocast"]
    if autocast is not None:
        lines[2] = f"with torch.autocast({autocast[0]!r}, {autocast[1]}): {lines[2]}"
    if missing:
        lines.append(f"# ... stands for what a file cannot hold: {', '.join(missing)}")
    return "\n".join(lines)


def _kind(loss: nn.Module) -> Any:
    """The function that a term is, or its class."""
    return loss.function if isinstance(loss, Function) else type(loss)


def _options(loss: nn.Module) -> tuple[dict[str, Any], list[str]]:
    return ({}, []) if isinstance(loss, Function) else plain_options(loss, tensors=True)


def _imported(kind: Any) -> tuple[str, str]:
    """What to import, and the name under which it is ``kind`` itself; "..." if there is none."""
    module, name = str(getattr(kind, "__module__", "")), getattr(kind, "__qualname__", "")
    try:
        found = attrgetter(name)(sys.modules[module]) if module != "__main__" else None
    except (AttributeError, KeyError):
        found = None
    if found is not kind:
        return "torch", "..."
    return f"torch, {module}", f"{module}.{name}"


def _kept(argument: Any) -> Any:
    """A tensor as it is, on the CPU; what is neither tensor nor plain, as text."""
    if isinstance(argument, Tensor):
        return argument.detach().cpu().clone()
    if isinstance(argument, list | tuple):
        return [_kept(each) for each in argument]
    if isinstance(argument, Mapping):
        return {str(key): _kept(each) for key, each in argument.items()}
    plain = argument is None or type(argument) in (bool, int, float, str)
    return argument if plain else repr(argument)
