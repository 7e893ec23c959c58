"""A row for anyone's loss: the loss, and what kind of inputs it takes.

    make(F.cross_entropy, kind="logits+classes")
    make(MyLoss, inputs=my_inputs, options={"gamma": 2.0})

What can be read from the signature is: which argument a tensor goes to, and whether the loss takes
``reduction`` and ``ignore_index``. What a kind knows of its inputs are a perfect, a hopeless and
the hardest predictions; of inputs of one's own, :mod:`aptt.audit.given` deduces it. A promise that
this cannot be held to is exempt, with the reason; none is kept for want of a check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aptt.audit.call import Loss, is_target
from aptt.audit.given import form_of, renamed
from aptt.audit.kinds import KINDS, Form
from aptt.audit.promise import PROMISES
from aptt.audit.spec import Inputs, Maker, Options, Spec, case

__all__ = ["make"]


def make(
    target: Any,
    *,
    kind: str | None = None,
    inputs: Maker | None = None,
    options: Options | None = None,
    name: str | None = None,
) -> Spec:
    """The row of a stranger's loss, given what kind of inputs it takes, or a maker of them.

    Args:
        target: a function ``(prediction, target, ...)``, a class of modules, or a module.
        kind: one of :data:`KINDS`.
        inputs: a function ``(generator, n)`` that makes ``n`` samples as a dict of tensors. They
            are passed by name, or in order if no name is an argument of the loss. A kind
            besides says what they mean; without, it is deduced where it can be.
        options: what to pass besides: to the function, or to the class.
        name: what to call it; its own name by default.

    Returns:
        A row for :func:`aptt.audit.audit`.

    Raises:
        ValueError: an unknown kind, inputs that do not fit, or a loss that takes none of them.
    """
    loss = Loss(target, options or {})
    refusals = []
    for label, form in _forms(loss, kind, inputs).items():
        given = form.inputs(torch.Generator().manual_seed(0), 3)
        try:
            value = loss(given)
            if not isinstance(value, Tensor):
                raise TypeError(f"returned {type(value).__name__}, wanted a tensor")
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            refusals.append(f"{label}: {type(error).__name__}: {first}")
        else:
            row = _row(loss, form, label, name, _rounding(loss, given, value))
            joint = (
                {"samples_stand_alone": _RATIO} if kind == "masks" and row.always_reduces else {}
            )
            return replace(row, exempt={**row.exempt, **joint})
    if inputs is not None:
        took = ", ".join(f"{k} {tuple(t.shape)} {t.dtype}" for k, t in given.items())
        raise ValueError(f"{loss.name} does not take the given inputs, {took}: {refusals[0]}")
    raise ValueError(
        f"{loss.name} takes none of these inputs (another kind, inputs of your own, or options?)\n"
        + "\n".join(f"  {refusal}" for refusal in refusals)
    )


def _forms(loss: Loss, kind: str | None, inputs: Maker | None) -> Mapping[str, Form]:
    if kind is None and inputs is None:
        raise ValueError("give a kind of inputs, or a function that makes them, or both")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, wanted one of {', '.join(KINDS)}")
    if inputs is not None:
        return {"given": form_of(inputs, loss, kind)}
    assert kind is not None
    return {label: _named(form, loss) for label, form in KINDS[kind].forms.items()}


def _named(form: Form, loss: Loss) -> Form:
    """A form of a kind, under the names that the loss has for its prediction and target."""
    first, second = form.inputs(torch.Generator(), 1)
    return renamed(form, dict(zip((first, second), loss.roles(first, second), strict=True)))


def _rounding(loss: Loss, given: Inputs, value: Tensor) -> float:
    """0, or the accuracy of float32 if that is what the loss computes in whatever comes."""
    nudge = 1 - 2.0**-40  # inputs may be no more exact than float32 themselves
    near = {k: t * nudge if t.is_floating_point() else t for k, t in given.items()}
    exact = value.dtype == torch.float64 and not torch.equal(loss(near), value)
    return 0.0 if exact else 1e-5


class _Module(nn.Module):
    """A stranger's module, called with the tensors by the names of the row."""

    def __init__(self, loss: nn.Module, how: Loss) -> None:
        super().__init__()
        self.loss = loss
        self.call = how.call

    def forward(self, **inputs: Tensor) -> Any:
        return self.call(self.loss, inputs)


