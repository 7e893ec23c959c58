"""Feature matching: a discriminator's features of generated data near those of real data.

    features        sum over discriminators and layers of mean |f - r|
    relative        sum over discriminators and layers of sum |f - r| / sum |r|

Axes: scores of any shape; in lists, the discriminators, and in lists of those, the features of
each, of which the last is the score.
From: Larsen et al. 2016, arXiv:1512.09300, as in HiFi-GAN, Kong et al. 2020, arXiv:2010.05646;
relative as in EnCodec, Défossez et al. 2022, arXiv:2210.13438.
"""

from __future__ import annotations

from torch import Tensor

from aptt.core.checks import check_flags
from aptt.core.module import LossModule
from aptt.core.numbers import ABSOLUTE
from aptt.core.precision import wide
from aptt.core.reduction import Combine, Count, Reduction, count_of, reduce
from aptt.loss.adversarial.maps import Map, Maps, check_options, features, joined

__all__ = ["FeatureMatchingLoss", "feature_matching_loss", "feature_matching_terms"]


def feature_matching_loss(
    fake: Maps,
    real: Maps,
    *,
    weight: Maps | None = None,
    relative: bool = False,
    last: bool = True,
    detach_real: bool = True,
    combine: Combine = "sum",
    reduction: Reduction = "mean",
) -> Tensor:
    """Feature matching: a discriminator's features of generated data, near those of real data.

        mean |f - r|, summed over discriminators and layers

    Args:
        fake: features of generated data, of any shape; or a list of them, the layers of one
            discriminator; or of several a list each.
        real: features of real data, likewise, of as many discriminators and layers, of the same
            shapes.
        weight: of each feature, likewise, such as 0 where a signal is padded; multiplies and is
            counted, and 0 removes.
        relative: divide the sum of each layer by ``sum |r|`` rather than by their number, so that
            no layer counts more for its larger numbers; a layer that is 0 counts for nothing.
        last: whether the last layer of each discriminator counts, which is its score.
        detach_real: whether the real features are constants: else their graph is kept, and the
            loss asks the discriminator too to tell nothing apart.
        combine: what is made of several layers: ``"sum"``, or ``"mean"``.
        reduction: over the features of a layer: ``"mean"``, ``"sum"``, or a callable
            ``(total, count, *, term)``, called for ``"features"``, of a list ``"features_0_0"``
            (discriminator, layer), ``"features_0_1"``, ...

    Returns:
        The loss, at least 0, a scalar; float32 for half types.

    Raises:
        ValueError: lists of two lengths, features of two shapes, nothing left without the last
            layer, an unknown option.

    The gradient goes to ``fake``. The loss may well rise in training, as discriminators learn to
    see more.

    Use when:
        Beside an adversarial loss, to steady it: with a weight of 2 in HiFi-GAN and DAC.

    Elsewhere:
        HiFi-GAN ``feature_loss``, DAC, EnCodec (``relative=True``), pix2pixHD.

    Differs from:
        HiFi-GAN: doubles it inside, and keeps the graph of the real features. DAC: ``last=False``.
            All: ``zip`` drops the layers that one side lacks, which is refused here.

    Example:
        >>> import torch
        >>> real = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
        >>> fake = [torch.tensor([2.0, 2.0]), torch.tensor([1.0])]
        >>> feature_matching_loss(fake, real).item()
        2.5
    """
    terms = feature_matching_terms(
        fake,
        real,
        weight=weight,
        relative=relative,
        last=last,
        detach_real=detach_real,
        combine=combine,
        reduction=reduction,
    )
    return terms["features"]


def feature_matching_terms(
    fake: Maps,
    real: Maps,
    *,
    weight: Maps | None = None,
    relative: bool = False,
    last: bool = True,
    detach_real: bool = True,
    combine: Combine = "sum",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The one term of :func:`feature_matching_loss`, over all layers, by its name.

        {"features": mean |f - r|, summed over discriminators and layers}

    Args are those of :func:`feature_matching_loss`.

    Returns:
        ``{"features": ...}``.

    Use when:
        Losses are logged by the names of their terms.

    Example:
        >>> import torch
        >>> terms = feature_matching_terms(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 2.0]))
        >>> {name: term.item() for name, term in terms.items()}
        {'features': 0.5}
    """
    check_flags(relative=relative, last=last, detach_real=detach_real)
    check_options(combine, reduction)
    each = [
        _distance(m, relative, detach_real, reduction)
        for m in features(weight, last, fake=fake, real=real)
    ]
    return {"features": joined([term.to(each[0].dtype) for term in each], combine)}


def _distance(m: Map, relative: bool, detach_real: bool, reduction: Reduction) -> Tensor:
    (x, t), w = m.sides, m.weight
    t = t.detach() if detach_real else t

    def size() -> Count:
        if not relative:
            return count_of(x, w)
        real = t.to(wide(x.dtype)).abs()
        return (real if w is None else real.masked_fill(w == 0, 0.0) * w).sum()

    return reduce(
        ABSOLUTE, x, t, weight=w, count=size, reduction=reduction, term="features" + m.suffix
    )


class FeatureMatchingLoss(LossModule):
    """Module form of :func:`feature_matching_loss`; same options, same defaults."""

    terms_function = staticmethod(feature_matching_terms)

    def __init__(
        self,
        relative: bool = False,
        last: bool = True,
        detach_real: bool = True,
        combine: Combine = "sum",
        reduction: Reduction = "mean",
    ) -> None:
        check_flags(relative=relative, last=last, detach_real=detach_real)
        check_options(combine, reduction)
        super().__init__(
            relative=relative,
            last=last,
            detach_real=detach_real,
            combine=combine,
            reduction=reduction,
        )

    def forward(self, fake: Maps, real: Maps, *, weight: Maps | None = None) -> Tensor:
        """The loss of features of generated data against those of ``real``."""
        return feature_matching_loss(fake, real, weight=weight, **self.options())
