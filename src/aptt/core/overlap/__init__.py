"""How far soft predictions miss their targets: sums for each sample and class, in one walk.

    truth = sum of w * t      false = sum of w * relu(p - t)      missed = sum of w * relu(t - p)

over the pixels, with p a softmax or a sigmoid, t in [0, 1] and pixel weights w. What both have in
common is ``truth - missed = sum of w * min(p, t)``. For hard targets that is the product ``p t``;
for soft ones it is the only one of the two that is largest at p = t (Wang et al. 2023,
arXiv:2302.05666, eq. 10). The errors are summed, and not the overlap, so that nothing is a
difference of two nearly equal numbers however confident the pixels are. One more sum may come from
the same walk:

    common = sum of w * min(p, t)                  exact however little it is, for a logarithm
    cost   = sum of w * (1 - q)**gamma * -log q    q: probability of the right answer

The cost is cross-entropy (of soft targets too) at gamma 0, and focal above. A softmax counts it at
the class that is right, a sigmoid at its own.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices or ``(N, C, S)``; weights ``(N, S)`` or
``(N, C, S)``, where 0 removes the pixel. Sums ``(N, C, 3)``, or ``(N, C, 4)``.
"""

from aptt.core.overlap.sums import overlap_sums

__all__ = ["overlap_sums"]
