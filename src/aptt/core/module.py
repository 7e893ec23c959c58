"""The module form of a loss: it holds the options of a function, and calls it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, overload

import torch
from torch import Tensor, nn

from aptt.core.checks import Numbers, as_tensor, check_numbers, check_weights

__all__ = ["LossModule", "Shown", "per_class", "reduced"]

_Module = TypeVar("_Module", bound="LossModule")

_ELSEWHERE = {  # words of other libraries, and of papers
    "class_weights": ("class_weight", ""),
    "dim": ("class_dim", ""),
    "eps": ("smooth", ""),
    "exponent": ("power", ""),
    "ignore_label": ("ignore_index", ""),
    "include_background": ("background", ""),
    "logit_scale": ("scale", ""),
    "per_image": ("pool", ", which is 'sample' then"),
    "sigmoid": ("mode", ", which is 'multilabel' or 'binary' then"),
    "size_average": ("reduction", ""),
    "smoothing": ("label_smoothing", ""),
    "squared_pred": ("squared", ""),
    "tau": ("temperature", ""),
    "temperature": ("scale", ", which is 1 / temperature"),
    "weights": ("class_weight", ""),
}


class LossModule(nn.Module):
    """Options as attributes, and a ``repr`` that is the call.

    Tensors among them are buffers, or parameters if they are to be learned.

    A subclass passes its options on by name and calls its function with ``**self.options()``.
    """

    reduction: Any  # of those that have the option
    terms_function: ClassVar[Callable[..., dict[str, Tensor]] | None] = None
    """The function that gives the terms of a loss of several, by name."""

    def __new__(cls: type[_Module], *args: Any, **options: Any) -> _Module:
        """A module; an option that it has not is refused with those that it has."""
        known = inspect.signature(cls.__init__).parameters
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return super().__new__(cls)
        for name in options:
            if name not in known:
                called = list(inspect.signature(cls.forward).parameters)[1:]
                meant = ", give it to the call" if name in called else _meant(name, known)
                raise TypeError(
                    f"{name}: {cls.__name__} has no such option{meant}; it is "
                    f"constructed with {', '.join(list(known)[1:])}, and called with "
                    f"{', '.join(called)}"
                )
        return super().__new__(cls)

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._names = tuple(options)
        for name, value in options.items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, None)
                self._buffers[name] = value  # out of reach of what empties a model's buffers
            else:  # what is learned stays a parameter
                setattr(self, name, value)

    def options(self) -> dict[str, Any]:
        """The options, by name, as they are now."""
        return {name: getattr(self, name) for name in self._names}

    def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The terms that this loss adds up, by name, each before its weight.

        Takes what the loss is called with, and gives what the function of the terms does under
        these options, such as :func:`aptt.loss.dice_ce_terms` for ``DiceCELoss``.

        Raises:
            TypeError: a loss of one term.
        """
        function = type(self).terms_function
        if function is None:
            raise TypeError(f"terms: {type(self).__name__} has one term, itself")
        taken = inspect.signature(function).parameters
        options = {name: value for name, value in self.options().items() if name in taken}
        return function(*args, **options, **kwargs)

    def extra_repr(self) -> str:
        """The options as they were passed, by keyword."""
        return ", ".join(f"{name}={_written(value)}" for name, value in self.options().items())

    def __repr__(self) -> str:
        """The call that makes it, the losses that it holds in it."""
        return f"{type(self).__name__}({self.extra_repr()})"


class Shown:
    """What its options made it, as the call that makes it; of a frozen dataclass."""

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={_written(v)}" for k, v in vars(self).items())
        return f"{type(self).__name__}({options})"


def reduced(name: str, loss: nn.Module, reduction: str) -> nn.Module:
    """A module as it is, but that it reduces so; it shares its tensors with the one passed.

    Raises:
        TypeError: it has no ``reduction``; ``name`` is the argument that it was.
    """
    if not hasattr(loss, "reduction"):
        raise TypeError(f"{name}: got {type(loss).__name__}, wanted a module with a 'reduction'")
    if loss.reduction == reduction:
        return loss
    copied = object.__new__(type(loss))  # copy.copy would break a compiled graph
    copied.__dict__.update(loss.__dict__, reduction=reduction)
    return copied


def _meant(name: str, known: Iterable[str]) -> str:
    """The option that somebody who says ``name`` may mean, as a part of a sentence."""
    ours, which = _ELSEWHERE.get(name, ("", ""))
    if ours not in known:
        ours, which = next(iter(get_close_matches(name, known, 1)), ""), ""
    return f", wanted {ours}{which}" if ours else ""


@overload
def per_class(values: Numbers, name: str = ..., *, signed: bool = ...) -> Tensor: ...
@overload
def per_class(values: Numbers | None, name: str = ..., *, signed: bool = ...) -> Tensor | None: ...
def per_class(
    values: Numbers | None, name: str = "weight", *, signed: bool = False
) -> Tensor | None:
    """Numbers per class, as a tensor; a list serves, as a configuration file would hold it.

    Those that are not ``signed`` are weights. A list keeps its values where a model is made without
    any (on ``"meta"``), and has float32 at least where the default is a half type.
    """
    if values is None:
        return None
    made = as_tensor(name, values)
    if made.ndim == 0:
        raise TypeError(f"{name}: got {values!r}, wanted numbers, one per class")
    check_numbers(**{name: made})
    if not signed:
        check_weights(**{name: made})
    if made.is_floating_point() or isinstance(values, Tensor):
        return made
    return made.to(torch.promote_types(torch.get_default_dtype(), torch.float32))


_SHOWN = 12  # numbers of a tensor: one more, and its repr is abridged


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() <= _SHOWN:
            return f"torch.tensor({value.tolist()})"
        flat = value.detach().reshape(-1)
        first = ", ".join(str(number) for number in flat[:3].tolist())
        shape = "" if value.ndim == 1 else f", shape {tuple(value.shape)}"
        return f"torch.tensor([{first}, ..., {flat[-1].item()}]: {len(flat)} numbers{shape})"
    return getattr(value, "__qualname__", None) or repr(value)
