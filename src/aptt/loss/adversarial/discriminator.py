"""The discriminator's loss: real data from generated.

    lsgan           mean (1 - r)**2 + mean f**2
    hinge           mean max(0, 1 - r) + mean max(0, 1 + f)
    bce             mean log(1 + exp(-r)) + mean log(1 + exp(f))
    wasserstein     mean f - mean r

Axes: scores of any shape; in lists, the discriminators, and in lists of those, the features of
each, of which the last is the score.
From: least squares, Mao et al., ICCV 2017, arXiv:1611.04076; hinge, Lim and Ye 2017,
arXiv:1705.02894, and Miyato et al., ICLR 2018, arXiv:1802.05957; bce, Goodfellow et al. 2014,
arXiv:1406.2661; wasserstein, Arjovsky et al. 2017, arXiv:1701.07875.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.module import LossModule
from aptt.core.reduction import Combine, Reduction
from aptt.loss.adversarial.kinds import Kind, check_kind, score
from aptt.loss.adversarial.maps import Maps, check_options, joined, scores

__all__ = ["DiscriminatorLoss", "discriminator_loss", "discriminator_terms"]


def discriminator_loss(
    real: Maps,
    fake: Maps,
    *,
    weight: Maps | None = None,
    kind: Kind = "lsgan",
    combine: Combine = "sum",
    reduction: Reduction = "mean",
) -> Tensor:
    """The discriminator's loss, of scores of real data and of generated data, detached.

        mean of (1 - r)**2 + mean of f**2, summed over discriminators

    Score ``generated.detach()``: a loss of scores cannot keep the gradient from the generator, and
    detached scores would have none for the discriminator either.

    Args:
        real: scores of real data, of any shape; or a list of them, one of each discriminator; or
            of each a list of features, of which the last is the score.
        fake: scores of generated data, likewise, of as many discriminators and of the same shapes.
        weight: of each score, likewise, such as 0 where a signal is padded; multiplies and is
            counted, on both sides, and 0 removes.
        kind: ``"lsgan"``, ``"hinge"``, ``"bce"`` (scores are logits) or ``"wasserstein"``.
        combine: what is made of several discriminators: ``"sum"``, or ``"mean"``.
        reduction: over the scores of each: ``"mean"``, ``"sum"``, or a callable ``(total, count, *,
            term)``, called for the terms ``"real"`` and ``"fake"``, of a list ``"real_0"``,
            ``"fake_0"``, ``"real_1"``, ...

    Returns:
        The loss, a scalar; float32 for half types. :func:`discriminator_terms` has its terms.

    Raises:
        ValueError: lists of two lengths, scores of two shapes, an unknown option.

    The gradient goes to ``real`` and ``fake``. In training it settles where the two sides balance,
    for ``"lsgan"`` near 0.5 a discriminator; it does not fall like an error.

    Use when:
        A generator's outputs should be as sharp as data: vocoders, codecs, images.

    Elsewhere:
        HiFi-GAN, DAC, EnCodec, MONAI ``PatchAdversarialLoss``.

    Differs from:
        HiFi-GAN and its heirs: lists of two lengths are refused; ``zip`` drops the rest there.

    Example:
        >>> import torch
        >>> r, f = torch.tensor([0.8]), torch.tensor([0.3])
        >>> round(discriminator_loss(r, f).item(), 4)
        0.13
        >>> round(discriminator_loss([r, r], [f, f], kind="hinge").item(), 4)
        3.0
    """
    terms = discriminator_terms(
        real, fake, weight=weight, kind=kind, combine=combine, reduction=reduction
    )
    return terms["real"] + terms["fake"]


def discriminator_terms(
    real: Maps,
    fake: Maps,
    *,
    weight: Maps | None = None,
    kind: Kind = "lsgan",
    combine: Combine = "sum",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The terms of :func:`discriminator_loss`, each over all discriminators.

        {"real": mean of (1 - r)**2, "fake": mean of f**2}

    Args are those of :func:`discriminator_loss`.

    Returns:
        ``{"real": ..., "fake": ...}``.

    Use when:
        The two sides are to be logged: a discriminator that has won has both near 0.

    Example:
        >>> import torch
        >>> terms = discriminator_terms(torch.tensor([0.8]), torch.tensor([0.3]))
        >>> {name: round(term.item(), 4) for name, term in terms.items()}
        {'real': 0.04, 'fake': 0.09}
    """
    check_kind(kind)
    check_options(combine, reduction)
    maps = scores(weight, real=real, fake=fake)
    terms = {
        side: [score(m.sides[i], m.weight, kind, side, side + m.suffix, reduction) for m in maps]
        for i, side in enumerate(("real", "fake"))
    }
    wide = terms["real"][0].dtype
    return {side: joined([term.to(wide) for term in each], combine) for side, each in terms.items()}


class DiscriminatorLoss(LossModule):
    """Module form of :func:`discriminator_loss`; same options, same defaults."""

    terms_function = staticmethod(discriminator_terms)

    def __init__(
        self, kind: Kind = "lsgan", combine: Combine = "sum", reduction: Reduction = "mean"
    ) -> None:
        check_kind(kind)
        check_options(combine, reduction)
        super().__init__(kind=kind, combine=combine, reduction=reduction)

    def forward(self, real: Maps, fake: Maps, *, weight: Maps | None = None) -> Tensor:
        """The loss of scores of ``real`` and of generated data."""
        return discriminator_loss(real, fake, weight=weight, **self.options())
