"""A row for anyone's loss: the loss, and what kind of inputs it takes.

    make(F.cross_entropy, kind="logits+classes")
    make(MyLoss, inputs=my_inputs, options={"gamma": 2.0})

What can be read from the signature is: whether the loss takes ``reduction`` and ``ignore_index``.
What a kind knows of its inputs are a perfect, a hopeless and the hardest predictions. A promise
that this cannot be held to is exempt, with the reason; none is kept for want of a check.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from aptt.audit.promise import PROMISES
from aptt.audit.spec import Inputs, Maker, Options, Scaling, Spec, case
from aptt.audit.specs.making import bits, grid, indices, normal, uniform

__all__ = ["KINDS", "Form", "Kind", "example_maker", "make"]

Perfect = Callable[[Inputs, Options], tuple[Inputs, float | None]]
_C = 4


@dataclass(frozen=True)
class Form:
    """Inputs of one shape, and what is known of them."""

    inputs: Maker
    perfect: Perfect | None = None
    hopeless: Callable[[Inputs, Options], Inputs] | None = None
    extremes: Callable[[], Inputs] | None = None
    features: int | None = None
    scaling: Scaling | None = None


@dataclass(frozen=True)
class Kind:
    """Inputs by what they mean; the first form that the loss takes is used."""

    about: str
    forms: Mapping[str, Form]


# ------------------------------------------------------------------------------------ the kinds


def _hot(inputs: Inputs) -> Tensor:
    classes = inputs["logits"].shape[1]
    return torch.nn.functional.one_hot(inputs["target"], classes).movedim(-1, 1).double()


def _sign(inputs: Inputs) -> Tensor:
    """1 for the right answer, -1 for the wrong one."""
    target = inputs["target"]
    same = target.shape == inputs["logits"].shape
    return 2 * (target.double() if same else _hot(inputs)) - 1


def _best(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    return {**inputs, "logits": 1000 * _sign(inputs)}, None


def _worst(inputs: Inputs, options: Options) -> Inputs:
    by = 15 if inputs["logits"].ndim < 4 else 5  # a ratio of sums saturates earlier
    return {**inputs, "logits": inputs["logits"] / 10 - by * _sign(inputs)}


_HARD = (0.0, 1.0, 12.0, 17.0, 30.0, 60.0, 100.0, 1e3, 6e4)


def _hard_classes(*size: int) -> Callable[[], Inputs]:
    def made() -> Inputs:
        x = torch.tensor([*_HARD, *(-h for h in _HARD)], dtype=torch.float64)
        rows = torch.zeros(len(x), _C, dtype=torch.float64)
        rows[:, 0] = x
        rows = torch.cat((rows, rows))
        target = torch.arange(2).repeat_interleave(len(x))
        view = (-1, *(1 for _ in size))
        return {
            "logits": rows.view(*rows.shape, *view[1:]).expand(*rows.shape, *size).clone(),
            "target": target.view(view).expand(-1, *size).clone(),
        }

    return made


def _hard_answers(*size: int) -> Callable[[], Inputs]:
    def made() -> Inputs:
        x = torch.tensor([*_HARD, *(-h for h in _HARD)], dtype=torch.float64).repeat(2)
        target = torch.arange(2).repeat_interleave(len(x) // 2)
        view = (-1, *(1 for _ in size))
        shape = (len(x), *size)
        return {
            "logits": x.view(view).expand(shape).clone(),
            "target": target.view(view).expand(shape).double(),
        }

    return made


def _classes(*size: int) -> Maker:
    return lambda g, n: {
        "logits": normal(g, n, _C, *size, scale=3),
        "target": indices(g, _C, n, *size),
    }


def _answers(*size: int) -> Maker:
    return lambda g, n: {
        "logits": normal(g, n, *size, scale=3),
        "target": bits(g, n, *size).double(),
    }


def _class_form(*size: int) -> Form:
    return Form(_classes(*size), _best, _worst, _hard_classes(*size), features=1)


def _answer_form(*size: int) -> Form:
    return Form(_answers(*size), _best, _worst, _hard_answers(*size))


def _boxes(g: Generator, n: int) -> Inputs:
    low = uniform(g, n, 2, high=60)
    target = torch.cat((low, low + uniform(g, n, 2, low=5, high=40)), 1)
    pred = target + uniform(g, n, 4, low=-2, high=2)
    return {"pred_boxes": pred, "target_boxes": target}


def _hard_boxes() -> Inputs:
    unit = grid(
        [0, 0, 1, 1], [2, 2, 3, 3], [0, 0, 0, 0], [0, 0.5, 1, 0.5], [0.5, 0.5, 0.5, 0.5],
        [0.25, 0.25, 0.75, 0.75], [1, 0, 2, 1], [1000, 0, 1001, 1],
    )  # fmt: skip
    target = unit[[0, 3, 2]].repeat_interleave(len(unit), 0)
    pred = unit.repeat(3, 1)
    scales = (1.0, 1e-4, 1e4)
    return {
        "pred_boxes": torch.cat([pred * s for s in scales]),
        "target_boxes": torch.cat([target * s for s in scales]),
    }


def _waves(g: Generator, n: int) -> Inputs:
    target = normal(g, n, 2048)
    return {"estimate": target + 0.3 * normal(g, n, 2048), "target": target}


def _hard_waves() -> Inputs:
    tone = torch.sin(torch.arange(2048, dtype=torch.float64) / 7)
    quiet, ones = torch.zeros_like(tone), torch.ones_like(tone)
    pairs = [(quiet, quiet), (quiet, tone), (tone, quiet), (tone, -tone), (ones, tone)]
    pairs += [(tone * 1e-4, tone), (tone * 1e3, tone), (tone, tone * 1e-4)]
    return {
        "estimate": torch.stack([p for p, _ in pairs]),
        "target": torch.stack([t for _, t in pairs]),
    }


def _numbers(g: Generator, n: int) -> Inputs:
    return {"prediction": uniform(g, n, 5, low=1, high=6), "target": uniform(g, n, 5, high=5)}


def _hard_numbers() -> Inputs:
    x = grid([0, 0], [1, 1], [1, 1 + 2**-10], [1e4, 0], [0, 1e4], [1e-4, 0], [5e-8, 1e-7])
    return {"prediction": x[:, :1].expand(-1, 5).clone(), "target": x[:, 1:].expand(-1, 5).clone()}


def _equal(first: str, second: str) -> Perfect:
    return lambda i, o: ({**i, first: i[second]}, None)


def _off(name: str, target: str, by: float) -> Callable[[Inputs, Options], Inputs]:
    return lambda i, o: {**i, name: i[target] + by}


KINDS: dict[str, Kind] = {
    "logits+classes": Kind(
        "logits (N, C) or (N, C, ...), and class indices without C",
        {
            "rows": _class_form(),
            "images": _class_form(3, 3),
        },
    ),
    "logits+multilabel": Kind(
        "logits, and 0 or 1 in the same shape",
        {
            "rows": _answer_form(3),
            "images": _answer_form(3, 4, 4),
        },
    ),
    "masks": Kind(
        "logits (N, C, H, W), and a class or a 0/1 mask for each pixel",
        {
            "classes": _class_form(4, 4),
            "one mask": _answer_form(1, 4, 4),
            "masks": _answer_form(3, 4, 4),
        },
    ),
    "boxes": Kind(
        "predicted and target boxes (N, 4) as corners x1, y1, x2, y2",
        {
            "corners": Form(
                _boxes,
                _equal("pred_boxes", "target_boxes"),
                _off("pred_boxes", "target_boxes", 300.0),
                _hard_boxes,
                features=-1,
                scaling=Scaling(lambda i, u: {k: t * u for k, t in i.items()}),
            )
        },
    ),
    "waveforms": Kind(
        "an estimated and a target signal (N, T)",
        {
            "signals": Form(
                _waves,
                _equal("estimate", "target"),
                lambda i, o: {**i, "estimate": i["estimate"].roll(700, 1)},
                _hard_waves,
            ),
            "channels": Form(
                lambda g, n: {k: t.unsqueeze(1) for k, t in _waves(g, n).items()},
                _equal("estimate", "target"),
                lambda i, o: {**i, "estimate": i["estimate"].roll(700, 2)},
                lambda: {k: t.unsqueeze(1) for k, t in _hard_waves().items()},
            ),
        },
    ),
    "regression": Kind(
        "predicted and target numbers, the same shape, positive",
        {
            "numbers": Form(
                _numbers,
                _equal("prediction", "target"),
                _off("prediction", "target", 300.0),
                _hard_numbers,
            )
        },
    ),
}


def example_maker(example: Inputs) -> Maker:
    """Inputs drawn from the samples of one batch, along the first axis."""
    sizes = {len(t) for t in example.values()}
    if len(sizes) != 1 or not min(sizes):
        raise ValueError(f"example: the first axes have the sizes {sorted(sizes)}, wanted one size")

    def made(g: Generator, n: int) -> Inputs:
        chosen = torch.randint(sizes.copy().pop(), (n,), generator=g)
        picked = {name: t[chosen] for name, t in example.items()}
        return {k: t.double() if t.is_floating_point() else t for k, t in picked.items()}

    return made


# -------------------------------------------------------------------------------------- the row


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
        inputs: instead of a kind, a function ``(generator, n)`` that makes ``n`` samples as a
            dict of tensors, the prediction first; they are passed in this order.
        options: what to pass besides: to the function, or to the class.
        name: what to call it; its own name by default.

    Returns:
        A row for :func:`aptt.audit.audit`.

    Raises:
        ValueError: an unknown kind, or a loss that takes no input of that kind.
    """
    options = dict(options or {})
    loss = _Loss(target, options)
    forms = _forms(kind, inputs)
    refusals = []
    for label, form in forms.items():
        try:
            given = form.inputs(torch.Generator().manual_seed(0), 3)
            value = loss(*given.values())
            if not isinstance(value, Tensor):
                raise TypeError(f"returned {type(value).__name__}, wanted a tensor")
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            refusals.append(f"{label}: {type(error).__name__}: {first}")
        else:
            return _row(loss, form, label, name, _rounding(loss, given, value))
    raise ValueError(
        f"{loss.name} takes none of these inputs (another kind, inputs of your own, or options?)\n"
        + "\n".join(f"  {refusal}" for refusal in refusals)
    )


