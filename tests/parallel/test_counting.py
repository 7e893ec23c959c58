"""Counting beforehand: what a loss is asked, and what it keeps of it."""

import math

import pytest
import torch
from torch import nn

from aptt.compose import CombinedLoss, GradShare
from aptt.loss import CrossEntropyLoss
from aptt.parallel import (
    GlobalMean,
    WorldSum,
    count_ahead,
    count_mean,
    counts_of,
    normalized,
    vocab_parallel_cross_entropy,
)


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


@pytest.mark.parametrize(
    ("weight", "error", "said"),
    [
        (torch.ones(3, requires_grad=True), ValueError, "weight: requires a gradient"),
        ([1.0, 1.0, 1.0], TypeError, "weight: got list, wanted a tensor"),
    ],
)
def test_weights_of_a_spread_vocabulary_are_a_tensor_that_nothing_trains(weight, error, said):
    with pytest.raises(error, match=said):
        vocab_parallel_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), weight=weight)


@pytest.mark.parametrize(
    ("made", "error", "said"),
    [
        (lambda: count_mean(torch.tensor([2.0, 4.0])), ValueError, r"num_items: got shape \(2,\)"),
        (lambda: count_mean([2, 4]), TypeError, r"num_items: got \[2, 4\]"),
        (lambda: count_mean("2"), TypeError, "num_items: got '2'"),
        (lambda: count_mean(-2), ValueError, "num_items: got -2"),
        (lambda: count_mean(torch.tensor(-2)), ValueError, "num_items: got -2"),
        (lambda: count_mean({"a": float("nan")}), ValueError, "num_items of 'a': got nan"),
        (lambda: count_mean(2, grad_average=0), ValueError, "grad_average: got 0"),
        (lambda: GlobalMean(grad_average=-1), ValueError, "grad_average: got -1"),
        (lambda: WorldSum(grad_average=float("nan")), ValueError, "grad_average: got nan"),
        (lambda: count_ahead([torch.ones(2)], lambda t: t > 0), ValueError, r"count: got shape"),
        (lambda: count_ahead([torch.ones(1)], lambda t: t), ValueError, r"count: got shape"),
        (lambda: count_ahead([1], lambda t: {"a": -t}), ValueError, "count of 'a': got -1"),
        (lambda: counts_of(CrossEntropyLoss())(torch.ones(2, 3)), TypeError, "batch: got Tensor"),
        (lambda: normalized(CrossEntropyLoss(), "avg").__enter__(), ValueError, "reduction"),
    ],
)
def test_what_is_no_count_is_said_by_name(made, error, said):
    with pytest.raises(error, match=said):
        made()


@pytest.mark.parametrize("averages", [True, False])
def test_the_count_of_a_trainer_with_several_gpus_gives_the_mean(averages):
    """As transformers' ``Trainer`` drives GPUs by DataParallel: two of them, three micro-batches.

    It counts all micro-batches and hands over that number once for each GPU. By default the loss
    is multiplied by their number afterwards; without ``average_tokens_across_devices`` the counts
    are divided by it instead. The outputs are gathered before the loss.
    """
    gpus, micro = 2, 3
    logits = torch.linspace(-2, 2, micro * 8 * 5).view(micro, 8, 5).double().requires_grad_()
    target = torch.arange(micro * 8).remainder(5).view(micro, 8)
    target[1, 2:] = -100
    valid = target.ne(-100).sum()
    items = valid if averages else valid // gpus
    items = items.unsqueeze(0).expand(gpus, -1) / 1
    assert items.shape == (gpus, 1)
    loss_fn = CrossEntropyLoss(reduction=count_mean(items))
    losses = [
        loss_fn(x, y) * (gpus if averages else 1) for x, y in zip(logits, target, strict=True)
    ]
    (got,) = torch.autograd.grad(sum(losses), logits)
    whole = CrossEntropyLoss()(logits.flatten(0, 1), target.flatten())
    (want,) = torch.autograd.grad(whole, logits)
    torch.testing.assert_close(sum(losses), whole)
    torch.testing.assert_close(got, want)


def test_counts_of_several_gpus_in_a_mapping_and_as_a_call():
    shared = count_mean({"cross_entropy": torch.tensor([[3.0], [3.0]])})
    loss = CrossEntropyLoss(reduction=shared)(torch.zeros(2, 4), torch.tensor([1, 2]))
    assert loss.item() == pytest.approx(2 * math.log(4) / 6)
    assert repr(count_mean(torch.tensor([[3.0], [3.0]]))) == "count_mean(6.0)"
    with pytest.raises(ValueError, match=r"num_items: got shape \(1, 2\), wanted one number"):
        count_mean(torch.ones(1, 2))


def test_a_loss_that_counts_twice_is_said():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.loss = CrossEntropyLoss()

        def forward(self, x, y):
            return self.loss(x, y) + self.loss(x[1:], y[1:])

    with pytest.raises(ValueError, match="term 'cross_entropy': counted twice"):
        counts_of(Twice())([torch.zeros(3, 4), torch.tensor([0, 1, 2])])
