"""Cross-entropy: closed forms, torch where torch is right, and the field's known failures."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.core.vocabulary import Form
from aptt.loss import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    binary_cross_entropy,
    cross_entropy,
)
from aptt.loss.classification.binary import BINARY
from aptt.loss.classification.indices import INDICES


def _random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _classes(*shape, classes, seed=1):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def _value_and_gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss = loss_fn(x)
    loss.sum().backward()
    return loss.detach(), x.grad


def test_the_sample_of_the_brief():
    loss_fn = CrossEntropyLoss(ignore_index=-100, label_smoothing=0.1)
    logits, targets = _random(8, 5), _classes(8, classes=5)
    loss = loss_fn(logits, targets)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, label_smoothing=0.1))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(40, 7), (3, 7, 11), (2, 7, 5, 6)])
def test_agrees_with_torch(shape, reduction, weighted, smoothing):
    logits = 3 * _random(*shape)
    target = _classes(shape[0], *shape[2:], classes=7)
    target.view(-1)[::3] = -100
    weight = torch.linspace(0.5, 2, 7, dtype=torch.float64) if weighted else None
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    ours = _value_and_gradient(lambda x: cross_entropy(x, target, class_dim=1, **options), logits)
    torchs = _value_and_gradient(lambda x: F.cross_entropy(x, target, **options), logits)
    torch.testing.assert_close(ours, torchs)


def test_z_loss_and_softcap_by_their_formulas():
    logits, target = 5 * _random(20, 6), _classes(20, classes=6)
    z = 4.0 * torch.tanh(logits / 4.0)
    lse = z.exp().sum(1).log()
    expected = (lse - z[torch.arange(20), target] + 1e-2 * lse**2).mean()
    found = cross_entropy(logits, target, z_loss=1e-2, softcap=4.0)
    torch.testing.assert_close(found, expected)


def test_the_loss_of_one_row_by_hand():
    logits = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)]], dtype=torch.float64)
    loss, gradient = _value_and_gradient(lambda x: cross_entropy(x, torch.tensor([1])), logits)
    assert loss.item() == pytest.approx(math.log(4.0), rel=1e-15)
    expected = torch.tensor([[0.125, 0.25 - 1, 0.625]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


def test_one_hot_soft_targets_equal_indices_with_class_weights():
    # torch divides by the rows instead of the weights: 2 different means for one target
    logits, target = _random(12, 4), _classes(12, classes=4)
    options = {"weight": torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64), "z_loss": 1e-3}
    hard = _value_and_gradient(lambda x: cross_entropy(x, target, **options), logits)
    one_hot = F.one_hot(target, 4).double()
    soft = _value_and_gradient(lambda x: cross_entropy(x, one_hot, **options), logits)
    torch.testing.assert_close(soft, hard)


def test_soft_targets_agree_with_torch_without_weights():
    logits, target = _random(12, 4), _random(12, 4, seed=3).softmax(1)
    torch.testing.assert_close(
        cross_entropy(logits, target, label_smoothing=0.1),
        F.cross_entropy(logits, target, label_smoothing=0.1),
    )


def test_logit_adjustment_is_added_to_the_logits():
    prior = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    logits, target = _random(9, 3), _classes(9, classes=3)
    found = cross_entropy(logits, target, logit_adjustment=prior.log())
    torch.testing.assert_close(found, F.cross_entropy(logits + prior.log(), target))


def test_sample_weight_multiplies_and_is_counted():
    logits, target = _random(6, 3), _classes(6, classes=3)
    weight = torch.tensor([0.0, 1.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    logits[0] = torch.nan  # weight 0 removes
    rows = F.cross_entropy(logits[1:], target[1:], reduction="none")
    expected = (rows * weight[1:]).sum() / weight.sum()
    torch.testing.assert_close(cross_entropy(logits, target, sample_weight=weight), expected)


# Failures of peers, each of which passes here.


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("case", ["all ignored", "no rows", "weight 0"])
def test_nothing_to_average_is_zero_on_the_graph(case, smoothing):
    # torch: NaN, and NaN gradients; torchtune: a zero without a graph
    logits = _random(0 if case == "no rows" else 4, 3)
    target = torch.full((len(logits),), -100 if case == "all ignored" else 1)
    weight = torch.tensor([1.0, 0.0, 1.0]).double() if case == "weight 0" else None
    options = {"weight": weight, "label_smoothing": smoothing}
    loss, gradient = _value_and_gradient(lambda x: cross_entropy(x, target, **options), logits)
    assert loss == 0
    assert gradient.shape == logits.shape
    assert (gradient == 0).all()


def test_smoothing_leaves_ignored_rows_out():
    # torch 1.10 (pytorch#73205) smoothed over them
    logits = _random(4, 3)
    target = torch.tensor([0, -100, 2, -100])
    found = cross_entropy(logits, target, label_smoothing=0.3)
    torch.testing.assert_close(found, cross_entropy(logits[::2], target[::2], label_smoothing=0.3))


def test_ignored_rows_may_hold_anything():
    logits = _random(4, 3)
    target = torch.tensor([0, -100, 2, -100])
    expected = _value_and_gradient(lambda x: cross_entropy(x, target), logits)
    logits[1], logits[3] = torch.nan, torch.inf
    found = _value_and_gradient(lambda x: cross_entropy(x, target), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_small_integer_targets_are_taken(dtype):
    # torch: "expected Long or Byte"
    logits, target = _random(5, 3), _classes(5, classes=3)
    assert cross_entropy(logits, target.to(dtype)) == cross_entropy(logits, target)


def test_bfloat16_logits_give_a_float32_loss():
    # torch: 14.875 for 14.8963, rounded to the 8 bits of the logits
    logits = (12 * _random(64, 500)).bfloat16()
    target = _classes(64, classes=500)
    loss = cross_entropy(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, F.cross_entropy(logits.double(), target).float(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_confident_row_keeps_its_gradient(dtype):
    # p[y] - 1 formed from a rounded p[y] is 0 or off by half (Liger PR 1329)
    logits = torch.tensor([[9.5, 0.0, -1.0, 0.5]], dtype=dtype).expand(8192, 4).clone()
    target = torch.zeros(8192, dtype=torch.long)
    _, found = _value_and_gradient(lambda x: cross_entropy(x, target, reduction="sum"), logits)
    truth = logits[:1].double().softmax(1)
    truth[0, 0] = -truth[0, 1:].sum()
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(found[:1].double(), truth, rtol=max(rounding, 1e-6), atol=0)


def test_a_wide_gap_stays_finite_under_smoothing():
    # Megatron takes the log of a softmax: inf beyond a gap of 104
    logits = torch.tensor([[0.0, -400.0, 300.0]])
    found = cross_entropy(logits, torch.tensor([2]), label_smoothing=0.3)
    assert found.item() == pytest.approx(0.1 * (300 + 700), rel=1e-6)


def test_a_common_offset_changes_nothing():
    logits, target = _random(32, 50).float(), _classes(32, classes=50)
    moved = logits.bfloat16().float() + 16384.0  # exact
    expected = _value_and_gradient(lambda x: cross_entropy(x, target), moved - 16384.0)
    found = _value_and_gradient(lambda x: cross_entropy(x, target), moved)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_masked_classes_are_as_if_removed(smoothing):
    # with smoothing torch gives inf
    logits, target = _random(6, 4), _classes(6, classes=4)
    masked = torch.cat([logits, torch.full((6, 2), -torch.inf)], 1)
    options = {"label_smoothing": smoothing, "z_loss": 1e-3}
    expected = _value_and_gradient(lambda x: cross_entropy(x, target, **options), logits)
    loss, gradient = _value_and_gradient(lambda x: cross_entropy(x, target, **options), masked)
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient[:, :4], expected[1])
    assert (gradient[:, 4:] == 0).all()


def test_a_second_backward_and_a_scaled_loss_are_right():
    # Liger, FLA and Megatron scale or subtract in place; titan ignores the upstream gradient
    logits, target = _random(300, 80).requires_grad_(), _classes(300, classes=80)
    before, version = logits.detach().clone(), logits._version
    loss = cross_entropy(logits, target)
    (once,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
    (again,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(again, once, rtol=0, atol=0)
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, target), logits)
    torch.testing.assert_close(once, 3 * plain)
    assert torch.equal(logits, before)
    assert logits._version == version


def test_an_unknown_option_is_refused():
    # transformers' fixed_cross_entropy swallows it
    with pytest.raises(TypeError, match="smoothing"):
        cross_entropy(_random(2, 3), torch.tensor([0, 1]), smoothing=0.1)


@pytest.mark.parametrize(
    ("logits", "target", "options", "error", "words"),
    [
        ((4, 5, 5), (4, 5), {}, ValueError, "class_dim.*axis 1 and on axis 2"),
        ((4, 5), (3,), {}, ValueError, r"target.*\(3,\).*\(4, 5\)"),
        ((4, 5), (4, 1), {}, ValueError, r"target.*\(4, 1\)"),
        ((4, 5), (4,), {"reduction": "maen"}, ValueError, "reduction.*'maen'"),
        ((4, 5), (4,), {"label_smoothing": 2.0}, ValueError, "label_smoothing.*2"),
        ((4, 5), (4,), {"softcap": 0.0}, ValueError, "softcap"),
        ((4, 5), (4,), {"weight": torch.ones(4)}, ValueError, r"weight.*\(4,\).*\(5,\)"),
        ((4, 5), (4,), {"class_dim": 3}, ValueError, "class_dim.*3"),
        ((4, 5), (4,), {"sample_weight": torch.ones(5)}, ValueError, "sample_weight"),
    ],
)
def test_wrong_calls_are_told_apart(logits, target, options, error, words):
    with pytest.raises(error, match=words):
        cross_entropy(torch.zeros(logits), torch.zeros(target, dtype=torch.long), **options)


def test_float_targets_where_indices_are_meant():
    with pytest.raises(TypeError, match=r"target.*torch.float32.*integer dtype"):
        cross_entropy(torch.zeros(4, 5), torch.zeros(4))


@pytest.mark.parametrize("wrong", [5, -1])
def test_a_class_out_of_range_is_named(wrong):
    with pytest.raises(ValueError, match=f"target: got class {wrong}, wanted 0 to 4"):
        cross_entropy(torch.zeros(2, 5), torch.tensor([0, wrong]))


def test_soft_targets_of_three_axes_ask_for_the_axis():
    with pytest.raises(ValueError, match="class_dim"):
        cross_entropy(torch.zeros(2, 5, 3), torch.full((2, 5, 3), 0.2))


# Binary cross-entropy.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("pos_weight", [None, torch.tensor([1.0, 2.0, 0.5]).double()])
def test_binary_agrees_with_torch(pos_weight, reduction):
    logits, target = 4 * _random(10, 3), torch.rand(10, 3, dtype=torch.float64)
    ours = _value_and_gradient(
        lambda x: binary_cross_entropy(x, target, pos_weight=pos_weight, reduction=reduction),
        logits,
    )
    torchs = _value_and_gradient(
        lambda x: F.binary_cross_entropy_with_logits(
            x, target, pos_weight=pos_weight, reduction=reduction
        ),
        logits,
    )
    torch.testing.assert_close(ours, torchs)


def test_binary_is_exact_for_confident_answers():
    # torch's form is x - x + log1p(...): 0 here
    logits = torch.tensor([-30.0, 30.0])
    target = torch.tensor([0, 1])
    loss, gradient = _value_and_gradient(
        lambda x: binary_cross_entropy(x, target, reduction="none"), logits
    )
    expected = math.log1p(math.exp(-30.0))
    assert loss.tolist() == pytest.approx([expected, expected], rel=1e-6)
    assert gradient.tolist() == pytest.approx([expected, -expected], rel=1e-6)


def test_binary_smoothing_and_weight():
    logits, target = _random(10), torch.tensor([0, 1] * 5)
    weight = torch.linspace(0, 2, 10, dtype=torch.float64)
    soft = 0.8 * target + 0.1
    rows = F.binary_cross_entropy_with_logits(logits, soft.double(), reduction="none")
    found = binary_cross_entropy(logits, target, weight=weight, label_smoothing=0.2)
    torch.testing.assert_close(found, (rows * weight).sum() / weight.sum())


def test_binary_refuses_targets_out_of_range():
    with pytest.raises(ValueError, match=r"target: got 2, wanted numbers from 0 to 1"):
        BinaryCrossEntropyLoss()(torch.zeros(3), torch.tensor([0, 1, 2]))


def test_an_answer_wrong_by_25_is_exact_in_float64():
    """torch's softplus is x from 20 on, which is off by 1e-9."""
    logits = torch.tensor([[0.0, 25.0]], dtype=torch.float64)
    loss = cross_entropy(logits, torch.tensor([0]))
    assert abs(loss.item() - (25 + math.log1p(math.exp(-25)))) < 1e-14


