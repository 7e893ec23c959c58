"""Policies: closed forms, log-ratios of 100, averages, packs, estimators, advantages."""

import itertools
import math

import pytest
import torch

from aptt.audit.ways import WAYS
from aptt.loss import (
    KLPenaltyLoss,
    PolicyLoss,
    group_advantages,
    kl_penalty_loss,
    linear_token_stats,
    policy_loss,
    policy_terms,
)
from aptt.loss.policy.penalty import _PENALTY
from aptt.loss.policy.ratios import CISPO, CLIP

DOUBLE = torch.float64


def of(*numbers, dtype=DOUBLE, grad=False):
    return torch.tensor(numbers, dtype=dtype, requires_grad=grad)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# ------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize(
    ("ratio", "advantage", "options", "value"),
    [
        (1.5, 1, {}, -1.2),
        (1.5, 1, {"clip_high": 0.28}, -1.28),
        (0.5, -1, {}, 0.8),
        (1.5, -1, {}, 1.5),
        (0.5, 1, {}, -0.5),
        (5, -1, {}, 5),
        (5, -1, {"dual_clip": 3.0}, 3),
    ],
)
def test_of_one_token_in_closed_form(ratio, advantage, options, value):
    x = of(math.log(ratio)).unsqueeze(0)
    found = policy_loss(x, torch.zeros_like(x), of(advantage), **options)
    assert found.item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_log_ratios_of_100_have_a_finite_slope_that_is_0_only_where_they_are_held(dtype, way):
    # TRL: NaN for A = 1 at 100; verl and OpenRLHF: 0 for A = -1 at 100, the token that most
    # needs to be pulled back
    for sign, by, dual in itertools.product((1, -1), (0, 1e-4, 30, 100), (None, 3.0)):
        for advantage in (1.0, -1.0):
            x = of(sign * by, dtype=dtype, grad=True)
            with WAYS[way]():
                loss = policy_loss(
                    x, of(0, dtype=dtype), of(advantage, dtype=dtype), dual_clip=dual
                )
                (slope,) = torch.autograd.grad(loss, x)
            held = by > 1 and (advantage > 0) == (sign > 0)
            held |= dual is not None and advantage < 0 and sign * by > math.log(3)
            assert loss.isfinite()
            assert slope.isfinite()
            assert (slope == 0) == held
            top = 87.0 if dtype == torch.float32 else 708.0
            if not held and sign * by < top:
                want = -advantage * math.exp(sign * by)
                assert loss.item() == pytest.approx(want, rel=1e-6)
                assert slope.item() == pytest.approx(want, rel=1e-6)
            elif not held:
                assert loss.item() > 1e37
                assert slope == loss


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("advantage", [-1e-30, -1e30])
def test_a_ratio_ends_where_its_advantage_times_it_would_leave_the_dtype(advantage, dtype, way):
    x = of(1000, dtype=dtype, grad=True)
    with WAYS[way]():
        loss = policy_loss(x, of(0, dtype=dtype), of(advantage, dtype=dtype))
        (slope,) = torch.autograd.grad(loss, x)
    top = torch.finfo(dtype).max
    assert min(1.0, -advantage) * top / 4 < loss.item() < top
    assert slope == loss


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_before_the_first_step_the_slope_is_minus_the_advantage(advantage):
    x = of(-1, -2, dtype=torch.float32, grad=True)
    loss = policy_loss(x, x, of(advantage, advantage), reduction="sum")
    loss.backward()  # and not 0, though the old log-probabilities are the same tensor
    assert x.grad.tolist() == [-advantage, -advantage]


def test_an_advantage_of_0_is_0_at_any_ratio():
    x = of(100, -100, dtype=torch.float32, grad=True)
    loss = policy_loss(x, of(0, 0), of(0, 0))
    loss.backward()
    assert loss.item() == 0
    assert x.grad.tolist() == [0, 0]


def test_advantages_that_add_up_to_0_have_a_gradient():
    x = of(-1, -2, grad=True)
    loss = policy_loss(x, x.detach(), of(1, -1))
    loss.backward()
    assert loss.item() == 0
    assert x.grad.tolist() == [-0.5, 0.5]


