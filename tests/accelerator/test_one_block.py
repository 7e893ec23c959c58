"""What an accelerator computes, on the CPU: one block, held to the promises about numbers.

The pretend accelerator is asked at inputs as they come; here are the extremes.
"""

from dataclasses import replace

import pytest

from aptt.audit import PROMISES, SPECS
from aptt.audit.figures import Broken

NUMBERS = (
    "finite_at_extremes",
    "ignoring_is_removing",
    "half_matches_truth",
    "near_perfect_keeps_digits",
    "respects_upstream_gradient",
)
HELD = [
    pytest.param(replace(p, ways=("in one block",)), spec, id=f"{p.name}-{spec.name}")
    for p in PROMISES.values()
    if p.name in NUMBERS
    for spec in SPECS.values()
    if spec.walks and p.exemption(spec) is None
]


@pytest.mark.parametrize(("promise", "spec"), HELD)
def test_one_block_keeps_the_promises_about_numbers(promise, spec):
    if (promise.name, spec.name) == ("finite_at_extremes", "distillation_loss"):
        with pytest.raises(Broken, match="teacher and targets"):  # a masked class costs 1e4 flat
            promise(spec, "cpu")
    else:
        promise(spec, "cpu")
