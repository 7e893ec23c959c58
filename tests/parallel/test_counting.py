"""Counting beforehand: what a loss is asked, and what it keeps of it."""

import math

import pytest
import torch
from torch import nn

from aptt.compose import CombinedLoss, GradShare
from aptt.loss import (
    CrossEntropyLoss,
    DiceCELoss,
    DiceLoss,
    FocalLoss,
    MTPLoss,
    RMSELoss,
    binary_cross_entropy,
    cross_entropy,
    dice_ce_loss,
    dice_loss,
    focal_loss,
    multi_token_loss,
    rmse_loss,
)
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


# ------------------------------------------------------------- one number, and what it counts


def _masks(n=2):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 5, generator=g), torch.randint(3, (n, 5), generator=g)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda r: dice_ce_loss(*_masks(), reduction=r), "'dice' counts ratios"),
        (lambda r: dice_loss(*_masks(), pool="sample", reduction=r), "'dice' counts ratios"),
        (lambda r: rmse_loss(torch.ones(4), torch.zeros(4), reduction=r), "'rmse' counts ratios"),
        (
            lambda r: focal_loss(
                torch.zeros(2, 3), torch.eye(2, 3), normalize="positives", reduction=r
            ),
            "'focal' counts positives",
        ),
    ],
)
@pytest.mark.parametrize("made", [count_mean, lambda n: count_ahead([n], lambda n: n)])
def test_one_number_of_values_is_refused_by_what_counts_otherwise(call, said, made):
    with pytest.raises(ValueError, match=rf"one number of the values that take part, but {said}"):
        call(made(64))


def test_one_number_of_another_kind_is_taken_where_it_is_said():
    x, t = torch.zeros(2, 3), torch.eye(2, 3)
    got = focal_loss(x, t, normalize="positives", reduction=count_mean(4, kind="positives"))
    assert got == pytest.approx(focal_loss(x, t, reduction="sum").item() / 4)
    with pytest.raises(ValueError, match="one number of positives, but 'focal' counts the values"):
        focal_loss(x, t, reduction=count_mean(4, kind="positives"))


def test_one_number_for_heads_that_count_differently_is_refused():
    heads = [torch.zeros(2, 6, 4), torch.zeros(2, 5, 4)]
    target = torch.randint(4, (2, 6), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="'main' and 'depth_1', which count 12 and 10"):
        multi_token_loss(heads, target, normalize="valid", reduction=count_mean(100))
    multi_token_loss(heads, target, normalize="tokens", reduction=count_mean(100))


def test_a_count_that_asks_for_a_gradient_is_read_without_one():
    weight = torch.rand(4, requires_grad=True)
    x, t = torch.zeros(4), torch.ones(4)
    loss = binary_cross_entropy(x, t, weight=weight, reduction=count_mean(4))
    torch.testing.assert_close(loss, weight.sum() * torch.tensor(2.0).log() / 4)


@pytest.mark.parametrize("items", [0, 2, torch.tensor(2)])
def test_a_micro_batch_that_counts_more_than_all_of_them_is_refused(items):
    x, y = torch.zeros(4, 5), torch.tensor([1, 2, -100, 3])
    with pytest.raises(ValueError, match=r"'cross_entropy' counts 3 in this micro-batch alone"):
        cross_entropy(x, y, reduction=count_mean(items))
    assert cross_entropy(x[2:3], y[2:3], reduction=count_mean(items)) == 0


def test_the_same_number_serves_one_micro_batch_after_another():
    shared = count_mean(6)
    x = torch.zeros(4, 5)
    got = [
        cross_entropy(x[: len(y)], torch.tensor(y), reduction=shared)
        for y in ([1, 2, -100, 3], [0, 1, 2])
    ]
    torch.testing.assert_close(sum(got), torch.tensor(5.0).log())


@pytest.mark.parametrize("loss", [DiceLoss(), RMSELoss()])
def test_a_ratio_over_one_of_several_micro_batches_says_that_it_is_not_exact(loss):
    x, y = _masks() if isinstance(loss, DiceLoss) else (torch.ones(4), torch.zeros(4))
    halves = [(x[:1], y[:1]), (x[1:], y[1:])]
    shared = count_ahead(halves, counts_of(loss))
    with normalized(loss, shared), pytest.warns(UserWarning, match="pool='sample' is exact"):
        loss(*halves[0])
    whole = count_ahead([(x, y)], counts_of(loss))
    with normalized(loss, whole):  # one micro-batch is the whole: nothing to say
        got = loss(x, y)
    torch.testing.assert_close(got, loss(x, y))


@pytest.mark.parametrize(
    ("loss", "batches"),
    [
        (DiceCELoss(pool="sample"), [_masks(1), _masks(3)]),
        (FocalLoss(normalize="positives"), [(torch.zeros(2, 3), torch.eye(2, 3))] * 2),
        (
            MTPLoss(normalize="valid"),
            [
                ([torch.zeros(n, 6, 4), torch.zeros(n, 5, 4)], torch.ones(n, 6, dtype=torch.long))
                for n in (1, 2)
            ],
        ),
    ],
    ids=["a compound", "positives", "heads"],
)
def test_counts_of_a_loss_are_those_of_the_whole(loss, batches):
    shared = count_ahead(batches, counts_of(loss))
    with normalized(loss, shared):
        parts = sum(loss(*batch) for batch in batches)
    first, last = batches
    if isinstance(first[0], list):
        heads = [torch.cat(pair) for pair in zip(first[0], last[0], strict=True)]
        whole = (heads, torch.cat((first[1], last[1])))
    else:
        whole = tuple(torch.cat(pair) for pair in zip(first, last, strict=True))
    torch.testing.assert_close(parts, loss(*whole))


def test_a_function_is_asked_what_it_counts():
    assert counts_of(dice_ce_loss)(_masks()) == counts_of(DiceCELoss())(_masks())
    batch = {"logits": torch.zeros(3, 4), "target": torch.tensor([0, -100, 2])}
    assert counts_of(cross_entropy)(batch) == {"cross_entropy": 2.0}


def test_a_function_that_cannot_be_asked_is_refused():
    with pytest.raises(TypeError, match=r"loss: got .*, wanted a loss that takes a reduction"):
        counts_of(lambda logits: logits.sum())


def test_losses_of_others_are_named_where_they_are_not_reached():
    criterion = nn.ModuleDict({"ours": CrossEntropyLoss(), "theirs": nn.L1Loss()})
    said = r"still a mean of its own batch: theirs \(L1Loss\)"
    with pytest.warns(UserWarning, match=said), normalized(criterion, count_mean(3)):
        pass