def test_the_edges_of_the_clip_let_the_gradient_pass():
    high, low = math.log1p(0.2), math.log1p(-0.2)
    x = of(high, low, grad=True)
    policy_loss(x, of(0, 0), of(1, -1), reduction="sum").backward()
    assert x.grad.tolist() == pytest.approx([-1.2, 0.8])


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"average": "sequence"}, 2.0),
        ({"average": "token"}, 1.5),
        ({"average": "constant", "nominal_length": 8}, 0.375),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_a_mean_counts(packed, options, value):
    # losses of tokens: [3] and [1, 1, 1]
    advantage, mask = -of(3, 0, 0, 1, 1, 1).view(2, 3), torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    x = torch.zeros(2, 3, dtype=DOUBLE)
    if packed:
        ids = torch.tensor([5, 2, 2, 2])
        found = policy_loss(x[mask], x[mask], advantage[mask], sequence_ids=ids, **options)
    else:
        found = policy_loss(x, x, advantage, mask=mask, **options)
    assert found.item() == pytest.approx(value)


@pytest.mark.parametrize(("clip_low", "value"), [(0.2, 0.8), (1.0, 0.01)])
def test_a_ratio_that_may_fall_to_0_is_not_held_below(clip_low, value):
    x = of(math.log(0.01))
    found = policy_loss(x, of(0), of(-1), clip_low=clip_low)
    assert found.item() == pytest.approx(value)


def test_gspo_in_closed_form():
    options = {"ratio": "sequence", "average": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}
    x, old = of(0.1, 0.3, grad=True), of(0, 0)
    rows = x.unsqueeze(0)
    loss = policy_loss(rows, old.unsqueeze(0), of(-1), **options)
    (slope,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(1.221403, abs=5e-7)
    assert slope.tolist() == pytest.approx([0.610701, 0.610701], abs=5e-7)
    loss = policy_loss(rows, old.unsqueeze(0), of(1), **options)
    assert loss.item() == pytest.approx(-1.0004)
    assert torch.autograd.grad(loss, x)[0].tolist() == [0, 0]


def test_cispo_holds_the_ratio_and_lets_every_token_learn():
    x = of(-1, -1, -1, grad=True)
    old = x.detach() - of(math.log(2), math.log(9), math.log(0.01))
    loss = policy_loss(x, old, of(1, 1, 1), kind="cispo", reduction="none")
    assert loss.tolist() == pytest.approx([2, 5, 0.01])
    (slope,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    assert slope.tolist() == pytest.approx([-2, -5, -0.01])
    assert not slope.requires_grad  # nothing flows through the ratio


def test_steps_are_the_slopes_of_their_definitions(same_as_autograd):
    x, old, advantage, factor = (random(60, seed=s) for s in range(4))
    for by in (None, factor.abs()):
        same_as_autograd(CLIP, x, old, advantage, by, low=-0.2, high=0.3, dual=None)
        same_as_autograd(CLIP, x, None, advantage, by, low=-0.2, high=0.3, dual=1.1)
        same_as_autograd(CISPO, x, old, advantage, by, cap=0.5)
    for kind in ("k1", "k2", "k3"):
        same_as_autograd(_PENALTY, x, old, None, estimator=kind)
        same_as_autograd(_PENALTY, x, old, advantage, estimator=kind)


# ----------------------------------------------------------------- masks, packs, micro-batches


def problem():
    g = torch.Generator().manual_seed(6)
    old = -3 * torch.rand(7, 5, generator=g).double()
    x = old + 0.4 * torch.randn(7, 5, generator=g).double()
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 0, 2, 5, 4])[:, None]
    return x, old, torch.randn(7, generator=g).double(), mask


