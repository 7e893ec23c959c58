"""Statistics of the rows of a matrix of pairs, which never exists at once.

    s[i, j]  = scale * x[i] . y[j] + bias

Which pairs a row counts, and as what, is said by a few numbers of rows and of columns
(:class:`Sides`) and worked out inside a chunk of rows: memory grows with N and with M, and not with
their product. Forward keeps the statistics, a few numbers a row; backward multiplies the chunk out
again: four products in all, in float32 at least, under autocast too.

Under ``torch.compile`` the walk is one opaque operator, and the chunks stay. What asks for more
than a gradient of x, y, scale and bias is left to autograd on checkpointed chunks, inside
``torch.func`` on the whole matrix.
"""

from aptt.core.pairs.formulas import NEGATIVES, POSITIVES, QUESTIONS, PairFormula
from aptt.core.pairs.sides import Sides, marks
from aptt.core.pairs.walk import evaluate_pairs

__all__ = ["NEGATIVES", "POSITIVES", "QUESTIONS", "PairFormula", "Sides", "evaluate_pairs", "marks"]
