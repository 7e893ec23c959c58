"""Hold a loss to its promises in a test suite of one's own, with pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from aptt.audit.promise import PROMISES, Promise
from aptt.audit.spec import Maker, Options, Spec
from aptt.audit.stranger import make

__all__ = ["parametrize"]


def parametrize(
    target: Any,
    *,
    kind: str | None = None,
    inputs: Maker | None = None,
    options: Options | None = None,
    promises: Iterable[str] | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """One test for each promise; those that do not apply are shown as skipped, with the reason.

        @aptt.audit.parametrize(my_loss, kind="logits+classes")
        def test_my_loss(promise):
            promise()

    Args:
        target: a loss, as in :func:`make`, or a row, which needs nothing more.
        kind: as in :func:`make`.
        inputs: as in :func:`make`.
        options: as in :func:`make`.
        promises: names of those to check; all by default.

    Returns:
        A decorator for a test function with an argument ``promise``, to be called.

    Raises:
        ValueError: an unknown promise, or as :func:`make`.
    """
    import pytest

    spec = target
    if not isinstance(target, Spec):
        spec = make(target, kind=kind, inputs=inputs, options=options)
    chosen = []
    for name in PROMISES if promises is None else promises:
        if name not in PROMISES:
            raise ValueError(f"promises: got {name!r}, wanted names of {', '.join(PROMISES)}")
        chosen.append(_param(PROMISES[name], spec))
    return pytest.mark.parametrize("promise", chosen)


def _param(promise: Promise, spec: Spec) -> Any:
    import pytest

    reason = promise.exemption(spec)
    marks = () if reason is None else pytest.mark.skip(reason=reason)
    return pytest.param(partial(promise, spec), id=f"{promise.name}-{spec.name}", marks=marks)