AVERAGES = (
    {"average": "token"},
    {"average": "sequence"},
    {"average": "constant", "nominal_length": 6},
    {"average": "sequence", "ratio": "sequence", "clip_low": 0.05, "clip_high": 0.1},
    {"average": "token", "kind": "cispo", "cap": 1.2},
)
LOSSES = [
    pytest.param(lambda x, old, a, o=options, **more: policy_loss(x, old, a, **o, **more),
                 id=str(list(options.values())))
    for options in AVERAGES
] + [
    pytest.param(lambda x, old, a, o=options, k=kind, **more: kl_penalty_loss(
        x, old, kind=k, old_log_prob=old + 0.1, **o, **more), id=f"{kind}, {options['average']}")
    for kind, options in itertools.product(("k2", "k3"), AVERAGES[:3])
]  # fmt: skip


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("loss_fn", LOSSES)
def test_padded_packed_and_shuffled_tokens_are_the_same(loss_fn, poison):
    x, old, advantage, mask = problem()
    ids = torch.arange(7)[:, None].expand(7, 5)
    given = x.masked_fill(~mask, poison).requires_grad_()
    want = loss_fn(given, old.masked_fill(~mask, poison), advantage, mask=mask)
    (slope,) = torch.autograd.grad(want, given)
    assert slope[~mask].eq(0).all()
    for order in (torch.arange(20), torch.randperm(20)):
        flat = x[mask][order].requires_grad_()
        named = 10 * ids[mask][order]
        found = loss_fn(flat, old[mask][order], advantage[ids[mask][order]], sequence_ids=named)
        torch.testing.assert_close(found, want)
        (grad,) = torch.autograd.grad(found, flat)
        torch.testing.assert_close(grad, slope[mask][order])


@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ragged_micro_batches_on_several_ranks_are_the_whole(ranks, loss_fn):
    x, old, advantage, mask = problem()
    x = x.requires_grad_()
    want = loss_fn(x, old, advantage, mask=mask)
    (slope,) = torch.autograd.grad(want, x)
    own = [torch.arange(7)[rank::ranks] for rank in range(ranks)]
    parts = [rows[cut] for rows in own for cut in (slice(0, 1), slice(1, 1), slice(1, None))]
    counts = []

    def note(total, count, *, term):
        counts.append(count.double())
        return total

    for rows in parts:
        loss_fn(x[rows], old[rows], advantage[rows], mask=mask[rows], reduction=note)

    def share(total, count, *, term):  # times the ranks, for their gradients are averaged
        return total * ranks / torch.stack(counts).sum()

    losses = [
        loss_fn(x[rows], old[rows], advantage[rows], mask=mask[rows], reduction=share)
        for rows in parts
    ]
    torch.testing.assert_close(sum(losses) / ranks, want)
    (grad,) = torch.autograd.grad(sum(losses) / ranks, x)
    torch.testing.assert_close(grad, slope)


@pytest.mark.parametrize("loss_fn", LOSSES)
def test_nothing_left_is_0_on_the_graph(loss_fn):
    x, old, advantage, mask = problem()
    for given in (x[:0], x):
        given = given.clone().requires_grad_()
        n = len(given)
        loss = loss_fn(given, old[:n], advantage[:n], mask=torch.zeros_like(mask[:n]))
        assert loss.item() == 0
        assert torch.autograd.grad(loss, given)[0].eq(0).all()


def test_importance_weights_multiply_and_are_not_counted():
    x, old, advantage, mask = problem()
    weight = torch.rand(7, 5, dtype=DOUBLE).clamp(max=0.9)
    each = policy_loss(x, old, advantage, mask=mask, reduction="none")
    found = policy_loss(x, old, advantage, mask=mask, importance=weight)
    torch.testing.assert_close(found, (each * weight).sum() / mask.sum())


def test_what_is_watched_is_averaged_like_the_loss():
    x, old, advantage, mask = problem()
    for options in AVERAGES:
        terms = policy_terms(x, old, advantage, mask=mask, **options)
        torch.testing.assert_close(
            terms["policy"], policy_loss(x, old, advantage, mask=mask, **options)
        )
        assert 0 < terms["clipped"] < 1
        assert terms["kl_old"] > 0
        assert PolicyLoss(**options).terms(x, old, advantage, mask=mask) == terms
    same = policy_terms(x, x, advantage, mask=mask)
    assert same["kl_old"] == same["clipped"] == 0
    given = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(policy_loss(given, old, advantage, mask=mask), given)
    free = (slope != 0).sum() / mask.sum()
    torch.testing.assert_close(
        policy_terms(x, old, advantage, mask=mask)["clipped"], 1 - free.double()
    )


