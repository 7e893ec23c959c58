"""What an accelerator computes, on the CPU: one block, held to the promises about numbers.

The pretend accelerator is asked at inputs as they come; here are the extremes.
"""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from aptt.audit import PROMISES, SPECS
from aptt.audit.figures import Broken
from aptt.audit.promises.numbers import halves_match
from aptt.audit.ways import WAYS, in_one

NUMBERS = (
    "finite_at_extremes",
    "ignoring_is_removing",
    "half_matches_truth",
    "near_perfect_keeps_digits",
    "respects_upstream_gradient",
)
ONE = "in one block"


def _asked(promise):
    """The promise in one block; that of half types, which goes its own ways, in this one alone."""
    if promise.name != "half_matches_truth":
        return replace(promise, ways=(ONE,))
    alone = {ONE: lambda: WAYS[ONE]()}
    return replace(promise, ways=(ONE,), check=partial(halves_match, ways=alone))


HELD = [
    pytest.param(_asked(p), spec, id=f"{p.name}-{spec.name}")
    for p in PROMISES.values()
    if p.name in NUMBERS
    for spec in SPECS.values()
    if spec.walks and p.exemption(spec) is None
]


@pytest.mark.parametrize(("promise", "spec"), HELD)
def test_one_block_keeps_the_promises_about_numbers(promise, spec, monkeypatch):
    walks = []

    @contextmanager
    def watched():
        with in_one() as walked:
            try:
                yield walked
            finally:
                walks.extend(walked.walks)

    monkeypatch.setitem(WAYS, ONE, watched)
    if (promise.name, spec.name) == ("finite_at_extremes", "distillation_loss"):
        with pytest.raises(Broken, match="teacher and targets"):  # a masked class costs 1e4 flat
            promise(spec, "cpu")
    else:
        promise(spec, "cpu")
    assert all(len(blocks) == 1 for blocks in walks)
    trial = spec.trials()[0]
    with in_one() as walked:
        trial.loss(trial.inputs())
    assert bool(walks) == bool(walked.walks)  # what has a walk of its own has none of these
