"""The state of a sum: which terms it is of, and what of it fits other terms."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["encoded", "match_terms"]


def encoded(names: Sequence[str]) -> Tensor:
    """Names as a tensor, which is what a state can hold."""
    return torch.tensor(list("\n".join(names).encode()), dtype=torch.uint8)


def match_terms(
    state_dict: dict[str, Any],
    prefix: str,
    names: Sequence[str],
    parts: Mapping[str, nn.Module],
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> bool:
    """Turn a state, by the names in it, into one of the terms ``names``; whether it is of any.

    ``parts`` are those modules of the sum that have numbers of each term. The lists are those of
    ``load_state_dict``.
    """
    found = state_dict.pop(prefix + "names", None)
    if found is None:
        missing_keys.append(prefix + "names")
        return True
    saved = bytes(found.tolist()).decode().split("\n")
    if saved == list(names):
        return True
    if not set(saved) & set(names):
        error_msgs.append(
            f"the state is of the terms {', '.join(saved)}, this is a sum of "
            f"{', '.join(names)}: none in common"
        )
        return False
    gone = [name for name in saved if name not in names]
    fresh = [name for name in names if name not in saved]
    unexpected_keys += [f"{prefix}term {name!r}" for name in gone]  # with strict=True
    missing_keys += [f"{prefix}term {name!r}" for name in fresh]
    if gone or fresh:
        warnings.warn(
            f"the state is of the terms {', '.join(saved)}, this is a sum of "
            f"{', '.join(names)}: those in common are loaded, with strict=False",
            stacklevel=3,
        )
    _align(state_dict, prefix, saved, names, parts)
    return True


def _align(
    state_dict: dict[str, Any],
    prefix: str,
    saved: Sequence[str],
    names: Sequence[str],
    parts: Mapping[str, nn.Module],
) -> None:
    """Bring the numbers of the terms in common to their places; the others stay as they are."""
    common = [name for name in names if name in saved]
    new, old = ([of.index(name) for name in common] for of in (names, saved))
    for kind, part in parts.items():
        for key, own in part.state_dict().items():
            key, own = f"{prefix}{kind}.{key}", own.clone()
            found = state_dict.get(key)
            if own.ndim and isinstance(found, Tensor) and found.shape[-1:] == (len(saved),):
                own[..., new] = found[..., old].to(own)
                state_dict[key] = own