def test_constants_get_no_gradient():
    tensors = [t.clone().requires_grad_() for t in problem()[:3]]
    grads = torch.autograd.grad(policy_loss(*tensors), tensors, allow_unused=True)
    assert grads[0] is not None
    assert grads[1] is None
    assert grads[2] is None


# --------------------------------------------------------------------------------- penalties


def test_estimators_in_closed_form():
    for d, values in ((0.5, (0.5, 0.125, 0.106531)), (-0.5, (-0.5, 0.125, 0.148721))):
        for kind, value in zip(("k1", "k2", "k3"), values, strict=True):
            assert kl_penalty_loss(of(d), of(0), kind=kind).item() == pytest.approx(value, abs=5e-7)


@pytest.mark.parametrize("way", WAYS)
def test_k3_near_0_and_far_from_it(way):
    # naive: 0 at 1e-4; verl: 10 with a slope of 0 at -30
    for d in (1e-4, -1e-4, 1e-3, 0.3, -2.6, -3.0, -30.0, 30.0):
        x = of(d, dtype=torch.float32, grad=True)
        with WAYS[way]():
            value = kl_penalty_loss(x, of(0, dtype=torch.float32))
            (slope,) = torch.autograd.grad(value, x)
        exact = x.detach().double().item()
        want = math.expm1(-exact) + exact
        assert value.item() == pytest.approx(want, rel=1e-6)
        assert slope.item() == pytest.approx(-math.expm1(-exact), rel=1e-6)
    x = of(-100, dtype=torch.float32, grad=True)
    with WAYS[way]():
        value = kl_penalty_loss(x, of(0, dtype=torch.float32))
        (slope,) = torch.autograd.grad(value, x)
    assert 1e37 < value < math.inf
    assert -math.inf < slope < -1e37


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_where_policy_and_reference_agree_every_estimate_is_exactly_0(kind):
    x = random(5).float()
    assert kl_penalty_loss(x, x, kind=kind).item() == 0


def _expected(policy, reference, loss_fn):
    """The expectation over all classes of an estimate, and of its gradient, with the truth's."""
    z = policy.clone().requires_grad_()
    log_p, log_q = z.log_softmax(0), reference.log_softmax(0)
    p = log_p.exp().detach()
    (slope,) = torch.autograd.grad((p * loss_fn(log_p, log_q)).sum(), z, retain_graph=True)
    kl = (log_p.exp() * (log_p - log_q)).sum()
    back = (log_q.exp() * (log_q - log_p)).sum()
    truth, other = (torch.autograd.grad(t, z, retain_graph=True)[0] for t in (kl, back))
    return (p * loss_fn(log_p, log_q)).sum().item(), slope, kl.item(), truth, other


