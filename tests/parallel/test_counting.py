"""Counting beforehand: what a loss is asked, and what it keeps of it."""

import pytest
import torch
from torch import nn

from aptt.compose import CombinedLoss, GradShare
from aptt.loss import CrossEntropyLoss
from aptt.parallel import count_ahead, counts_of, vocab_parallel_cross_entropy


def test_counting_leaves_no_trace_in_the_account_of_a_sum():
    criterion = CombinedLoss({"ce": CrossEntropyLoss()}, inputs={"ce": ("x", "y")})
    batch = {"x": torch.randn(4, 5, requires_grad=True), "y": torch.tensor([1, 2, -100, 3])}
    assert count_ahead([batch], counts_of(criterion)).num_items == {"cross_entropy": 3.0}
    loss = criterion(**batch)
    log = criterion.log()
    assert log["ce"] == pytest.approx(loss.item())
    assert log["ce/zeros"] == 0
    assert criterion.report()["ce"]["calls"] == 1


def test_counting_gives_each_module_its_mode_back():
    criterion = CombinedLoss(
        {"ce": CrossEntropyLoss(), "other": nn.L1Loss().eval()},
        inputs={"ce": ("x", "y"), "other": ("x", "z")},
        balance=GradShare(),
    )
    before = {name: m.training for name, m in criterion.named_modules()}
    x = torch.zeros(2, 3)
    counts_of(criterion)({"x": x, "y": torch.tensor([0, 1]), "z": x})
    assert {name: m.training for name, m in criterion.named_modules()} == before


def test_targets_of_a_spread_vocabulary_are_indices():
    logits = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"target: got torch\.bool"):
        vocab_parallel_cross_entropy(logits, torch.tensor([True, False]))
