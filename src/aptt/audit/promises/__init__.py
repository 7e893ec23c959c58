"""The promises of the contract, one function each, in the contract's order.

Each takes a row (:class:`aptt.audit.Spec`) and raises ``AssertionError``, with figures, if the
loss does not keep it.
"""

from aptt.audit.promises.gradient import (
    double_backward,
    frozen_factors_are_constants,
    gradient_is_right,
    gradient_reaches_all_who_ask,
    hopeless_keeps_a_gradient,
    respects_upstream_gradient,
    streamed_equals_plain,
)
from aptt.audit.promises.interface import (
    bad_input_is_refused,
    copies,
    every_option_is_exercised,
    follows_to_dtype_and_device,
    leaves_inputs_alone,
    twin_agrees,
)
from aptt.audit.promises.numbers import (
    finite_at_extremes,
    half_matches_truth,
    near_perfect_keeps_digits,
    perfect_is_minimal,
    scale_invariance,
)
from aptt.audit.promises.reduction import (
    counts_what_it_says,
    ignoring_is_removing,
    none_sums_to_sum,
    nothing_left_is_zero,
    samples_stand_alone,
    size_changes_nothing,
    split_invariance,
)
from aptt.audit.promises.running import (
    asks_little_of_the_device,
    autocast,
    checkpointed,
    deterministic,
    meta_device,
    noncontiguous,
    traces_without_breaks,
    transforms,
)

__all__ = [
    "asks_little_of_the_device",
    "autocast",
    "bad_input_is_refused",
    "checkpointed",
    "copies",
    "counts_what_it_says",
    "deterministic",
    "double_backward",
    "every_option_is_exercised",
    "finite_at_extremes",
    "follows_to_dtype_and_device",
    "frozen_factors_are_constants",
    "gradient_is_right",
    "gradient_reaches_all_who_ask",
    "half_matches_truth",
    "hopeless_keeps_a_gradient",
    "ignoring_is_removing",
    "leaves_inputs_alone",
    "meta_device",
    "near_perfect_keeps_digits",
    "noncontiguous",
    "none_sums_to_sum",
    "nothing_left_is_zero",
    "perfect_is_minimal",
    "respects_upstream_gradient",
    "samples_stand_alone",
    "scale_invariance",
    "size_changes_nothing",
    "split_invariance",
    "streamed_equals_plain",
    "traces_without_breaks",
    "transforms",
    "twin_agrees",
]