def _each(kind, old=False):
    return lambda a, b: kl_penalty_loss(
        a, b, kind=kind, old_log_prob=a.detach() if old else None, reduction="none"
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_what_each_estimator_and_its_gradient_expect(classes):
    z, ref = random(classes), random(classes, seed=1)
    value, slope, kl, truth, back = _expected(z, ref, _each("k1"))
    assert value == pytest.approx(kl)
    assert slope.abs().max() < 1e-15  # as a term of a loss it does nothing
    torch.testing.assert_close(_expected(z, ref, _each("k2"))[1], truth)
    value, slope, *_ = _expected(z, ref, _each("k3"))
    assert value == pytest.approx(kl)
    torch.testing.assert_close(slope, back)
    for kind in ("k1", "k3"):
        value, slope, *_ = _expected(z, ref, _each(kind, old=True))
        assert value == pytest.approx(kl)
        torch.testing.assert_close(slope, truth)


def test_the_bernoulli_of_the_notes():
    z, ref = torch.logit(of(0.6)).squeeze(), of(0.0).squeeze()
    z, ref = torch.stack((z, 0 * z)), torch.stack((ref, 0 * ref))
    found = {k: _expected(z, ref, _each(k)) for k in ("k1", "k2", "k3")}
    rho = _expected(z, ref, _each("k3", old=True))
    assert found["k1"][2] == pytest.approx(0.0201355, abs=5e-8)
    assert found["k2"][0] == pytest.approx(0.0199310, abs=5e-8)
    slopes = [found[k][1][0].item() for k in ("k1", "k2", "k3")] + [rho[1][0].item()]
    assert slopes == pytest.approx([0, 0.0973116, 0.1, 0.0973116], abs=5e-8)


def test_a_reference_gets_a_gradient_if_it_asks():
    x, ref = random(6).requires_grad_(), random(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: kl_penalty_loss(a, b), (x, ref))
    assert KLPenaltyLoss("k2")(x, ref).requires_grad


# ------------------------------------------------------------------------------- advantages


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"epsilon": 0.0}, [1.5, -0.5, -0.5, -0.5]),
        ({"scale": "none"}, [0.75, -0.25, -0.25, -0.25]),
        ({"scale": "none", "leave_one_out": True}, [1, -1 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_advantages_in_closed_form(options, values):
    rewards = of(1, 0, 0, 0)
    found = group_advantages(rewards.unsqueeze(0), **options)
    torch.testing.assert_close(found[0], of(*values), rtol=1e-15, atol=0)
    order = torch.tensor([2, 0, 3, 1])
    found = group_advantages(rewards[order], group_ids=torch.full((4,), 9), **options)
    torch.testing.assert_close(found, of(*values)[order])


@pytest.mark.parametrize("scale", ["std", "none", "batch"])
@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE, torch.bfloat16])
@pytest.mark.parametrize("reward", [0.7, 0.1, -1 / 3, 1e30])
def test_equal_rewards_have_advantages_of_exactly_0(reward, dtype, leave_one_out, scale):
    # fp32 mean of eight 0.7 is 6e-8 off; over eps of 1e-8 that is 0.81
    for n in (8, 7, 3, 1):
        rewards = torch.full((2, n), reward, dtype=dtype)
        options = {"epsilon": 1e-8, "scale": scale, "leave_one_out": leave_one_out}
        assert group_advantages(rewards, **options).eq(0).all()
        ids = torch.tensor([4, -1, 4][:n] + [4] * (n - 3))
        assert group_advantages(rewards[0], group_ids=ids, **options).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_list_of_rewards_has_the_digits_of_the_default_dtype(dtype):
    given = [[0.1, 0.7, -1 / 3], [1.0, 0.0, 0.0]]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found = group_advantages(given)
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == dtype
    assert found.equal(group_advantages(torch.tensor(given, dtype=dtype)))


def test_rewards_as_far_apart_as_float32_allows():
    found = group_advantages(torch.tensor([[3e38, -3e38, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, -1.0, 0.0]]))


def test_rewards_that_differ_by_a_digit_do_not_explode():
    rewards = torch.full((1, 8), 0.7)
    rewards[0, 0] = torch.nextafter(rewards[0, 0], torch.tensor(1.0))
    assert group_advantages(rewards).abs().max() < 1e-3  # the default eps


def test_an_answer_that_could_not_be_judged_has_no_part_in_its_group():
    found = group_advantages(
        of(1, math.nan, 0, 0, 0, math.nan), group_ids=torch.tensor([3, 3, 3, 3, 3, 1])
    )
    torch.testing.assert_close(found, of(1.5, 0, -0.5, -0.5, -0.5, 0), rtol=1e-3, atol=0)
    assert found[[1, 5]].tolist() == [0, 0]


def test_the_scale_of_the_batch_is_that_of_all_deviations():
    rewards = of(1, 0, 5, 3).view(2, 2)
    found = group_advantages(rewards, scale="batch", epsilon=0.0)
    d = of(0.5, -0.5, 1, -1)
    torch.testing.assert_close(found.flatten(), d / d.std())


