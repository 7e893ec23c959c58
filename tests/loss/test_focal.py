"""Focal loss: closed forms, cross-entropy at gamma 0, and the field's known failures."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.loss import DistillationLoss, FocalLoss, cross_entropy, focal_loss
from aptt.loss.classification import FocalLoss as FocalLossOfTheBrief
from aptt.loss.focal.sigmoid import SIGMOID
from aptt.loss.focal.softmax import INDICES, SHARES


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss_fn(x).sum().backward()
    return x.grad


def test_the_sample_of_the_brief():
    assert FocalLossOfTheBrief is FocalLoss
    loss_fn = FocalLoss(alpha=0.25, gamma=2.0, reduction="mean")
    logits, targets = _random(6, 4), torch.eye(6, 4)
    p = torch.sigmoid(logits)
    hit = torch.where(targets == 1, p, 1 - p)
    alpha = torch.where(targets == 1, 0.25, 0.75)
    torch.testing.assert_close(
        loss_fn(logits, targets), (-alpha * (1 - hit) ** 2 * hit.log()).mean()
    )


def test_softmax_by_its_formula():
    logits, target = _random(9, 5), torch.arange(9) % 5
    alpha = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    hit = logits.softmax(1)[torch.arange(9), target]
    expected = (-alpha[target] * (1 - hit) ** 1.5 * hit.log()).mean()
    torch.testing.assert_close(focal_loss(logits, target, alpha=alpha, gamma=1.5), expected)


def test_gamma_0_is_cross_entropy():
    # kornia's mean is C times smaller here
    logits, target = _random(9, 5), torch.arange(9) % 5
    found = focal_loss(logits, target, alpha=None, gamma=0)
    torch.testing.assert_close(found, F.cross_entropy(logits, target))


def test_per_class_alpha_of_independent_questions():
    logits, target = _random(4, 3, 2), (_random(4, 3, 2, seed=1) > 0).long()
    alpha = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    found = focal_loss(logits, target, alpha=alpha, class_dim=1, reduction="none")
    for c in range(3):
        one = focal_loss(logits[:, c], target[:, c], alpha=alpha[c].item(), reduction="none")
        torch.testing.assert_close(found[:, c], one)


def test_normalised_by_positives():
    logits, target = _random(50), (torch.arange(50) % 10 == 0).double()
    total = focal_loss(logits, target, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, target, normalize="positives"), total / 5)
    few = torch.full((50,), 0.1)  # half a positive, by weight: the divisor is at least 1
    found = focal_loss(logits, target, weight=few, normalize="positives")
    torch.testing.assert_close(found, 0.1 * total, rtol=1e-6, atol=0)
    nothing = torch.zeros(50)  # background alone is still penalised, undivided
    found = focal_loss(logits, nothing, normalize="positives")
    torch.testing.assert_close(found, focal_loss(logits, nothing, reduction="sum"))


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("logit", [-6e4, -200.0, -40.0, 0.0, 40.0, 200.0, 6e4])
@pytest.mark.parametrize("softmax", [False, True])
def test_finite_for_any_gamma(softmax, logit, gamma):
    # torchvision, kornia: NaN gradients for a right answer and gamma below 1
    logits = torch.tensor([[logit, 0.0]])
    target = torch.tensor([0]) if softmax else torch.tensor([[1, 0]])
    loss = focal_loss(logits, target, gamma=gamma)
    assert loss.isfinite()
    assert _gradient(lambda x: focal_loss(x, target, gamma=gamma), logits).isfinite().all()


def test_a_hopeless_positive_costs_its_logit():
    # effdet: 0, and a NaN gradient
    logits, target = torch.tensor([-200.0]), torch.tensor([1.0])
    assert focal_loss(logits, target).item() == pytest.approx(0.25 * 200)
    assert _gradient(lambda x: focal_loss(x, target), logits).item() == pytest.approx(-0.25)


def test_a_certain_right_answer_costs_nothing():
    # kornia: 0.01, from a one-hot that leaks
    assert focal_loss(torch.tensor([[0.0, 1e4]]), torch.tensor([1]), alpha=None) == 0


def test_a_right_answer_in_float32_is_exact():
    logits = torch.tensor([12.0])
    miss = 1 / (1 + math.exp(12.0))
    expected = 0.25 * miss**2 * -math.log1p(-miss)
    assert focal_loss(logits, torch.tensor([1.0])).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("normalize", ["elements", "positives"])
def test_the_mean_of_nothing_is_zero(normalize):
    # torchvision: NaN
    x = torch.zeros(0, 4, requires_grad=True)
    loss = focal_loss(x, torch.zeros(0, 4), normalize=normalize)
    loss.backward()
    assert loss == 0
    assert x.grad.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32])
def test_targets_of_any_dtype(dtype):
    # torchvision: an opaque error for integers
    logits, target = _random(20), torch.arange(20) % 3 == 0
    assert focal_loss(logits, target.to(dtype)) == focal_loss(logits, target.double())


def test_ignored_elements_are_as_if_removed():
    # mmdetection's Python path counts them as background
    logits, target = _random(20), (torch.arange(20) % 2).double()
    target[::5] = 255
    keep = target != 255
    expected = focal_loss(logits[keep], target[keep])
    logits[~keep] = torch.nan
    torch.testing.assert_close(focal_loss(logits, target, ignore_index=255), expected)
    gradient = _gradient(lambda x: focal_loss(x, target, ignore_index=255), logits)
    assert (gradient[~keep] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (torch.full((4, 3), 0.5), {}, "0.5.*quality_focal_loss"),
        (torch.zeros(4, 3), {"reduction": "avg"}, "reduction.*'avg'"),  # fvcore: silently "none"
        (torch.zeros(4, 3), {"gamma": -1.0}, "gamma.*-1"),
        (torch.zeros(4, 3), {"alpha": 1.5}, "alpha.*1.5"),
        (torch.zeros(4, 3), {"alpha": torch.ones(4)}, r"alpha.*\(4,\).*\(3,\)"),
        (torch.zeros(4, dtype=torch.long), {"normalize": "positives"}, "normalize"),
        (torch.zeros(4, 3), {"label_smoothing": 0.1}, "label_smoothing.*0.1.*sigmoid"),
        (torch.zeros(4, 3), {"kind": "softmax", "ignore_index": 0}, "ignore_index.*soft targets"),
        (torch.zeros(4, dtype=torch.long), {"kind": "sigmoid"}, "target"),
        (torch.zeros(4, 1), {}, "target"),
        (torch.tensor([0, 1, 2, 3]), {}, "class 3"),
    ],
)
def test_wrong_calls_are_told_apart(target, options, words):
    with pytest.raises(ValueError, match=words):
        focal_loss(torch.zeros(4, 3), target, **options)


def test_a_masked_class_is_not_there_in_blocks_either():
    logits = torch.randn(40, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[:, 7] = -torch.inf
    target = torch.zeros(40, 30)
    target[::3, 2] = 1
    found = []
    for way in (plainly, in_blocks, in_one):
        x = logits.clone().requires_grad_()
        with way():
            loss = focal_loss(x, target)
        loss.backward()
        found.append((loss.detach(), x.grad))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0].isfinite()
    assert (found[0][1][:, 7] == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.int64])
@pytest.mark.parametrize("alpha", [None, 0.25, torch.tensor([[0.1], [0.9], [0.0]]).double()])
def test_the_sigmoid_step_is_autograd_of_the_definition(alpha, dtype, gamma, same_as_autograd):
    x, y = 4 * _random(5, 3, 4), (_random(5, 3, 4, seed=1) > 0).to(dtype)
    x[0], x[1], x[2] = 0.0, 50.0, -50.0
    same_as_autograd(SIGMOID, x, y, alpha=alpha, gamma=gamma)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("alpha", [None, torch.linspace(0.1, 0.9, 5, dtype=torch.float64)])
@pytest.mark.parametrize("shape", [(12, 5), (3, 5, 7)])
def test_the_softmax_step_is_autograd_of_the_definition(shape, alpha, gamma, same_as_autograd):
    x, y = 4 * _random(*shape), torch.arange(math.prod(shape) // 5) % 5
    same_as_autograd(INDICES, x, y.view(shape[0], *shape[2:]), alpha=alpha, gamma=gamma)


def test_soft_targets_are_the_sum_of_their_classes():
    logits, target = 3 * _random(9, 5), _random(9, 5, seed=1).softmax(1)
    alpha = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    p = logits.softmax(1)
    each = alpha * target * (1 - p) ** 1.5 * -p.log()
    found = focal_loss(logits, target, kind="softmax", alpha=alpha, gamma=1.5)
    torch.testing.assert_close(found, each.sum(1).mean())
    smooth = 0.9 * target + 0.1 / 5
    found = focal_loss(
        logits, target, kind="softmax", alpha=alpha, gamma=1.5, label_smoothing=0.1, reduction="sum"
    )
    torch.testing.assert_close(found, (alpha * smooth * (1 - p) ** 1.5 * -p.log()).sum())


def test_one_hot_rows_are_their_indices():
    logits, target = 3 * _random(9, 5), torch.arange(9) % 5
    one = F.one_hot(target, 5).double()
    for options in ({}, {"label_smoothing": 0.2}, {"alpha": torch.rand(5), "gamma": 0.5}):
        found = focal_loss(logits, one, kind="softmax", **options)
        torch.testing.assert_close(found, focal_loss(logits, target, **options))
    # mass is counted: half a row counts as half
    some = torch.cat((one, 0.5 * one))
    found = focal_loss(logits.repeat(2, 1), some, kind="softmax")
    torch.testing.assert_close(found, focal_loss(logits, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_at_gamma_0_is_cross_entropy(smoothing):
    logits, target = 3 * _random(9, 5), torch.arange(9) % 5
    logits[3, 1] = -torch.inf  # a class that is not there takes no smoothing
    target[3] = 0
    found = focal_loss(logits, target, gamma=0.0, label_smoothing=smoothing)
    wanted = cross_entropy(logits, target, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)


def test_a_sure_row_of_shares_keeps_its_digits():
    # 1 - p of a class that is nearly certain is exp(-30) / (1 + exp(-30)): nothing, by subtraction
    miss = math.exp(-30) / (1 + math.exp(-30))
    logits = torch.tensor([[30.0, 0.0]])
    target = torch.tensor([[1.0, 0.0]])
    found = focal_loss(logits, target, kind="softmax", gamma=1.0)
    assert found.item() == pytest.approx(-miss * math.log1p(-miss), rel=1e-5)
    slope = _gradient(lambda x: focal_loss(x, target, kind="softmax", gamma=1.0), logits)
    # d (miss nll) / d z = -miss (miss + (1 - miss) nll)
    assert slope[0, 0].item() == pytest.approx(-2 * miss * miss, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.5, torch.linspace(0.1, 0.9, 5, dtype=torch.float64)])
@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_the_step_of_shares_is_autograd_of_the_definition(
    smoothing, alpha, gamma, same_as_autograd
):
    x, t = 4 * _random(6, 5, 3), _random(6, 5, 3, seed=1).softmax(1)
    options = {"alpha": alpha, "gamma": gamma, "smoothing": smoothing}
    same_as_autograd(SHARES, x, t, **options)
    same_as_autograd(SHARES, x[..., 0], torch.arange(6) % 5, **options)


@pytest.mark.parametrize("n", [1, 17])
@pytest.mark.parametrize("options", [{}, {"gamma": 0.5, "alpha": None, "reduction": "none"}])
def test_it_compiles_to_one_graph(n, options, same_when_compiled):
    x, y = 3 * _random(n, 4), (_random(n, 4, seed=1) > 0).double()
    weight = _random(n, 4, seed=2).abs() * (torch.arange(4) > 0)
    same_when_compiled(focal_loss, x, y, **options)
    same_when_compiled(focal_loss, x, y.bool(), **options)
    y[:, 1] = 255
    same_when_compiled(focal_loss, x, y, weight=weight, ignore_index=255, **options)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("n", [1, 17])
def test_the_softmax_form_compiles_to_one_graph(n, classes, same_when_compiled):
    x, y = 3 * _random(n, classes), torch.arange(n) % classes
    same_when_compiled(focal_loss, x, y)
    y[::3] = -100
    weight = torch.linspace(0, 2, n, dtype=torch.float64)
    same_when_compiled(focal_loss, x, y, gamma=0.5, weight=weight, reduction="none")
    same_when_compiled(focal_loss, x, y, label_smoothing=0.1, weight=weight)


@pytest.mark.parametrize("alpha", [0.01, 0.25, 0.99])
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_float32_is_as_good_as_float64(gamma, alpha):
    logits = torch.cat((torch.linspace(-60, 60, 4001), torch.tensor([6e4, -6e4])))
    for target in (torch.zeros_like(logits), torch.ones_like(logits)):
        results = []
        for dtype in (torch.float32, torch.float64):
            x = logits.to(dtype).requires_grad_()
            value = focal_loss(x, target, alpha=alpha, gamma=gamma, reduction="none")
            (gradient,) = torch.autograd.grad(value.sum(), x)
            results.append((value.detach().double(), gradient.double()))
        (value, gradient), (truth, slope) = results
        share = alpha if target[0] else 1 - alpha
        torch.testing.assert_close(value, truth, rtol=3e-6, atol=1e-38)
        # 1 - miss is off by a rounding, which gamma and a cost of up to 17 multiply
        torch.testing.assert_close(gradient, slope, rtol=0, atol=(1 + gamma) * 1e-6 * share)


def test_a_weight_may_hold_anything_where_the_target_is_ignored():
    logits, weight = _random(3), torch.tensor([1.0, torch.nan, 1.0], dtype=torch.float64)
    target = torch.tensor([0, 255, 1])
    found = focal_loss(logits, target, weight=weight, ignore_index=255)
    torch.testing.assert_close(found, focal_loss(logits[::2], target[::2]))
    rows, classes = _random(3, 4), torch.tensor([0, -100, 1])
    found = focal_loss(rows, classes, weight=weight)
    torch.testing.assert_close(found, focal_loss(rows[::2], classes[::2]))


def test_positives_of_a_half_target_are_counted_in_float32():
    x, ones = torch.zeros(259), torch.ones(259, dtype=torch.bfloat16)
    found = focal_loss(x, ones, normalize="positives", alpha=None)
    assert found.item() == pytest.approx(math.log(2) / 4, rel=1e-6)


def test_the_target_of_a_weight_of_0_may_be_anything():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(3)).requires_grad_()
    target = torch.tensor([[0.0, 1.0, 0.0], [torch.nan] * 3])
    loss = focal_loss(logits, target, weight=[[1.0] * 3, [0.0] * 3])
    loss.backward()
    assert loss == focal_loss(logits[:1], target[:1])
    assert not logits.grad[1].any()
    with pytest.raises(ValueError, match="target: got nan"):
        focal_loss(logits, target)


def test_what_a_form_has_not_is_refused_where_the_module_is_made():
    with pytest.raises(ValueError, match="label_smoothing: got 0"):
        FocalLoss(kind="sigmoid", label_smoothing=0.1)
    with pytest.raises(ValueError, match="normalize: got 'positives' with a softmax"):
        FocalLoss(kind="softmax", normalize="positives")


def test_several_numbers_for_one_are_refused_by_name():
    for make in (lambda g: FocalLoss(gamma=g), lambda g: DistillationLoss(temperature=g)):
        with pytest.raises(TypeError, match=r"(gamma|temperature): got tensor"):
            make(torch.ones(2))
