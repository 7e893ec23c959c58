"""The same loss however the work is split: over micro-batches, over ranks, over the vocabulary.

A loss is a total over a count. The mean over everything is the sum of all totals over the sum of
all counts, and never a mean of means. The normalizers here are passed to any loss as its
``reduction``; :func:`world_sum` is passed as ``pool`` to those that are a ratio of sums, and
:func:`gather` as ``gather`` to those that compare rows with one another.
"""

from aptt.parallel.counting import count_ahead, counts_of, normalized
from aptt.parallel.distillation import (
    vocab_parallel_distillation_loss,
    vocab_parallel_linear_distillation_loss,
)
from aptt.parallel.dtensors import sharded
from aptt.parallel.gathering import Gather, gather
from aptt.parallel.heads import unsharded
from aptt.parallel.linear import vocab_parallel_linear_cross_entropy
from aptt.parallel.normalizers import CountMean, GlobalMean, count_mean, global_mean
from aptt.parallel.pooling import WorldSum, world_sum
from aptt.parallel.vocabulary import (
    VocabParallelCrossEntropyLoss,
    replicated,
    vocab_parallel_cross_entropy,
)

__all__ = [
    "CountMean",
    "Gather",
    "GlobalMean",
    "VocabParallelCrossEntropyLoss",
    "WorldSum",
    "count_ahead",
    "count_mean",
    "counts_of",
    "gather",
    "global_mean",
    "normalized",
    "replicated",
    "sharded",
    "unsharded",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_distillation_loss",
    "vocab_parallel_linear_cross_entropy",
    "vocab_parallel_linear_distillation_loss",
    "world_sum",
]
