"""Evaluate a formula of rows on the logits of a linear head, which never exist at once.

    z = scale * (hidden @ weight.T + bias),    loss = formula(z, *sides) of each row

Two ways to cut, both with the results that the whole matrix would give:

* By tokens (:mod:`aptt.core.linear.by_tokens`). The products with the weight and with the hidden
  states are taken while a chunk's gradient is at hand: three matrix products, as many as with all
  the logits. The gradients stay in float32 and un-normalised until the true upstream gradient
  arrives, then they are scaled and rounded once. They are given away with the first backward; a
  second one, or an upstream gradient for each row, multiplies the logits out once more.
* By vocabulary (:mod:`aptt.core.linear.by_vocabulary`), where products are bfloat16 and rounded on
  the way out: four products. For cross-entropy of class indices; other formulas, and float16, take
  float32 products by tokens.

Where a device returns products of half types in float32 (:mod:`aptt.core.linear.products`), half
types are cut by tokens too, with three products in their own precision.

Under ``torch.compile`` the walks are one opaque operator, and the chunks stay. What asks for more
than a gradient of hidden states, weight and bias (a second derivative, ``torch.func``, learned
class weights, a head that is a callable) is left to autograd on checkpointed chunks: the logits of
one chunk at a time, except inside ``torch.func``, which knows no checkpoints.
"""

from aptt.core.linear.checkpointed import Projection, projection
from aptt.core.linear.evaluate import evaluate_linear, evaluate_projected
from aptt.core.linear.head import Head
from aptt.core.linear.run import HeadFormula

__all__ = [
    "Head",
    "HeadFormula",
    "Projection",
    "evaluate_linear",
    "evaluate_projected",
    "projection",
]