def _forms(kind: str | None, inputs: Maker | None) -> Mapping[str, Form]:
    if (kind is None) == (inputs is None):
        raise ValueError("give a kind of inputs, or a function that makes them, and not both")
    if inputs is not None:
        return {"given": Form(inputs)}
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, wanted one of {', '.join(KINDS)}")
    return KINDS[kind].forms


def _rounding(loss: _Loss, given: Inputs, value: Tensor) -> float:
    """0, or the accuracy of float32 if that is what the loss computes in whatever comes."""
    rounded = {k: t.float().double() if t.is_floating_point() else t for k, t in given.items()}
    exact = value.dtype == torch.float64 and not torch.equal(loss(*rounded.values()), value)
    return 0.0 if exact else 1e-5


class _Loss:
    """A stranger's loss, called with the tensors in order and the options by name."""

    def __init__(self, target: Any, options: dict[str, Any]) -> None:
        self.target, self.given = target, options
        self.made = inspect.isclass(target)  # options go to the constructor
        self.name = getattr(target, "__name__", type(target).__name__)
        asked = target.forward if isinstance(target, nn.Module) else target
        try:
            self.takes = set(inspect.signature(asked).parameters)
        except (TypeError, ValueError):  # a builtin tells nothing
            self.takes = set()
        self.reductions = "reduction" in self.takes

    def __call__(self, *tensors: Tensor, **options: Any) -> Any:
        options = {**self.given, **options}
        if self.made:
            return self.target(**options)(*tensors)
        return self.target(*tensors, **options)

    def values(self, tensors: list[Tensor], options: dict[str, Any]) -> Tensor:
        """What is not reduced; of a loss that always reduces, the loss of each sample alone."""
        n = len(tensors[0])
        if self.reductions or not n:
            asked = {"reduction": "none"} if self.reductions else {}
            return self(*tensors, **{**options, **asked})
        return torch.stack(
            [self(*(t[i : i + 1] for t in tensors), **options).squeeze() for i in range(n)]
        )


