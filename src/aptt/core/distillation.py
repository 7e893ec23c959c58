"""What a distillation is asked for: its options, and the heads of student and teacher."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from aptt.core.checks import (
    check_choice,
    check_floating,
    check_number,
    check_positive,
    check_tensors,
)
from aptt.core.divergence import WHOLE, Form
from aptt.core.linear.tokens import check_unsharded
from aptt.core.reduction import Reduction, check_reduction

__all__ = ["Divergence", "check_heads", "checked_form"]

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
    check_choice("divergence", divergence, tuple(WHOLE))
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


def check_heads(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    *,
    some_classes: bool = False,
) -> tuple[int, ...]:
    """The shape of the tokens, once both heads agree on them and on the vocabulary.

    ``some_classes``: the weights are parts of the vocabulary, and may be empty.
    """
    check_unsharded(weight)
    check_unsharded(teacher_weight, "teacher_weight")
    heads = (
        ("", hidden, weight, bias),
        ("teacher_", teacher_hidden, teacher_weight, teacher_bias),
    )
    tensors = {"hidden": hidden, "weight": weight, "teacher_hidden": teacher_hidden}
    biases = {"bias": bias, "teacher_bias": teacher_bias}
    given = {name: t for name, t in biases.items() if t is not None}
    check_tensors(**tensors, teacher_weight=teacher_weight, **given)
    for who, states, head, offset in heads:
        check_floating(**{f"{who}hidden": states, f"{who}weight": head})
        if head.ndim != 2 or states.ndim == 0 or head.shape[1] != states.shape[-1]:
            raise ValueError(
                f"{who}weight: got shape {tuple(head.shape)} for {who}hidden "
                f"{tuple(states.shape)}, wanted (V, D), one row a class"
            )
        if offset is not None and offset.shape != head.shape[:1]:
            raise ValueError(f"{who}bias: got shape {tuple(offset.shape)}, wanted ({len(head)},)")
    if teacher_hidden.shape[:-1] != hidden.shape[:-1]:
        raise ValueError(
            f"teacher_hidden: got shape {tuple(teacher_hidden.shape)}, wanted the tokens of "
            f"hidden, {tuple(hidden.shape[:-1])}"
        )
    if len(teacher_weight) != len(weight):
        raise ValueError(
            f"teacher_weight: got {len(teacher_weight)} classes, wanted {len(weight)} as the "
            "student has; cut both to the common vocabulary, or mask by a bias of -inf"
        )
    if len(weight) == 0 and not some_classes:
        raise ValueError(f"weight: got shape {tuple(weight.shape)}, with no class")
    return tuple(hidden.shape[:-1])
