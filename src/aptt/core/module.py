"""The module form of a loss: it holds the options of a function, and calls it."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor, nn

from aptt.core.checks import Numbers, as_tensor, check_numbers, check_weight

__all__ = ["LossModule", "per_class"]


class LossModule(nn.Module):
    """Options as attributes, and a ``repr`` that is the call.

    Tensors among them are buffers, or parameters if they are to be learned.

    A subclass passes its options on by name and calls its function with ``**self.options()``.
    """

    reduction: Any  # of those that have the option

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._names = tuple(options)
        for name, value in options.items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:  # what is learned stays a parameter
                setattr(self, name, value)

    def options(self) -> dict[str, Any]:
        """The options, by name, as they are now."""
        return {name: getattr(self, name) for name in self._names}

    def extra_repr(self) -> str:
        """The options as they were passed, by keyword."""
        return ", ".join(f"{name}={_written(value)}" for name, value in self.options().items())


@overload
def per_class(values: Numbers, name: str = ..., *, signed: bool = ...) -> Tensor: ...
@overload
def per_class(values: Numbers | None, name: str = ..., *, signed: bool = ...) -> Tensor | None: ...
def per_class(
    values: Numbers | None, name: str = "weight", *, signed: bool = False
) -> Tensor | None:
    """Numbers per class, as a tensor; a list serves, as a configuration file would hold it.

    Those that are not ``signed`` are weights.
    """
    if values is None:
        return None
    made = as_tensor(name, values)
    if made.ndim == 0:
        raise TypeError(f"{name}: got {values!r}, wanted numbers, one per class")
    check_numbers(**{name: made})
    if not signed:
        check_weight(name, made)
    floating = made.is_floating_point() or isinstance(values, Tensor)
    return (
        made if floating else made.to(torch.promote_types(torch.get_default_dtype(), torch.float32))
    )


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"torch.tensor({value.tolist()})"
    return getattr(value, "__qualname__", None) or repr(value)
