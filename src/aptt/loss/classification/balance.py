"""Weights for classes of which a data set holds few and many.

    E[n] = (1 - beta**n) / (1 - beta)        the effective number of n samples
    w[c] = 1 / E[n[c]],  scaled to sum up to the number of classes

Axes: counts ``(C,)``.
From: Cui et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019,
arXiv:1901.05555, section 3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aptt.core.checks import Numbers, check_number
from aptt.core.exponential import expm1
from aptt.core.module import per_class

__all__ = ["class_balanced_weights"]


def class_balanced_weights(counts: Numbers, *, beta: float = 0.9999) -> Tensor:
    """Class weights by the effective number of samples: between 1 for all and one over the count.

        w[c] = (1 - beta) / (1 - beta**n[c]),  scaled to sum up to C

    Args:
        counts: ``(C,)``, how many samples of each class the data set holds (not the batch), at
            least 1.
        beta: 0 weighs all classes alike, near 1 by one over their count. In [0, 1).

    Returns:
        ``(C,)``, to be passed as ``cross_entropy(weight=...)``, which counts them: its mean is over
        the sum of the weights, where the authors' code divides by the number of samples.

    Raises:
        ValueError: a count below 1, which would weigh infinitely; a beta out of its range.

    Example:
        >>> class_balanced_weights([1000, 100, 10], beta=0.99)
        tensor([0.2301, 0.3630, 2.4068])
    """
    check_number("beta", beta, 0.0, 1 - 2.0**-52)
    made = per_class(counts, "counts")
    if not bool((made >= 1).all()):
        raise ValueError(f"counts: got {float(made.min()):g}, wanted at least 1 sample a class")
    dtype = torch.promote_types(made.dtype, torch.get_default_dtype())
    if beta == 0:
        return torch.ones_like(made, dtype=dtype)
    weight = -1 / expm1(made.double() * math.log(beta))
    return (weight * (len(weight) / weight.sum())).to(dtype)
