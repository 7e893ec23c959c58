"""What can be deduced of inputs of a user's own: which is the prediction, and what they mean.

A kind knows what is perfect and what is hopeless; inputs of one's own, what shape they have. Where
no kind is named, the one is taken that fits, and whose perfect prediction costs the loss least.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit.call import Loss, is_prediction, is_target
from aptt.audit.kinds import KINDS, Form, class_axis
from aptt.audit.spec import Inputs, Maker, Options

__all__ = ["form_of", "renamed"]

_HARD = (0.0, 1e-6, 1e-3, 1.0, 12.0, 30.0, 100.0, 1e3, 1e4, 6e4)
_EXCESS = 64  # the most hard samples


def renamed(form: Form, names: Mapping[str, str]) -> Form:
    """A form whose tensors have other names."""
    back = {new: old for old, new in names.items()}

    def out(inputs: Inputs) -> Inputs:
        return {names.get(k, k): t for k, t in inputs.items()}

    def into(inputs: Inputs) -> Inputs:
        return {back.get(k, k): t for k, t in inputs.items()}

    perfect, hopeless, extremes, scaling = form.perfect, form.hopeless, form.extremes, form.scaling

    def best(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
        assert perfect is not None
        made, least = perfect(into(inputs), options)
        return out(made), least

    return replace(
        form,
        inputs=lambda g, n: out(form.inputs(g, n)),
        perfect=perfect and best,
        hopeless=hopeless and (lambda i, o: out(hopeless(into(i), o))),
        extremes=extremes and (lambda: out(extremes())),
        scaling=scaling and replace(scaling, by=lambda i, unit: out(scaling.by(into(i), unit))),
    )


def form_of(maker: Maker, loss: Loss, kind: str | None) -> Form:
    """The form of inputs of one's own, under the names of the loss's arguments.

    Raises:
        ValueError: the maker, or what it makes, is not what it should be.
    """
    make = _checked(maker)
    given = make(Generator().manual_seed(0), 64)
    to = loss.bind(list(given))
    x, y = _roles(given, to, kind)
    order = [x, *(name for name in given if name != x)] if loss.arguments else list(given)
    notes = _bound(to)

    def inputs(g: Generator, n: int) -> Inputs:
        drawn = make(g, n)
        return {to[k]: drawn[k] for k in order}

    made = {to[k]: given[k] for k in order}
    pred, target = to[x], to[y] if y else None
    within = _within(made[pred])
    form = Form(inputs, within=within, notes=notes)
    if target is None:
        return replace(form, ignores=False, extremes=_hard(form, pred, None))
    form = replace(
        form,
        features=class_axis(made[pred], made[target]),
        ignores=_can_ignore(made[pred], made[target]),
        notes=notes + _odd(pred, made[pred], target, made[target]),
    )
    form = _meaning(form, loss, kind, pred, target, made)
    return replace(form, extremes=_hard(form, pred, target))


# ---------------------------------------------------------------------------- the maker


def _checked(maker: Maker) -> Maker:
    """A maker that was tried, and which gives the same for the same seed whatever it draws from."""
    name = getattr(maker, "__name__", "inputs")
    try:
        inspect.signature(maker).bind(Generator(), 3)
    except TypeError as error:
        raise ValueError(
            f"{name}{inspect.signature(maker)}: wanted {name}(generator, n), which makes n samples"
        ) from error
    except ValueError:
        pass  # a builtin tells nothing

    def make(g: Generator, n: int) -> Inputs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(g.initial_seed())
            made = maker(g, n)
        return {k: t.double() if t.is_floating_point() else t for k, t in made.items()}

    with torch.random.fork_rng(devices=[]):
        try:
            made: Any = maker(Generator().manual_seed(0), 3)
        except Exception as error:
            raise ValueError(f"{name}(generator, 3) raised {_first(error)}") from error
    if not isinstance(made, dict):
        raise ValueError(f"{name} returned a {type(made).__name__}, wanted a dict of tensors")
    for key, t in made.items():
        if not isinstance(t, Tensor):
            raise ValueError(f"{name} made {key!r} a {type(t).__name__}, wanted a tensor")
    if not any(t.is_floating_point() for t in made.values()):
        raise ValueError(f"{name} made no floating tensor, so nothing that could be a prediction")
    for key, t in made.items():
        if t.ndim == 0 or len(t) != 3:
            raise ValueError(
                f"{name}(generator, n) ignores n: for n = 3 it made {key!r} of shape "
                f"{tuple(t.shape)}; the first axis of each tensor is to be n"
            )
    return make


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


# ------------------------------------------------------------------- which is which, and odd


def _roles(given: Inputs, to: Mapping[str, str], kind: str | None) -> tuple[str, str | None]:
    """The tensor that is the prediction, and the one that is the target if a name says so."""
    floating = [k for k, t in given.items() if t.is_floating_point()]
    named = [k for k in floating if is_prediction(to[k]) or is_prediction(k)]
    x = (named or floating)[0]
    others = [k for k in given if k != x]
    targets = [k for k in others if is_target(to[k]) or is_target(k)]
    if kind is not None and not others:
        raise ValueError(f"kind: {kind} needs a target, and the inputs are {x!r} alone")
    return x, targets[0] if targets else others[0] if kind is not None else None


def _bound(to: Mapping[str, str]) -> tuple[str, ...]:
    if all(k == name for k, name in to.items()):
        return ()
    pairs = ", ".join(f"{k} as {name}" for k, name in to.items())
    return (f"no name of the inputs is an argument, so they go in order: {pairs}",)


def _odd(pred: str, x: Tensor, target: str, y: Tensor) -> tuple[str, ...]:
    if x.shape == y.shape or not y.is_floating_point():
        return ()
    try:
        wide = tuple(torch.broadcast_shapes(x.shape, y.shape))
    except RuntimeError:
        return ()
    said = f"{pred} {tuple(x.shape)} and {target} {tuple(y.shape)} differ in shape"
    return (f"warning: {said}, and broadcast to {wide}",)


def _within(x: Tensor) -> tuple[float, float]:
    """Probabilities stay probabilities, and what is never negative, or never positive, stays so."""
    low, high = (float(x.min()), float(x.max())) if x.numel() else (-1.0, 2.0)
    if low >= 0:
        return 0.0, 1.0 if high <= 1 else math.inf
    return -math.inf, 0.0 if high <= 0 else math.inf


def _can_ignore(x: Tensor, y: Tensor) -> bool:
    return y.shape == x.shape or (not y.is_floating_point() and class_axis(x, y) is not None)


# -------------------------------------------------------------------------- what they mean


def _meaning(
    form: Form, loss: Loss, kind: str | None, pred: str, target: str, made: Inputs
) -> Form:
    x, y = made[pred], made[target]
    if kind is not None:
        classes = kind in ("logits+classes", "masks") and not y.is_floating_point()
        if x.shape != y.shape and not (classes and class_axis(x, y) is not None):
            shapes = f"{pred} {tuple(x.shape)} and {target} {tuple(y.shape)}"
            raise ValueError(f"kind: {kind} is {KINDS[kind].about}, got {shapes}, {y.dtype}")
        return _as_kind(form, kind, pred, target)
    best: tuple[float, str, Form] | None = None
    for name in _fitting(x, y, f"{pred} {target}"):
        taken = _as_kind(form, name, pred, target)
        assert taken.perfect is not None
        inputs = form.inputs(Generator().manual_seed(0), 11)
        try:
            surely = taken.perfect(inputs, {})[0]
            if "logits" in name:  # they need not be as large as they get
                surely[pred] = surely[pred].clamp(-12, 12)
            costs = float(loss(surely).mean())
        except Exception:  # the loss does not take this: it means another kind
            continue
        costs = costs if math.isfinite(costs) else math.inf
        if best is None or costs < best[0]:
            best = costs, name, taken
    if best is None:
        return form
    _, name, taken = best
    said = f"taken as {name}, as {pred} and {target} look; --kind says otherwise"
    return replace(taken, notes=(*taken.notes, said))


def _fitting(x: Tensor, y: Tensor, names: str) -> list[str]:
    """The kinds that these can be; none where a guess would be no more than that."""
    if x.shape != y.shape:
        axis = None if y.is_floating_point() else class_axis(x, y)
        return [] if axis is None or int(y.max()) >= x.shape[axis] else ["logits+classes"]
    if bool(((y == 0) | (y == 1)).all()):
        return (
            ["logits+multilabel", "regression"] if y.is_floating_point() else ["logits+multilabel"]
        )
    low, high = _within(x)
    apart = bool((y < low).any() or (y > high).any())
    share = bool(((y >= 0) & (y <= 1)).all()) and (low, high) != (0.0, 1.0)  # soft labels?
    signs = bool((y.abs() == 1).all())  # of a margin
    if not y.is_floating_point() or apart or share or signs:
        return []
    return ["boxes"] if "box" in names and x.shape[-1] == 4 and x.ndim == 2 else ["regression"]


def _as_kind(form: Form, kind: str, pred: str, target: str) -> Form:
    """Inputs of one's own, with what a kind knows of its own."""
    known = next(iter(KINDS[kind].forms.values()))
    first, second = known.inputs(Generator(), 1)
    known = renamed(known, {first: pred, second: target})
    low, high = form.within
    edge = 0.01 if math.isfinite(high - low) else 0.0
    perfect, hopeless = known.perfect, known.hopeless
    assert perfect is not None
    assert hopeless is not None

    def best(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
        made, least = perfect(inputs, options)
        return {**made, pred: made[pred].to(inputs[pred]).clamp(low, high)}, least

    def worst(inputs: Inputs, options: Options) -> Inputs:
        if edge and kind == "regression":  # as far away as they can be
            far = (inputs[target] < (low + high) / 2).to(inputs[pred])
            return {**inputs, pred: far.clamp(low + edge, high - edge)}
        made = hopeless(inputs, options)
        return {**made, pred: made[pred].clamp(low + edge, high - edge)}

    return replace(
        form,
        perfect=best,
        hopeless=worst,
        scaling=known.scaling,
        features=known.features if kind == "boxes" else form.features,
    )


def _hard(form: Form, pred: str, target: str | None) -> Callable[[], Inputs]:
    """Hard numbers in all of a sample's prediction, or in every other of them; and the target."""
    low, high = form.within
    values = sorted({v for h in _HARD for v in (h, -h) if low <= v <= high}, key=abs)

    def made() -> Inputs:
        inputs = form.inputs(Generator().manual_seed(0), min(2 * len(values) + 1, _EXCESS))
        x = inputs[pred].clone()
        for i, value in enumerate(values):
            x[2 * i] = value
            x[2 * i + 1] = 0.0
            x[2 * i + 1].view(-1)[::2] = value
        if target is not None and inputs[target].shape == x.shape:
            x[-1] = inputs[target][-1].to(x).clamp(low, high)
        return {**inputs, pred: x}

    return made
