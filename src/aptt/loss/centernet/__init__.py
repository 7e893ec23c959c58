"""CenterNet: boxes as the peaks of a heat map, with a size and an offset at each.

    hm    penalty-reduced focal loss of the heat maps / number of peaks
    wh    sum of |size - target| over objects / count           sizes in cells of the map
    reg   sum of |offset - target| over objects / count         offset: centre - its cell
    loss  = hm_weight * hm + wh_weight * wh + reg_weight * reg

Axes: maps ``hm (N, C, H, W)``, ``wh`` and ``reg (N, 2, H, W)``; per object ``wh`` and ``reg (N, M,
2)``, ``ind`` and ``mask (N, M)``.
From: Zhou et al., "Objects as Points", 2019, arXiv:1904.07850, eq. 1 to 4.
"""

from aptt.loss.centernet.decode import centernet_decode
from aptt.loss.centernet.loss import CenterNetLoss, centernet_loss
from aptt.loss.centernet.targets import centernet_targets
from aptt.loss.centernet.terms import centernet_terms

__all__ = [
    "CenterNetLoss",
    "centernet_decode",
    "centernet_loss",
    "centernet_targets",
    "centernet_terms",
]
