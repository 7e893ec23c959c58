"""The generator's loss: what is generated taken for real.

    lsgan           mean (1 - f)**2
    hinge           mean -f, or mean max(0, 1 - f)
    bce             mean log(1 + exp(-f))
    wasserstein     mean -f

Axes: scores of any shape; in lists, the discriminators, and in lists of those, the features of
each, of which the last is the score.
From: least squares, Mao et al., ICCV 2017, arXiv:1611.04076; hinge, Lim and Ye 2017,
arXiv:1705.02894, and Miyato et al., ICLR 2018, arXiv:1802.05957; bce, Goodfellow et al. 2014,
arXiv:1406.2661; wasserstein, Arjovsky et al. 2017, arXiv:1701.07875.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import check_flags
from aptt.core.module import LossModule
from aptt.core.reduction import Combine, Reduction
from aptt.loss.adversarial.kinds import Kind, check_kind, score
from aptt.loss.adversarial.maps import Maps, check_options, joined, scores

__all__ = ["GeneratorLoss", "generator_loss", "generator_terms"]


def generator_loss(
    fake: Maps,
    *,
    weight: Maps | None = None,
    kind: Kind = "lsgan",
    bounded: bool = False,
    combine: Combine = "sum",
    reduction: Reduction = "mean",
) -> Tensor:
    """The generator's adversarial loss, of the discriminators' scores of what it generated.

        mean of (1 - f)**2, summed over discriminators

    Args:
        fake: scores of generated data, of any shape; or a list of them, one of each discriminator;
            or of each a list of features, of which the last is the score.
        weight: of each score, likewise, such as 0 where a signal is padded; multiplies and is
            counted, and 0 removes.
        kind: ``"lsgan"``, ``"hinge"``, ``"bce"`` (scores are logits, and the loss does not
            saturate) or ``"wasserstein"``.
        bounded: ``max(0, 1 - f)``, as codecs have it, for ``-f``; of ``"hinge"`` alone.
        combine: what is made of several discriminators: ``"sum"``, or ``"mean"``.
        reduction: over the scores of each: ``"mean"``, ``"sum"``, or a callable ``(total, count, *,
            term)``, called for the term ``"fake"``, of a list ``"fake_0"``, ``"fake_1"``, ...

    Returns:
        The loss, a scalar; float32 for half types.

    Raises:
        ValueError: an unknown option, ``bounded`` beside another kind.
        TypeError: no discriminator.

    The gradient goes to ``fake``, and through the discriminators to what was generated; their own
    gradients are to be cleared before their step.

    Use when:
        Beside a loss that knows the target: mel 45, features 2 in HiFi-GAN.

    Elsewhere:
        HiFi-GAN ``generator_loss``, EnCodec, SoundStream and Vocos (``"hinge"``, bounded).

    Differs from:
        MONAI ``PatchAdversarialLoss``: scores, not probabilities; nothing is squashed on the way.

    Example:
        >>> import torch
        >>> f = torch.tensor([0.3])
        >>> [round(generator_loss(f, kind=kind).item(), 4) for kind in ("lsgan", "hinge")]
        [0.49, -0.3]
    """
    terms = generator_terms(
        fake, weight=weight, kind=kind, bounded=bounded, combine=combine, reduction=reduction
    )
    return terms["fake"]


def generator_terms(
    fake: Maps,
    *,
    weight: Maps | None = None,
    kind: Kind = "lsgan",
    bounded: bool = False,
    combine: Combine = "sum",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The one term of :func:`generator_loss`, over all discriminators, by its name.

        {"fake": mean of (1 - f)**2}

    Args are those of :func:`generator_loss`.

    Returns:
        ``{"fake": ...}``.

    Use when:
        Losses are logged by the names of their terms.

    Example:
        >>> import torch
        >>> {name: round(t.item(), 4) for name, t in generator_terms(torch.tensor([0.3])).items()}
        {'fake': 0.49}
    """
    check_kind(kind)
    check_options(combine, reduction)
    _check_bounded(kind, bounded)
    side = "generator" if kind == "hinge" and not bounded else "real"
    each = [
        score(m.sides[0], m.weight, kind, side, "fake" + m.suffix, reduction)
        for m in scores(weight, fake=fake)
    ]
    wide = each[0].dtype
    return {"fake": joined([term.to(wide) for term in each], combine)}


def _check_bounded(kind: Kind, bounded: bool) -> None:
    check_flags(bounded=bounded)
    if bounded and kind != "hinge":
        raise ValueError(f"bounded: got True beside kind={kind!r}, wanted kind='hinge', or False")


class GeneratorLoss(LossModule):
    """Module form of :func:`generator_loss`; same options, same defaults."""

    terms_function = staticmethod(generator_terms)

    def __init__(
        self,
        kind: Kind = "lsgan",
        bounded: bool = False,
        combine: Combine = "sum",
        reduction: Reduction = "mean",
    ) -> None:
        check_kind(kind)
        check_options(combine, reduction)
        _check_bounded(kind, bounded)
        super().__init__(kind=kind, bounded=bounded, combine=combine, reduction=reduction)

    def forward(self, fake: Maps, *, weight: Maps | None = None) -> Tensor:
        """The loss of scores of generated data."""
        return generator_loss(fake, weight=weight, **self.options())
