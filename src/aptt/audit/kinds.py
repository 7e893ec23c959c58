"""What inputs mean: kinds of them, each with a perfect, a hopeless and the hardest predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Maker, Options, Scaling
from aptt.audit.specs.making import bits, grid, indices, normal, uniform

__all__ = ["KINDS", "Form", "Kind", "class_axis", "example_maker"]

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
    ignores: bool = True
    """Whether a target can hold an ``ignore_index``."""
    within: tuple[float, float] = (-torch.inf, torch.inf)
    """Where a prediction can lie."""
    notes: tuple[str, ...] = ()
    """What was deduced, and what is odd."""


@dataclass(frozen=True)
class Kind:
    """Inputs by what they mean; the first form that the loss takes is used."""

    about: str
    forms: Mapping[str, Form]


# ------------------------------------------------------------------------------------ the kinds


def class_axis(x: Tensor, target: Tensor) -> int | None:
    """Where a prediction has an axis that its target lacks: the second, or the last."""
    for axis in (1, -1):
        if x.ndim > 1 and x.movedim(axis, 0).shape[1:] == target.shape:
            return axis
    return None


def _sign(inputs: Inputs) -> Tensor:
    """1 for the right answer, -1 for the wrong one."""
    x, target = inputs["logits"], inputs["target"]
    if target.shape == x.shape:
        return 2 * target.double() - 1
    axis = class_axis(x, target)
    assert axis is not None
    some = target.long().clamp(0, x.shape[axis] - 1)
    return 2 * torch.nn.functional.one_hot(some, x.shape[axis]).movedim(-1, axis).double() - 1


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
    inside_out = grid([1, 0, 0, 1], [1, 1, 0, 0], [0.5, 1, 0.25, 0.5])
    pred = torch.cat((unit, inside_out))
    target = unit[[0, 3, 2]].repeat_interleave(len(pred), 0)
    pred = pred.repeat(3, 1)
    scales = (1.0, 1e-4, 1e4)
    return {
        "pred_boxes": torch.cat([pred * s for s in scales]),
        "target_boxes": torch.cat([target * s for s in scales]),
    }


def _waves(g: Generator, n: int) -> Inputs:
    target = normal(g, n, 2048)
    return {"estimate": target + 0.3 * normal(g, n, 2048), "target": target}


def _hard_waves() -> Inputs:
    # no power of two: a mean is rounded, and a level less its mean is not 0 but rounding
    tone = torch.sin(torch.arange(2000, dtype=torch.float64) / 7)
    quiet, ones = torch.zeros_like(tone), torch.ones_like(tone)
    pairs = [(quiet, quiet), (quiet, tone), (tone, quiet), (tone, -tone), (ones, tone)]
    pairs += [(0.01 * ones, tone), (-3.3 * ones, tone), (tone, 0.01 * ones)]
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