def test_a_masked_question_that_is_answered_no_costs_nothing():
    for way in (plainly, in_blocks, in_one):
        x = torch.tensor([-math.inf, 1.0, math.inf], dtype=torch.float64, requires_grad=True)
        with way():
            loss = binary_cross_entropy(x, torch.tensor([0, 1, 1]), reduction="sum")
        loss.backward()
        assert loss.item() == pytest.approx(math.log1p(math.exp(-1)))
        assert x.grad.tolist() == pytest.approx([0, -1 / (1 + math.e), 0])


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("height", [0.01, 1.0, 4.0, 8.0, 20.0])
def test_a_capped_logit_keeps_the_digits_of_its_slope(way, height):
    # 1 - tanh**2 in float32: 6 % off at 8 caps, 0 from 9 on
    x = torch.tensor([[5 * height, 0.3, -1.0], [-5 * height, 2.0, 0.5]], dtype=torch.float64)
    target = torch.tensor([1, 0])
    z = 5 * torch.tanh(x / 5)
    by_logit = torch.softmax(z, 1) - F.one_hot(target, 3)
    expected = by_logit / torch.cosh(x / 5) ** 2
    x = x.float().requires_grad_()
    with way():
        cross_entropy(x, target, softcap=5.0, reduction="sum").backward()
    torch.testing.assert_close(x.grad.double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
def test_a_masked_class_stays_masked_under_a_cap(way):
    # tanh makes -softcap of it, and the class takes part again
    x = _random(4, 5)
    x[:, 3] = -torch.inf
    target = torch.tensor([0, 1, 2, 4])
    x.requires_grad_()
    with way():
        loss = cross_entropy(x, target, softcap=2.0)
        (grad,) = torch.autograd.grad(loss, x)
    rest = [0, 1, 2, 4]
    expected = cross_entropy(x[:, rest], torch.arange(4), softcap=2.0)
    torch.testing.assert_close(loss, expected)
    assert (grad[:, 3] == 0).all()
    assert (grad[:, rest] != 0).all()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("options", [{"weight": torch.tensor([1.0, 0, 1])}, {"label_smoothing": 1}])
def test_a_masked_class_may_weigh_nothing(options, way):
    # 0 * inf makes the whole mean NaN
    x = torch.tensor([[1.0, -torch.inf, 2.0], [0.5, 0.1, 0.3]], requires_grad=True)
    target = torch.tensor([1, 2])
    with way():
        loss = cross_entropy(x, target, **options)
        (grad,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert grad.isfinite().all()
    with way():
        assert cross_entropy(x, target, label_smoothing=0.5).isinf()
        assert cross_entropy(x * torch.nan, target, **options).isnan()


def test_small_integers_are_not_ignored_for_what_they_wrap_to():
    # -100 is 156 as uint8: 0 for the whole class
    x, target = _random(4, 200), torch.full((4,), 156)
    found = cross_entropy(x, target.to(torch.uint8))
    torch.testing.assert_close(found, F.cross_entropy(x, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_shapes_and_numbers_may_be_symbols_of_one_graph(smoothing):
    target = torch.arange(20) % 5
    graph = torch.compile(cross_entropy, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (20, 12, 7):
        x = _random(n, 5)
        found = graph(x, target[:n], label_smoothing=smoothing, z_loss=0.01 * n)
        expected = cross_entropy(x, target[:n], label_smoothing=smoothing, z_loss=0.01 * n)
        torch.testing.assert_close(found, expected)


# ------------------------------------------------------------- the steps, and those of one block


@pytest.mark.parametrize("shape", [(12, 5), (3, 5, 7), (4, 1)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "form",
    [Form(), Form(0.1), Form(z_loss=0.01), Form(0.1, 0.01), Form(softcap=3.0), Form(0.2, 0.01, 2)],
)
def test_the_steps_over_rows_are_autograd_of_the_definition(
    shape, weighted, form, same_as_autograd
):
    x, y = 4 * _random(*shape), _classes(shape[0], *shape[2:], classes=shape[1])
    weight = adjustment = None
    if weighted:
        weight = torch.linspace(0.5, 2, shape[1], dtype=torch.float64)
        adjustment = torch.linspace(-1, 1, shape[1], dtype=torch.float64)
    options = {"class_weight": weight, "adjustment": adjustment, "form": form}
    same_as_autograd(INDICES, x, y, **options)
    if shape[1] > 1:
        open = torch.ones_like(x, dtype=torch.bool).scatter(1, (y.unsqueeze(1) + 1) % shape[1], 0)
        same_as_autograd(INDICES, x.masked_fill(~open, -torch.inf), y, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.int64, torch.uint8])
@pytest.mark.parametrize("pos_weight", [None, 2.5])
@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_the_steps_over_elements_are_autograd_of_the_definition(
    dtype, pos_weight, smoothing, same_as_autograd
):
    x, t = 4 * _random(40), _classes(40, classes=2).to(dtype)
    x[:4] = torch.tensor([0.0, 50.0, -50.0, 1e-3])
    same_as_autograd(BINARY, x, t, pos_weight=pos_weight, smoothing=smoothing)
    if dtype.is_floating_point:
        t = torch.rand(40, dtype=dtype, generator=torch.Generator().manual_seed(2))
        same_as_autograd(BINARY, x, t, pos_weight=pos_weight, smoothing=smoothing)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_binary_is_exact_for_confident_answers_in_one_block(dtype):
    x = torch.tensor([-60.0, 60.0, -30.0, 30.0, -90.0, 90.0, -3e38, 3e38])
    target = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1]).to(dtype)
    with in_one():
        loss, gradient = _value_and_gradient(
            lambda x: binary_cross_entropy(x, target, reduction="none"), x
        )
        total, of_total = _value_and_gradient(
            lambda x: binary_cross_entropy(x, target, reduction="sum"), x
        )
    wrong = torch.where(target.bool(), -x, x).double()
    sure = wrong < -30  # exp(-x) there, to the last digit
    want = torch.where(sure, wrong.exp(), F.softplus(wrong, threshold=50))
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    slope = torch.sigmoid(wrong) * torch.where(target.bool(), -1.0, 1.0)
    for found in (gradient, of_total):
        torch.testing.assert_close(found.double(), slope, rtol=1e-6, atol=0)
    assert total == pytest.approx(180.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-3}])
def test_half_logits_in_one_block_are_rounded_once(dtype, options):
    logits, target = (6 * _random(64, 50)).to(dtype), _classes(64, classes=50)
    target[::7] = -100
    logits[::7] = torch.nan
    with in_one():
        loss, found = _value_and_gradient(
            lambda x: 1e3 * cross_entropy(x, target, **options), logits
        )
    kept = target != -100
    want, truth = _value_and_gradient(
        lambda x: 1e3 * cross_entropy(x, target[kept], **options), logits[kept].double()
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), want, rtol=1e-6, atol=0)
    assert not found[~kept].any()
    limits = torch.finfo(dtype)
    within = {"rtol": 0.51 * limits.eps, "atol": limits.smallest_normal * limits.eps}
    torch.testing.assert_close(found[kept].double(), truth, **within)


@pytest.mark.parametrize("pos_weight", [0.0, 1e-9, 1.0, 3.0])
def test_binary_gradient_of_a_target_with_a_pos_weight(pos_weight):
    for x in (-30.0, -1e-3, 0.0, 1e-3, 30.0):
        for target in (0.0, 0.3, 0.5, 1.0):
            t = torch.tensor([target], requires_grad=True)
            z = torch.tensor([x], requires_grad=True)
            loss = binary_cross_entropy(z, t, pos_weight=pos_weight)
            loss.backward()
            at, share = z.detach().double(), t.detach().double()
            yes, no = F.softplus(-at, threshold=50), F.softplus(at, threshold=50)
            torch.testing.assert_close(
                loss.detach().double(), ((1 - share) * no + pos_weight * share * yes)[0],
                rtol=1e-6, atol=0,
            )  # fmt: skip
            slope = -at if pos_weight == 1 else pos_weight * yes - no
            torch.testing.assert_close(t.grad.double(), slope, rtol=1e-6, atol=0)
            along = (1 - share) * at.sigmoid() - pos_weight * share * (-at).sigmoid()
            torch.testing.assert_close(z.grad.double(), along, rtol=1e-6, atol=1e-7)
