"""What an object was made with, as plain data: numbers, text, lists, mappings and tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from aptt.compose.schedule import Fixed, options_of
from aptt.core.module import LossModule

__all__ = ["Function", "plain_options"]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the function returns."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", None) or repr(self.function)


def plain_options(made: Any, *, tensors: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The constructor's arguments, from attributes of the same names; and what is not among them.

    Only what differs from its default is given. An argument is missing if it has no attribute, or
    holds something that is not plain, such as a callable. Tensors stay with ``tensors``; without,
    they become lists in our losses, which take these, and are missing in others.
    """
    if isinstance(made, Fixed):
        return options_of(made), []
    parameters = dict(inspect.signature(type(made).__init__).parameters)
    del parameters["self"]
    ours = isinstance(made, LossModule)
    options: dict[str, Any] = {}
    missing = []
    for name, parameter in list(parameters.items()):
        if parameter.kind is parameter.VAR_KEYWORD and ours:  # what a subclass passes on
            del parameters[name]
            further = [n for n in made.options() if n not in parameters]
            parameters |= {n: inspect.Parameter(n, parameter.KEYWORD_ONLY) for n in further}
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if several or not hasattr(made, name):
            if name not in _GONE:
                missing.append(str(parameter) if several else name)
            continue
        value = getattr(made, name)
        if not required and value is parameter.default:
            continue
        try:
            if isinstance(value, Tensor) and not (tensors or ours):
                raise TypeError
            value = _plain(value, tensors)
        except TypeError:
            missing.append(name)
            continue
        if required or not _same(value, parameter.default):
            options[name] = value
    return options, missing


_GONE = ("size_average", "reduce")  # of torch's losses, which no longer keep them


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
