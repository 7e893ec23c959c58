"""The terms of cross-entropy: the loss, the z-loss before its factor, and the log-sum-exp."""

import pytest
import torch

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.core.vocabulary import Form
from aptt.loss import (
    CrossEntropyLoss,
    LinearCrossEntropyLoss,
    cross_entropy,
    cross_entropy_terms,
    linear_cross_entropy_terms,
    token_stats,
)
from aptt.loss.classification.indices import INDICES_AND_LSE
from aptt.loss.classification.shares import SHARES_AND_LSE


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5], dtype=torch.float64)
CASES = {
    "indices": (lambda: torch.tensor([0, 1, 2, 3, 4, -100, 1]), {}),
    "weighted": (
        lambda: torch.tensor([0, 1, 2, 3, 4, -100, 1]),
        {"weight": WEIGHT, "label_smoothing": 0.1, "softcap": 4.0, "logit_adjustment": WEIGHT},
    ),
    "shares": (lambda: _random(7, 5, seed=1).softmax(1), {"weight": WEIGHT}),
}


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("case", CASES)
def test_they_add_up_to_the_loss(case, way):
    make, options = CASES[case]
    sample_weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5, 1.0, 1.0]).double()
    found, wanted = (3 * _random(7, 5)).requires_grad_(), (3 * _random(7, 5)).requires_grad_()
    for reduction in ("mean", "sum", "none"):
        options = {**options, "sample_weight": sample_weight, "reduction": reduction}
        with way():
            terms = cross_entropy_terms(found, make(), **options)
        sum_ = terms["cross_entropy"] + 0.3 * terms["z_loss"]
        loss = cross_entropy(wanted, make(), z_loss=0.3, **options)
        torch.testing.assert_close(sum_, loss)
        up = torch.linspace(1, 2, loss.numel()).double().reshape(loss.shape)
        (grad,) = torch.autograd.grad(sum_, found, up)
        (truth,) = torch.autograd.grad(loss, wanted, up)
        torch.testing.assert_close(grad, truth)
        assert not terms["lse"].requires_grad


def test_lse_is_that_of_each_position():
    x, y = 3 * _random(2, 5, 4), torch.arange(8).reshape(2, 4) % 5
    y[0, 1] = -100
    terms = cross_entropy_terms(x, y, reduction="none")
    stats = token_stats(x, y, class_dim=1)
    torch.testing.assert_close(terms["lse"], stats.lse)
    torch.testing.assert_close(terms["cross_entropy"], -stats.log_prob)
    torch.testing.assert_close(terms["z_loss"], stats.lse.square())
    mean = cross_entropy_terms(x, y)
    torch.testing.assert_close(mean["lse"], stats.lse.sum() / 7)


def test_the_mean_of_lse_keeps_what_cancels():
    """It is the largest logit, where it is by far the largest; of these the sum is 1."""
    x = torch.tensor([[1e8, -1e9], [1.0, -1e9], [-1e8, -1e9]])
    terms = cross_entropy_terms(x, torch.zeros(3, dtype=torch.long), reduction="sum")
    assert terms["lse"].item() == 1.0


def test_a_module_gives_them():
    loss_fn = CrossEntropyLoss(WEIGHT, z_loss=1e-4, softcap=30.0)
    x, y = 3 * _random(7, 5), torch.arange(7) % 5
    terms = loss_fn.terms(x, y)
    torch.testing.assert_close(terms["cross_entropy"] + 1e-4 * terms["z_loss"], loss_fn(x, y))


def test_nothing_to_count():
    x = torch.zeros(3, 5, requires_grad=True)
    terms = cross_entropy_terms(x, torch.full((3,), -100))
    assert [t.item() for t in terms.values()] == [0.0, 0.0, 0.0]
    (grad,) = torch.autograd.grad(terms["cross_entropy"] + terms["z_loss"], x)
    assert (grad == 0).all()


@pytest.mark.parametrize("smoothing", [None, 0.1])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("adjustment", [None, WEIGHT])
def test_steps(smoothing, softcap, adjustment):
    form = Form(smoothing=smoothing, softcap=softcap)
    options = {"class_weight": WEIGHT, "adjustment": adjustment, "form": form}
    x, up = (3 * _random(7, 5)).requires_grad_(), _random(7, 2, seed=2)
    for formula, t in (
        (INDICES_AND_LSE, torch.arange(7) % 5),
        (SHARES_AND_LSE, _random(7, 5, seed=1).softmax(1)),
    ):
        kept = formula.measure(x, (t,), options)
        (truth,) = torch.autograd.grad(formula.define(x, kept, (t,), options), x, up)
        _, found = formula.advance(x.detach(), up, [k.detach() for k in kept], (t,), options)
        torch.testing.assert_close(found, truth, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("drop_ignored", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_from_hidden_states_they_are_those_of_the_logits(case, drop_ignored):
    make, options = CASES[case]
    hidden, weight = _random(7, 3).requires_grad_(), _random(5, 3, seed=3).requires_grad_()
    named = {"class_weight" if k == "weight" else k: v for k, v in options.items()}
    for reduction in ("mean", "none"):
        found = linear_cross_entropy_terms(
            hidden, weight, make(), chunk=2, drop_ignored=drop_ignored, reduction=reduction, **named
        )
        wanted = cross_entropy_terms(hidden @ weight.T, make(), reduction=reduction, **options)
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name])
        for one in ("cross_entropy", "z_loss"):
            up = torch.linspace(1, 2, found[one].numel()).double().reshape(found[one].shape)
            got = torch.autograd.grad(found[one], (hidden, weight), up, retain_graph=True)
            truth = torch.autograd.grad(wanted[one], (hidden, weight), up, retain_graph=True)
            torch.testing.assert_close(got, truth)


def test_the_module_of_a_head_gives_them():
    loss_fn = LinearCrossEntropyLoss(z_loss=1e-3, scale=0.5)
    given = _random(7, 3), _random(5, 3, seed=3), torch.arange(7) % 5
    terms = loss_fn.terms(*given)
    torch.testing.assert_close(terms["cross_entropy"] + 1e-3 * terms["z_loss"], loss_fn(*given))


def test_a_half_target_that_learns_gets_a_sum_of_slopes_and_not_of_infinities():
    # the loss's part and the count's are beyond float16, each with another sign: NaN, once
    x = torch.tensor([[60000.0, 0.0], [0.0, 1.0]])
    target = torch.ones(2, 2, dtype=torch.float16, requires_grad=True)
    (grad,) = torch.autograd.grad(cross_entropy(x, target, z_loss=1.0), target)
    assert not grad.isnan().any()