class _Module(nn.Module):
    """A stranger's module, called with the tensors by the names of the row."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, **inputs: Tensor) -> Any:
        return self.loss(*inputs.values())


def _row(loss: _Loss, form: Form, label: str, name: str | None, rounding: float) -> Spec:
    names = list(form.inputs(torch.Generator(), 1))

    def function(**given: Any) -> Any:
        tensors = [given.pop(k) for k in names if k in given]
        reduction = given.pop("reduction", None)
        if reduction == "none":
            return loss.values(tensors, given)
        if reduction is not None and loss.reductions:
            given["reduction"] = reduction
        elif reduction not in (None, "mean", "sum"):
            raise ValueError(f"reduction: got {reduction!r}")
        return loss(*tensors, **given)

    def module(**given: Any) -> nn.Module:
        if given.get("reduction") in (None, "mean") and not loss.reductions:
            given.pop("reduction", None)
        return _Module(loss.target(**{**loss.given, **given}) if loss.made else loss.target)

    able = "ignore_index" in loss.takes and label != "given"
    has_module = loss.made or isinstance(loss.target, nn.Module)
    default = loss.given.get("ignore_index", _default(loss.target, "ignore_index"))
    ignored = default if isinstance(default, int) else 255
    cases = {label: case()}
    if able and default != ignored:  # it ignores nothing unless told to
        told = case(ignore_index=ignored, exempt=_crashes(loss, form, ignored))
        cases = {
            label: case(exempt={"ignoring_is_removing": _OFF}),
            f"{label}, ignore_index={ignored}": told,
        }

    def hide(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
        target = inputs["target"]
        drop = ~keep if target.shape == keep.shape else (~keep).unsqueeze(1).expand_as(target)
        return {**inputs, "target": target.masked_fill(drop, ignored)}

    spec = Spec(
        name=name or loss.name,
        function=function,
        module=module if has_module else None,
        inputs=form.inputs,
        cases=cases,
        features=form.features,
        joint=True,
        walks=False,
        stranger=True,
        rounding=rounding,
        hide=hide if able else None,
        perfect=form.perfect,
        hopeless=form.hopeless,
        extremes=form.extremes,
        scaling=form.scaling,
    )
    return replace(spec, exempt=_exempt(spec, loss))


def _crashes(loss: _Loss, form: Form, ignored: int) -> dict[str, str]:
    """An option that cannot be used is found by one promise, and not by all of them."""
    try:
        loss(*form.inputs(torch.Generator().manual_seed(0), 3).values(), ignore_index=ignored)
    except Exception as error:
        why = f"with ignore_index it raises {type(error).__name__}, as ignoring_is_removing shows"
        return {name: why for name in PROMISES if name != "ignoring_is_removing"}
    return {}


_NONE_GIVEN = "the inputs are given, and what {} would be is not known of them"
_OFF = "by default it ignores nothing; the next case sets ignore_index"


def _exempt(spec: Spec, loss: _Loss) -> dict[str, str]:
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
    if spec.rounding:
        for name in ("gradient_is_right", "double_backward", "gradient_reaches_all_who_ask"):
            exempt[name] = "it makes float32 of float64, too coarse for finite differences"
    if not loss.reductions:
        exempt["none_sums_to_sum"] = "it takes no reduction, and returns one number"
    if spec.hide is None:
        exempt["ignoring_is_removing"] = "it has no ignore_index by which to leave a position out"
    if spec.scaling is None:
        exempt["scale_invariance"] = "how it changes with the unit of its inputs is not known"
    for promise, need, what in (
        ("perfect_is_minimal", spec.perfect, "a perfect prediction"),
        ("hopeless_keeps_a_gradient", spec.hopeless, "a confidently wrong prediction"),
        ("finite_at_extremes", spec.extremes, "the hardest input"),
    ):
        if need is None:
            exempt[promise] = _NONE_GIVEN.format(what)
    return exempt


def _default(target: Any, name: str) -> Any:
    try:
        return inspect.signature(target).parameters[name].default
    except (TypeError, ValueError, KeyError):
        return None
