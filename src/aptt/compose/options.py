"""What an object was made with, as plain data: numbers, text, lists, mappings and tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from aptt.compose.schedule import Fixed, options_of

__all__ = ["plain_options"]


def plain_options(made: Any, *, tensors: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The constructor's arguments, from attributes of the same names; and what is not among them.

    Only what differs from its default is given. An argument is missing if it has no attribute, or
    holds something that is not plain, such as a callable. Tensors stay with ``tensors``, else they
    become lists.
    """
    if isinstance(made, Fixed):
        return options_of(made), []
    options: dict[str, Any] = {}
    missing = []
    for name, parameter in inspect.signature(type(made).__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        if not hasattr(made, name):
            if required:
                missing.append(name)  # one with a default may be a name that is gone, as in torch
            continue
        value = getattr(made, name)
        if not required and value is parameter.default:
            continue
        try:
            value = _plain(value, tensors)
        except TypeError:
            missing.append(name)
            continue
        if required or not _same(value, parameter.default):
            options[name] = value
    return options, missing


def _plain(value: Any, tensors: bool) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu() if tensors else value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each, tensors) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each, tensors) for key, each in value.items()}
    raise TypeError(type(value).__name__)


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        default = list(default)
    return type(value) is type(default) and not isinstance(value, Tensor) and value == default