def test_advantages_are_one_graph_without_a_gradient():
    rewards, ids = random(6).requires_grad_(), torch.tensor([0, 0, 1, 1, 1, 0])
    torch.compiler.reset()
    compiled = torch.compile(group_advantages, backend="aot_eager", fullgraph=True)
    found = compiled(rewards, group_ids=ids)
    assert not found.requires_grad
    torch.testing.assert_close(found, group_advantages(rewards, group_ids=ids))


# ----------------------------------------------------------------------- from hidden states


def test_grpo_from_hidden_states_makes_nothing_of_the_size_of_the_logits(largest):
    g = torch.Generator().manual_seed(7)
    classes, width = 640, 8
    hidden = torch.randn(4, 48, width, generator=g, requires_grad=True)
    head = torch.randn(classes, width, generator=g, requires_grad=True)
    target = torch.randint(classes, (4, 48), generator=g)
    target[2, 20:] = -100
    mask = target != -100
    advantage = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))[0]
    with largest() as seen:
        with torch.no_grad():
            old = linear_token_stats(hidden, head, target, scale=0.7, chunk=16).log_prob
        stats = linear_token_stats(1.01 * hidden, head, target, scale=0.7, chunk=16)
        loss = policy_loss(stats.log_prob, old, advantage, mask=mask, average="sequence")
        loss = loss + 0.04 * kl_penalty_loss(stats.log_prob, old, mask=mask, average="sequence")
        loss.backward()
    assert seen.elements < target.numel() * classes / 5
    z = hidden.detach().double().requires_grad_(), head.detach().double().requires_grad_()
    log_p = (0.7 * 1.01 * z[0] @ z[1].T).log_softmax(-1)
    x = log_p.gather(-1, (target * mask).unsqueeze(-1)).squeeze(-1)
    rho, a = (x - old).exp(), advantage.double().unsqueeze(1)
    each = torch.maximum(-rho * a, -rho.clamp(0.8, 1.2) * a)
    each = each + 0.04 * ((old - x).exp() - 1 + x - old)
    want = ((each * mask).sum(1) / mask.sum(1)).mean()
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-6)
    grads = torch.autograd.grad(want, z)
    torch.testing.assert_close(hidden.grad.double(), grads[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(head.grad.double(), grads[1], rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------ errors

X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        ({"old_log_prob": torch.zeros(2, 4)}, "old_log_prob: got shape.*the lengths differ by one"),
        ({"advantage": torch.zeros(3)}, r"advantage: got shape \(3,\).*wanted \(2, 3\) or \(2,\)"),
        ({"advantage": torch.zeros(2, 1)}, r"advantage: got shape \(2, 1\)"),
        ({"average": "constant"}, "nominal_length: got None"),
        ({"nominal_length": 8}, "nominal_length: got 8 with average='token'"),
        ({"ratio": "sequence"}, "average: got 'token' with ratio='sequence'"),
        (
            {"ratio": "sequence", "average": "sequence", "kind": "cispo"},
            "ratio: got 'sequence' with kind='cispo'",
        ),
        ({"dual_clip": 1.0}, "dual_clip: got 1.0, wanted a ratio above 1"),
        ({"clip_low": 1.5}, "clip_low: got 1.5"),
        ({"cap": 0.0}, "cap: got 0.0"),
        ({"sequence_ids": torch.zeros(2, 3).long()}, "a padded batch"),
        ({"mask": torch.ones(2).bool()}, r"mask: got shape \(2,\).* wanted \(2, 3\)$"),
    ],
)
def test_what_is_wrong_is_said_by_name(change, naming):
    call = {"log_prob": X, "old_log_prob": X, "advantage": torch.zeros(2)} | change
    with pytest.raises(ValueError, match=naming):
        policy_loss(**call)


def test_packed_tokens_say_what_they_miss():
    x, ids = torch.zeros(4), torch.tensor([0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"log_prob: got shape .* without sequence_ids"):
        policy_loss(x, x, x, average="sequence")
    with pytest.raises(ValueError, match=r"advantage\[sequence_ids\]"):
        policy_loss(x, x, torch.zeros(2), sequence_ids=ids)
    with pytest.raises(TypeError, match=r"mask: got torch\.float32"):
        policy_loss(x, x, x, mask=torch.ones(4))
