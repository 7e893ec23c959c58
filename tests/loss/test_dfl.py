"""Distribution focal loss: a slow formula, the last bin, and where the field's versions fail."""

import math
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.loss import DistributionFocalLoss, distribution_focal_loss, expected_value
from aptt.loss.dfl import _FORMULA


def _sides(n=60, bins=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 4, bins, generator=g, dtype=torch.float64)
    target = (bins - 1) * torch.rand(n, 4, generator=g, dtype=torch.float64)
    target[::5] = target[::5].round()
    target[0] = bins - 1
    return logits, target


def _gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss_fn(x).sum().backward()
    return x.grad


def _one_by_one(logits, target):
    """The paper's eq. 6, one target at a time; the last whole number by the bin below it."""
    found = []
    for row, y in zip(logits.flatten(0, -2).tolist(), target.flatten().tolist(), strict=True):
        top = max(row)
        lse = top + math.log(sum(math.exp(x - top) for x in row))
        low = min(math.floor(y), len(row) - 2)
        found.append((low + 1 - y) * (lse - row[low]) + (y - low) * (lse - row[low + 1]))
    return torch.tensor(found, dtype=torch.float64).view(target.shape)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("bins", [2, 3, 16, 17, 33])
def test_by_its_formula_with_any_number_of_bins(bins, way):
    logits, target = _sides(bins=bins)
    with way():
        found = distribution_focal_loss(logits, target, reduction="none")
    torch.testing.assert_close(found, _one_by_one(logits, target), rtol=1e-12, atol=1e-12)


def test_slopes_by_hand_are_those_of_autograd():
    logits, target = _sides()
    logits[1] *= 1000
    up = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    results = []
    for way in (plainly, in_blocks, in_one):
        with way():
            uneven = _gradient(
                lambda x: distribution_focal_loss(x, target, reduction="none") * up, logits
            )
            mean = _gradient(
                lambda x: -0.7 * distribution_focal_loss(x, target, weight=up.abs()), logits
            )
        results.append((uneven, mean))
    for got in results[1:]:
        torch.testing.assert_close(got, results[0], rtol=1e-10, atol=1e-14)


def test_the_last_bin_is_exact():
    # mmdetection: index error; ultralytics: held 0.01 below it
    logits = torch.tensor([[0.5, -1.0, 2.0]])
    found = distribution_focal_loss(logits, torch.tensor([2.0]))
    torch.testing.assert_close(found, -logits.log_softmax(1)[0, 2])


def test_the_least_value_is_the_entropy_of_the_two_bins():
    shares = torch.tensor([[0, 0, 0, 0.8, 0.2]]).log()
    found = distribution_focal_loss(shares.clamp(min=-1e4), torch.tensor([3.2]))
    assert found.item() == pytest.approx(0.5004, abs=5e-5)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize(("y", "want"), [(0.0, math.log(3)), (0.5, math.inf), (1.0, math.inf)])