def _row(loss: Loss, form: Form, label: str, name: str | None, rounding: float) -> Spec:
    names = list(form.inputs(torch.Generator(), 1))
    goal = next((k for k in names[1:] if is_target(k)), names[-1] if len(names) == 2 else "")

    def function(**given: Any) -> Any:
        tensors = {k: given.pop(k) for k in names if k in given}
        reduction = given.pop("reduction", None)
        if reduction == "none":
            return loss.values(tensors, given)
        if reduction is not None and loss.reductions:
            given["reduction"] = reduction
        elif reduction not in (None, "mean", "sum"):
            raise ValueError(f"reduction: got {reduction!r}")
        return loss(tensors, **given)

    def module(**given: Any) -> nn.Module:
        if given.get("reduction") in (None, "mean") and not loss.reductions:
            given.pop("reduction", None)
        if not loss.made and not loss.takes.issuperset(given):  # it was made already
            raise TypeError(f"{loss.name} takes no {', '.join(given)}")
        made = loss.target(**{**loss.given, **given}) if loss.made else loss.target
        return _Module(made, loss)

    able = "ignore_index" in loss.takes and form.ignores
    default = loss.given.get("ignore_index", _default(loss, "ignore_index"))
    ignored = default if isinstance(default, int) else 255
    cases = {label: case()}
    if able and default != ignored:  # it ignores nothing unless told to
        told = case(ignore_index=ignored, exempt=_crashes(loss, form, ignored))
        cases = {
            label: case(exempt={"ignoring_is_removing": _OFF}),
            f"{label}, ignore_index={ignored}": told,
        }

    def hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
        target = inputs[goal]
        drop = ~keep if target.shape == keep.shape else (~keep).unsqueeze(1).expand_as(target)
        return {**inputs, goal: target.masked_fill(drop, ignored)}

    spec = Spec(
        name=name or loss.name,
        function=function,
        module=module if loss.is_module else None,
        inputs=form.inputs,
        cases=cases,
        features=form.features,
        joint=True,
        walks=False,
        stranger=True,
        always_reduces=not loss.reductions,
        rounding=rounding,
        hide=hide if able else None,
        perfect=form.perfect,
        hopeless=form.hopeless,
        extremes=form.extremes,
        scaling=form.scaling,
        within=form.within,
        weighs=tuple(p.name for p in loss.options if p.name not in names),
        notes=form.notes,
    )
    return replace(spec, exempt=_exempt(spec, loss))


def _crashes(loss: Loss, form: Form, ignored: int) -> dict[str, str]:
    """An option that cannot be used is found by one promise, and not by all of them."""
    try:
        loss(form.inputs(torch.Generator().manual_seed(0), 3), ignore_index=ignored)
    except Exception as error:
        why = f"with ignore_index it raises {type(error).__name__}, as ignoring_is_removing shows"
        return {name: why for name in PROMISES if name != "ignoring_is_removing"}
    return {}


_NOT_DEDUCED = "not asked: the inputs do not say what they mean; --kind has it asked"
_RATIO = "of masks, a ratio of the batch's sums may be what is meant; it has no reduction to tell"
_OFF = "by default it ignores nothing; the next case sets ignore_index"


def _exempt(spec: Spec, loss: Loss) -> dict[str, str]:
    """What a stranger cannot be held to, with the reason."""
    names = "its reduction takes names only, so total and count cannot be told apart"
    exempt = {
        "streamed_equals_plain": "it is not made with aptt.core, and has one way to go",
        "frozen_factors_are_constants": "which factors are meant to be constant, it cannot say",
        "every_option_is_exercised": "its options are used as they are passed, in every case",
        "twin_agrees": "a function or a class was named, and no second form of it",
        "counts_what_it_says": names,
        "split_invariance": names,
    }
    if spec.module is None:
        for name in ("copies", "follows_to_dtype_and_device"):
            exempt[name] = "a function holds no state that could be copied or moved"
    if not loss.reductions:
        exempt["none_sums_to_sum"] = "it takes no reduction, and returns one number"
    if spec.hide is None:
        takes = "ignore_index" in loss.takes
        exempt["ignoring_is_removing"] = (
            "its target could hold no ignore_index: it has no integers, nor the prediction's shape"
            if takes
            else "it has no ignore_index by which to leave a position out"
        )
    if spec.scaling is None:
        exempt["scale_invariance"] = "how it changes with the unit of its inputs is not known"
    for promise, need in (
        ("perfect_is_minimal", spec.perfect),
        ("hopeless_keeps_a_gradient", spec.hopeless),
    ):
        if need is None:
            exempt[promise] = _NOT_DEDUCED
    return exempt


def _default(loss: Loss, name: str) -> Any:
    return next((p.default for p in loss.options if p.name == name), None)
