"""The first value that is not finite: which argument brought it, and a file to have it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aptt.compose.options import plain_options

__all__ = ["blame", "reproduce", "write"]

Call = tuple[list[Any], dict[str, Any]]
"""The arguments of a term, by position and by keyword."""


def blame(called: Mapping[str, Any]) -> str:
    """Which of the arguments are not finite, in words; they are named as the caller knows them."""
    found = []
    for name, value in called.items():
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            wrong = ~value.detach().isfinite()
            if count := int(wrong.sum()):
                first = wrong.nonzero()[0].tolist()
                found.append(
                    f"{name} has {count} of {value.numel()} that are not, the first at {first}"
                )
    return "; ".join(found) or "all its arguments are finite, so it arose in the term itself"


def write(path: Path, name: str, step: int, value: float, loss: nn.Module, call: Call) -> Path:
    """Write a term and its arguments: tensors and plain data only, for ``weights_only=True``."""
    options, missing = plain_options(loss, tensors=True)
    device = next(
        (a.device.type for a in (*call[0], *call[1].values()) if isinstance(a, Tensor)), "cpu"
    )
    autocast = torch.is_autocast_enabled(device)
    kind: Any = getattr(loss, "function", type(loss))
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
    torch.save(dump, path)
    return path


def reproduce(path: Path, loss: nn.Module) -> str:
    """Three lines of Python that have the value again, from the file alone."""
    options, missing = plain_options(loss, tensors=True)
    function = getattr(loss, "function", None)
    kind = type(loss) if function is None else function
    module, name = kind.__module__, getattr(kind, "__qualname__", "...")
    if "<" in name:  # made inside a function, so it cannot be imported
        missing, name = [name], "..."
    made = name if name == "..." else f"{module}.{name}"
    if function is None:
        made += "(...)" if missing else "(**d['options'])"
        if loss.state_dict().keys() - options.keys():
            made = f"(m := {made}, m.load_state_dict(d['state']))[0]"
        made += "" if loss.training else ".eval()"
    lines = [
        f"import torch, {module}",
        f"d = torch.load({str(path)!r}, weights_only=True)",
        f"print({made}(*d['args'], **d['kwargs']))",
    ]
    autocast = torch.load(path, weights_only=True)["autocast"]
    if autocast is not None:
        lines[2] = f"with torch.autocast({autocast[0]!r}, {autocast[1]}): {lines[2]}"
    if missing:
        lines.append(f"# ... stands for what a file cannot hold: {', '.join(missing)}")
    return "\n".join(lines)


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
