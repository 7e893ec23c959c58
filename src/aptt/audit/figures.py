"""Comparisons that say, when they fail, what was compared and by how much it is off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = [
    "Broken",
    "about",
    "coarse",
    "exact",
    "fed",
    "finite",
    "require",
    "same",
    "within_roundings",
]

_COARSE: ContextVar[float] = ContextVar("coarse", default=0.0)


@contextmanager
def coarse(rtol: float) -> Iterator[None]:
    """Within, nothing is held to more than ``rtol``: for a loss that is never more exact."""
    token = _COARSE.set(rtol)
    try:
        yield
    finally:
        _COARSE.reset(token)


class Broken(AssertionError):
    """A failure that knows what the loss was fed when it failed."""

    def __init__(self, said: str, inputs: dict[str, Tensor] | None = None) -> None:
        super().__init__(said)
        self.inputs = inputs


@contextmanager
def fed(inputs: dict[str, Tensor]) -> Iterator[None]:
    """Note, with any failure, the inputs that were derived for it; the innermost are kept."""
    try:
        yield
    except AssertionError as broken:
        raise Broken(str(broken), getattr(broken, "inputs", None) or inputs) from broken
    except Exception as error:
        raise Broken(_raised(error), inputs) from error


def require(kept: object, broken: str) -> None:
    """Raise ``AssertionError`` unless ``kept``; a plain ``assert`` is gone under ``python -O``."""
    if not kept:
        raise AssertionError(broken)


@contextmanager
def about(what: str) -> Iterator[None]:
    """Say in front of any failure, or error, what was being looked at."""
    try:
        yield
    except AssertionError as broken:
        raise Broken(f"{what}: {broken}", getattr(broken, "inputs", None)) from broken
    except Exception as error:
        raise Broken(f"{what}: {_raised(error)}") from error


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def finite(t: Tensor, what: str) -> None:
    """Refuse NaN and infinities."""
    wrong = ~t.isfinite()
    require(
        not wrong.any(), f"{what}: {int(wrong.sum())} of {t.numel()} not finite, {_first(wrong)}"
    )


def exact(got: Tensor, want: Tensor | float, what: str) -> None:
    """Hold two tensors to the same bits, or one to a number."""
    _compare(got, want, torch.zeros((), dtype=torch.float64), what)


def same(got: Tensor, want: Tensor, what: str, *, rtol: float = 1e-12, atol: float = 0.0) -> None:
    """Hold ``got`` to ``want`` within ``rtol`` of the largest of ``want``, plus ``atol``."""
    rtol = max(rtol, _COARSE.get())
    known = want.detach().double()[want.isfinite()]
    scale = known.abs().amax() if known.numel() else torch.zeros(())
    _compare(got, want, rtol * scale + atol, what)


def within_roundings(got: Tensor, truth: Tensor, what: str, *, roundings: int = 2) -> None:
    """Hold each element to the truth, within so many roundings of the dtype of ``got``.

    Where terms cancel, float32 may add a millionth of the largest element.
    """
    limits = torch.finfo(got.dtype)
    exponent = torch.frexp(truth.double()).exponent.double()
    unit = (limits.eps * 2.0 ** (exponent - 1)).clamp_min(limits.tiny * limits.eps)
    _compare(got, truth, roundings / 2 * unit + 1e-6 * truth.abs().amax(), what)


def _compare(got: Tensor, want: Tensor | float, allowed: Tensor, what: str) -> None:
    if isinstance(want, Tensor):
        require(
            got.shape == want.shape,
            f"{what}: got shape {tuple(got.shape)}, wanted {tuple(want.shape)}",
        )
    got = got.detach().double()
    want = torch.as_tensor(want, dtype=torch.float64, device=got.device).detach().expand_as(got)
    error = torch.where(got == want, 0.0, (got - want).abs())  # equal infinities are equal
    wrong = ~(error <= allowed.to(error))
    if not wrong.any():
        return
    worst = int(torch.where(wrong, error.nan_to_num(torch.inf), -1).flatten().argmax())
    at = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape))
    raise AssertionError(
        f"{what}: got {got[at].item():.9g}, wanted {want[at].item():.9g}"
        + (f" at {list(at)}" if at else "")
        + f" (off by {error[at].item():.2g}, {int(wrong.sum())} of {got.numel()} wrong)"
    )


def _first(wrong: Tensor) -> str:
    return f"the first at {wrong.nonzero()[0].tolist()}" if wrong.any() else ""