def test_beside_a_masked_bin_nothing_is_nan(y, want, way):
    """log p is -inf there: no share of it costs nothing, any share costs infinitely much."""
    logits = torch.tensor([[0.0, -math.inf, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([y], dtype=torch.float64, requires_grad=way is plainly)
    with way():
        loss = distribution_focal_loss(logits, target, reduction="sum")
        loss.backward()
    assert loss.item() == pytest.approx(want)
    shares = torch.tensor([[1 - y, y, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - shares)
    assert target.grad is None or not target.grad.isnan()


@pytest.mark.parametrize("wrong", [-0.5, -1e-6, 6.000001, 6.5, math.nan, math.inf])
def test_a_target_out_of_range_is_refused(wrong):
    # mmdetection: -0.5 is a negative weight, 6.5 an index error or a device assert
    logits, target = _sides()
    target[3, 2] = wrong
    with pytest.raises(ValueError, match=r"target: got .*, wanted numbers from 0 to 6"):
        distribution_focal_loss(logits, target)
    weight = torch.ones_like(target)
    weight[3, 2] = 0
    assert distribution_focal_loss(logits, target, weight=weight).isfinite()


def test_clamping_is_asked_for_and_leaves_the_target_alone():
    # ultralytics, and many copies of it, clamp the caller's target in place
    logits, target = _sides()
    wide = 3 * target - 4
    before = wide.clone()
    found = distribution_focal_loss(logits, wide, out_of_range="clamp")
    assert torch.equal(wide, before)
    torch.testing.assert_close(found, _one_by_one(logits, wide.clamp(0, 6)).mean())


def test_what_the_mean_counts():
    logits, target = _sides()
    weight = torch.linspace(0, 2, 60, dtype=torch.float64).unsqueeze(1).expand(60, 4)
    total = (_one_by_one(logits, target) * weight).sum()
    found = distribution_focal_loss(logits, target, weight=weight)
    torch.testing.assert_close(found, total / weight.sum())
    found = distribution_focal_loss(logits, target, weight=weight, normalize="positives")
    torch.testing.assert_close(found, total / (59 * 4))


def test_no_sides_are_a_zero_on_the_graph():
    x = torch.zeros(0, 4, 16, requires_grad=True)
    for normalize in ("elements", "positives"):
        loss = DistributionFocalLoss(normalize=normalize)(x, torch.zeros(0, 4))
        loss.backward()
        assert loss == 0
    assert x.grad.shape == (0, 4, 16)


def test_what_was_encoded_is_decoded():
    target = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 15
    bins = torch.arange(16)
    shares = (1 - (target.unsqueeze(-1) - bins).abs()).clamp(min=0)
    torch.testing.assert_close(expected_value(shares.log()), target)


def test_the_decoded_value_learns_and_keeps_its_precision():
    logits, _ = _sides()
    p = logits.softmax(-1)
    torch.testing.assert_close(expected_value(logits), p @ torch.arange(7, dtype=torch.float64))
    low = expected_value(logits.bfloat16())
    assert low.dtype == torch.float32
    assert torch.autograd.gradcheck(expected_value, logits[:2].clone().requires_grad_())
    with pytest.raises(ValueError, match="logits"):
        expected_value(torch.zeros(3, 0))


def test_descent_finds_the_distance():
    target = torch.tensor([[0.0, 2.25, 5.5, 6.0]], dtype=torch.float64)
    logits = torch.zeros(1, 4, 7, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        (g,) = torch.autograd.grad(distribution_focal_loss(logits, target, reduction="sum"), logits)
        logits = (logits - 2 * g).detach().requires_grad_()
    torch.testing.assert_close(expected_value(logits), target, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("shapes", "options", "words"),
    [
        (((5, 4, 16), (5, 4, 1)), {}, "target"),
        (((5, 4, 0), (5, 4)), {}, "no bin"),
        (((5, 64), (5, 4)), {}, "target"),
        (((5, 4, 16), (5, 4)), {"out_of_range": "drop"}, "out_of_range.*'drop'"),
        (((5, 4, 16), (5, 4)), {"weight": torch.ones(5)}, "weight"),
    ],
)
def test_wrong_calls_are_told_apart(shapes, options, words):
    logits, target = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=words):
        distribution_focal_loss(logits, target, **options)


def test_a_complex_target_is_refused():
    with pytest.raises(TypeError, match=r"target: got torch\.complex64"):
        distribution_focal_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize("bins", [2, 3, 16])
def test_the_step_is_autograd_of_the_definition(bins, same_as_autograd):
    logits, target = _sides(bins=bins)
    logits[1] *= 1000
    same_as_autograd(_FORMULA, logits.flatten(0, 1), target.flatten())


@pytest.mark.parametrize("bins", [2, 3, 16])
@pytest.mark.parametrize("n", [1, 17])
def test_it_compiles_to_one_graph(n, bins, same_when_compiled):
    logits, target = _sides(17, bins)
    logits, target = logits[:n], target[:n]
    weight = torch.linspace(0, 2, 4, dtype=torch.float64).expand(n, 4)
    same_when_compiled(distribution_focal_loss, logits, target)
    same_when_compiled(distribution_focal_loss, logits, target, weight=weight, reduction="none")
    same_when_compiled(
        distribution_focal_loss, logits, target + 3, weight=weight, out_of_range="clamp"
    )


def _held(loss_fn, x):
    """Bytes that are held between forward and backward, besides what the caller holds."""
    held = {}

    def pack(t):
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = loss_fn(x)
    del loss
    held.pop(x.untyped_storage().data_ptr(), None)
    return sum(held.values())


def test_at_most_one_prediction_is_held_and_none_by_a_checkpoint():
    logits, target = _sides(1000, 16)
    x = logits.float().requires_grad_()
    target = target.float()
    size = x.numel() * x.element_size()

    def loss_fn(x):
        return distribution_focal_loss(x, target)

    assert size <= _held(loss_fn, x) <= size + 2 * target.nbytes
    again = partial(checkpoint, loss_fn, use_reentrant=False)
    assert _held(again, x) <= 2 * target.nbytes
    assert torch.equal(_gradient(again, x.detach()), _gradient(loss_fn, x.detach()))


def test_bins_of_any_size_share_a_number_between_the_two_around_it():
    values, logits = [-1.0, 0.0, 0.5, 3.0], torch.tensor([[0.3, -1.0, 2.0, 0.7]]).double()
    nll = -logits.log_softmax(-1)[0]
    for y, low, share in ((0.125, 1, 0.25), (0.5, 2, 0.0), (1.75, 2, 0.5), (3.0, 2, 1.0)):
        found = distribution_focal_loss(logits, [y], values=values)
        torch.testing.assert_close(found, (1 - share) * nll[low] + share * nll[low + 1])
    want = (logits.softmax(-1) * torch.tensor(values)).sum(-1)
    torch.testing.assert_close(expected_value(logits, values=values), want)
    beyond = distribution_focal_loss(logits, [9.0], values=values, out_of_range="clamp")
    torch.testing.assert_close(beyond, nll[3])
    whole = torch.arange(4.0)
    y = torch.tensor([1.3]).double()
    same = distribution_focal_loss(logits, y, values=whole)
    torch.testing.assert_close(same, distribution_focal_loss(logits, y))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.0, 1.0], r"values: got shape \(2,\), wanted \(4,\)"),
        ([0.0, 2.0, 1.0, 3.0], "values: got .*, wanted finite numbers that increase"),
        ([0.0, 1.0, 2.0, math.inf], "values: got .*, wanted finite numbers that increase"),
    ],
)
def test_values_are_one_for_each_bin_and_increase(values, said):
    with pytest.raises(ValueError, match=said):
        distribution_focal_loss(torch.zeros(1, 4), [1.0], values=values)
    with pytest.raises(ValueError, match=r"target: got 4\.0, wanted numbers from 0\.0 to 3\.0"):
        distribution_focal_loss(torch.zeros(1, 4), [4.0], values=[0.0, 1.0, 2.0, 3.0])
