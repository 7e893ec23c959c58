"""What a distillation is asked for: its options, and the heads of student and teacher."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from aptt.core.checks import (
    check_choice,
    check_floating,
    check_number,
    check_positive,
    check_tensors,
)
from aptt.core.divergence import BY_NAME, Form
from aptt.core.linear import Projection
from aptt.core.linear.tokens import check_unsharded
from aptt.core.reduction import Reduction, check_reduction

__all__ = ["Divergence", "check_head", "check_heads", "check_spread", "checked_form"]

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


def checked_form(
    temperature: float,
    alpha: float,
    soft_weight: float | None,
    hard_weight: float | None,
    divergence: str,
    beta: float,
    reduction: Reduction,
) -> Form:
    """The options of a distillation, held to their ranges."""
    check_reduction(reduction)
    check_choice("divergence", divergence, tuple(BY_NAME))
    check_positive("temperature", temperature)
    check_number("beta", beta, 0.0, 1.0)
    if beta in (0, 1):
        raise ValueError(
            f"beta: got {beta}, wanted a number between 0 and 1; at the ends the mixture is one of "
            'the two, and jsd is 0: take divergence="forward_kl" or "reverse_kl"'
        )
    if beta != 0.5 and divergence != "jsd":
        raise ValueError(f'beta: got {beta} with divergence={divergence!r}, wanted "jsd"')
    check_number("alpha", alpha, 0.0, 1.0)
    soft = alpha if soft_weight is None else soft_weight
    hard = 1 - alpha if hard_weight is None else hard_weight
    check_number("soft_weight", soft)
    check_number("hard_weight", hard)
    return Form(temperature, beta, soft * temperature**2, hard or None)


def check_spread(name: str, classes: int | None, indices: object) -> None:
    """Whether the logits of both have a spread that says something."""
    if indices is not None:
        raise ValueError(
            "standardize: got True with teacher_indices, wanted all of the teacher's logits: some "
            "of its log-probabilities tell neither the mean of the others nor their spread"
        )
    if classes == 2:
        raise ValueError(
            f"{name}: got 2 classes with standardize=True, wanted 3 or more: the standardised "
            "logits of two are 1 and -1, whatever they were"
        )


def check_heads(
    hidden: Tensor,
    weight: Tensor | Projection,
    bias: Tensor | None,
    teacher_hidden: Tensor,
    teacher_weight: Tensor | Projection,
    teacher_bias: Tensor | None,
    *,
    some_classes: bool = False,
) -> tuple[int, ...]:
    """The shape of the tokens, once both heads agree on them and on the vocabulary.

    ``some_classes``: the weights are parts of the vocabulary, and may be empty.
    """
    shape = check_head("", hidden, weight, bias, some_classes=some_classes)
    taught = check_head(
        "teacher_", teacher_hidden, teacher_weight, teacher_bias, like=hidden, some_classes=True
    )
    if taught != shape:
        raise ValueError(
            f"teacher_hidden: got shape {tuple(teacher_hidden.shape)}, wanted the tokens of "
            f"hidden, {shape}"
        )
    if not (isinstance(weight, Tensor) and isinstance(teacher_weight, Tensor)):
        return shape
    if len(teacher_weight) != len(weight):
        raise ValueError(
            f"teacher_weight: got {len(teacher_weight)} classes, wanted {len(weight)} as the "
            "student has; cut both to the common vocabulary, or mask by a bias of -inf"
        )
    return shape


def check_head(
    who: str,
    hidden: Tensor,
    weight: Tensor | Projection,
    bias: Tensor | None,
    *,
    like: Tensor | None = None,
    some_classes: bool = False,
) -> tuple[int, ...]:
    """The shape of a head's tokens; ``who`` is what its names begin with."""
    check_unsharded(weight, f"{who}weight")
    first = {} if like is None else {"hidden": like}
    given = {f"{who}hidden": hidden, f"{who}weight": weight, f"{who}bias": bias}
    callable_head = not isinstance(weight, Tensor) and callable(weight)
    left_out = {f"{who}weight"} if callable_head else set()
    left_out |= {f"{who}bias"} if bias is None else set()
    check_tensors(**first, **{k: t for k, t in given.items() if k not in left_out})
    check_floating(**{f"{who}hidden": hidden})
    if hidden.ndim == 0:
        raise ValueError(f"{who}hidden: got a number, wanted hidden states, (..., D)")
    if not isinstance(weight, Tensor):
        if isinstance(weight, nn.Embedding | nn.EmbeddingBag):
            raise TypeError(
                f"{who}weight: got {type(weight).__name__}, which looks tokens up and makes no "
                "logits; pass its weight, embedding.weight, for a tied head"
            )
        if bias is not None:
            raise ValueError(f"{who}bias: got a tensor with a callable head, which adds its own")
        return tuple(hidden.shape[:-1])
    check_floating(**{f"{who}weight": weight})
    if weight.ndim != 2 or weight.shape[1] != hidden.shape[-1]:
        raise ValueError(
            f"{who}weight: got shape {tuple(weight.shape)} for {who}hidden "
            f"{tuple(hidden.shape)}, wanted (V, D), one row a class"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{who}bias: got shape {tuple(bias.shape)}, wanted ({len(weight)},)")
    if len(weight) == 0 and not some_classes:
        raise ValueError(f"{who}weight: got shape {tuple(weight.shape)}, with no class")
    return tuple(hidden.shape[:-1])
