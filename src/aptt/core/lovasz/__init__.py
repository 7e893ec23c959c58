"""The Lovasz extension of the Jaccard loss: errors in falling order, each at what it adds.

    loss = sum over k of e[k] * (J[k] - J[k - 1])      e falling, J[k] = 1 - I[k] / U[k]

where J[k] is the Jaccard loss of a prediction that errs in the first k pixels. The steps are formed
without the difference, exact for any number of pixels:

    J[k] - J[k - 1] = w / U[k]   (foreground)      w I[k] / (U[k - 1] U[k])   (background)

The order does not change where the loss has a gradient, so the steps are constants there: they are
found first, one for each logit, and what is left is a sum of errors at fixed prices. Errors are not
negative, and ordered by their bits: integers sort faster. In blocks, on a CPU, that is done class
by class; elsewhere of all classes at once.

Axes: logits ``(N, C, S)``; target ``(N, S)`` class indices of a softmax, or ``(N, C, S)`` of 0 and
1; weights ``(N, S)``, ``(N, 1, S)`` or ``(N, C, S)``, where 0 removes the pixel. Results ``(C,)``,
``(N, C)``. From: Berman et al. 2018, arXiv:1705.08790, eq. 8 and 9, algorithm 1.
"""

from aptt.core.lovasz.sums import lovasz_sums

__all__ = ["lovasz_sums"]
