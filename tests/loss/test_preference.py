"""Preferences: closed forms, empty answers, certain tokens, counts, what others get wrong."""

import math

import pytest
import torch

from aptt.audit.ways import WAYS
from aptt.loss import (
    DPOLoss,
    KTOLoss,
    ORPOLoss,
    Scores,
    SimPOLoss,
    dpo_loss,
    dpo_terms,
    kto_loss,
    kto_terms,
    linear_token_stats,
    orpo_loss,
    orpo_terms,
    sequence_scores,
    simpo_loss,
    simpo_terms,
)
from aptt.loss.preference.leads import HINGE, IPO, LOGISTIC
from aptt.loss.preference.orpo import _CERTAIN, _ODDS
from aptt.loss.preference.prospect import PROSPECT

DOUBLE = torch.float64
LOG2 = math.log(2)


def of(*numbers, dtype=DOUBLE, grad=False):
    return torch.tensor(numbers, dtype=dtype, requires_grad=grad)


# ------------------------------------------------------------------------------ closed forms

_S = Scores(torch.tensor([-10.0]), torch.tensor([2]))
W, L, REF = of(-10), of(-12), {"reference_chosen": of(-11), "reference_rejected": of(-11)}


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 0.598139),
        ({"label_smoothing": 0.1}, 0.618139),
        ({"kind": "robust", "label_smoothing": 0.1}, 0.573139),
        ({"kind": "hinge"}, 0.8),
        ({"kind": "ipo"}, 9.0),  # of sums, for they are no Scores
    ],
)
def test_dpo_in_closed_form(options, value):
    assert dpo_loss(W, L, **REF, **options).item() == pytest.approx(value, abs=5e-7)


def test_the_slope_of_dpo():
    chosen = of(-10, grad=True)
    dpo_loss(chosen, L, **REF).backward()
    assert chosen.grad.item() == pytest.approx(-0.0450166, abs=5e-8)


@pytest.mark.parametrize(
    ("options", "value"), [({"kind": "ipo"}, 18.0625), ({"per_token": True}, 0.656350)]
)
def test_averages_of_answers_of_4_and_2_tokens(options, value):
    def scored(score, tokens):
        return Scores(of(score), torch.tensor([tokens]))

    loss = dpo_loss(
        scored(-10, 4),
        scored(-12, 2),
        reference_chosen=scored(-11, 4),
        reference_rejected=scored(-11, 2),
        **options,
    )
    assert loss.item() == pytest.approx(value, abs=5e-7)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.3}, {"kind": "robust"}])
def test_where_policy_and_reference_agree_it_is_log_2(options):
    x, y = of(-713.25), of(-1000.5)
    loss = dpo_loss(x, y, reference_chosen=x, reference_rejected=y, **options)
    assert loss.item() == pytest.approx(LOG2, abs=1e-15)


def test_the_least_of_smoothed_labels():
    h = of(21.9722, grad=True)
    loss = dpo_loss(h, of(0), label_smoothing=0.1)
    assert loss.item() == pytest.approx(0.325083, abs=5e-7)  # the entropy of 0.1
    loss.backward()
    assert abs(h.grad.item()) < 1e-7


def test_swapping_the_answers_is_the_other_smoothing():
    a, b = dpo_loss(W, L, label_smoothing=0.2), dpo_loss(L, W, label_smoothing=0.8)
    torch.testing.assert_close(a, b)


def test_a_hinge_has_no_slope_at_its_kink():
    chosen = of(10, grad=True)
    dpo_loss(chosen, of(0), kind="hinge").backward()
    assert chosen.grad.item() == 0


def test_robust_falls_without_end():
    far = dpo_loss(of(1e6), of(0), kind="robust", label_smoothing=0.1)
    assert far.item() == pytest.approx(-0.1 * 1e5 / 0.8)


def test_simpo_in_closed_form():
    loss = simpo_loss(of(-1), of(-1.5), beta=2.5, margin=1.375)
    assert loss.item() == pytest.approx(0.757599, abs=5e-7)
    scores = Scores(of(-4), torch.tensor([4])), Scores(of(-3), torch.tensor([2]))
    torch.testing.assert_close(simpo_loss(*scores, beta=2.5, margin=1.375), loss)


def test_simpo_is_dpo_of_averages_with_a_margin():
    scores = Scores(of(-4, -9), torch.tensor([4, 3])), Scores(of(-3, -2), torch.tensor([2, 5]))
    torch.testing.assert_close(
        simpo_loss(*scores), dpo_loss(*scores, per_token=True, beta=2.0, margin=1.0)
    )


def test_a_reward_model_is_trained_by_the_same_function():
    better, worse = of(1.5, -0.3), of(0.2, 0.4)
    want = -torch.nn.functional.logsigmoid(better - worse)
    torch.testing.assert_close(dpo_loss(better, worse, beta=1.0, reduction="none"), want)
    margins = [1.0, 0.25]
    want = -torch.nn.functional.logsigmoid(better - worse - of(*margins))
    found = dpo_loss(better, worse, beta=1.0, pair_margin=margins, reduction="none")
    torch.testing.assert_close(found, want)


def test_orpo_in_closed_form():
    terms = orpo_terms(of(-1), of(-2))
    assert terms["odds"].item() == pytest.approx(0.238183, abs=5e-7)
    assert terms["nll"].item() == 1
    assert orpo_loss(of(-1), of(-2)).item() == pytest.approx(1.023818, abs=5e-7)
    u = {a: math.log(math.expm1(a)) for a in (1, 2)}
    assert (-u[1], -u[2]) == pytest.approx((-0.541325, -1.854587), abs=5e-7)


def test_kto_in_closed_form():
    good = torch.tensor([True, False, True, False])
    found = kto_loss(of(1, -1, 0.5, 0.5), good, baseline=0.5, reduction="none")
    assert found.tolist() == pytest.approx([0.487503, 0.462570, 0.5, 0.5], abs=5e-7)


# ------------------------------------------------------------------------- steps and numbers


@pytest.mark.parametrize("each", [None, torch.linspace(-1, 1, 40, dtype=DOUBLE)])
def test_steps_are_the_slopes_of_their_definitions(each, same_as_autograd):
    h = 12 * torch.randn(40, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    for tilt in (0.0, 0.1, -0.2):
        same_as_autograd(LOGISTIC, h, each, beta=0.3, margin=0.5, tilt=tilt)
    for formula in (HINGE, IPO):
        same_as_autograd(formula, h, each, beta=0.3, margin=0.5)
    good = h.roll(1) > 0
    same_as_autograd(PROSPECT, h, good, beta=0.3, baseline=0.5, good=1.3, bad=0.7)
    pairs = torch.stack((h, h.roll(3)), 1).abs().neg()
    same_as_autograd(_ODDS, pairs)
    same_as_autograd(_ODDS, pairs * _CERTAIN / 6)


CERTAIN = (0.0, -(2.0**-25), -2e-8, -3e-8, -1e-7, -1e-3, -0.3, -1.0, -40.0, -300.0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rejected", [-1e-8, -1e-3, -1.0, -300.0])
@pytest.mark.parametrize("chosen", CERTAIN)
def test_the_odds_of_certain_and_hopeless_answers(chosen, rejected, way):
    # TRL: NaN gradients above -3e-8; Liger: NaN at 0, 19 % off at -5e-8
    a, b = (-torch.tensor(t).item() for t in (chosen, rejected))  # as float32 has them
    x, y = of(chosen, dtype=torch.float32, grad=True), of(rejected, dtype=torch.float32, grad=True)
    with WAYS[way]():
        value = orpo_terms(x, y)["odds"]
        by_x, by_y = torch.autograd.grad(value, (x, y))
    m, k = -math.expm1(-a), -math.expm1(-b)
    gap = a - b
    want = (
        math.log1p(math.exp(gap) * m / k)
        if gap < 0
        else gap + math.log(m / k) + math.log1p(math.exp(-gap) * k / m)
    )
    assert value.item() == pytest.approx(want, rel=1e-6, abs=1e-37)
    fall = math.exp(min(-gap, 700)) * k
    assert by_x.item() == pytest.approx(-1 / (m + fall), rel=2e-6, abs=1e-37)
    assert by_y.item() == pytest.approx(m / (m + fall) / k, rel=2e-6, abs=1e-37)


def test_the_slope_at_a_certain_answer_is_that_of_the_notes():
    for chosen in (0.0, -2e-8, -(2.0**-25)):
        x = of(chosen, dtype=torch.float32, grad=True)
        orpo_terms(x, of(-1, dtype=torch.float32))["odds"].backward()
        assert x.grad.item() == pytest.approx(-1 / (math.e - 1), rel=1e-6)  # -0.58198


def test_a_rejected_answer_that_is_certain_is_capped_with_a_slope():
    for rejected in (0.0, 1e-3):  # above 0 by rounding: as 0
        x, y = of(-1, dtype=torch.float32, grad=True), of(rejected, dtype=torch.float32, grad=True)
        value = orpo_terms(x, y)["odds"]
        value.backward()
        assert value.item() == pytest.approx(math.log(math.expm1(1)) + 30 * LOG2 + 1, rel=1e-6)
        assert y.grad.item() == (pytest.approx(2.0**30, rel=1e-6) if rejected == 0 else 0)


def test_differences_token_by_token_keep_what_long_sums_lose():
    g = torch.Generator().manual_seed(0)
    reference = -torch.rand(2, 4000, generator=g)
    policy = reference + 1e-4 * torch.randn(2, 4000, generator=g)
    truth = (policy.double() - reference.double()).sum(1)
    found = sequence_scores(policy - reference).score
    assert (found - truth).abs().max() < 1e-6
    apart = sequence_scores(policy).score - sequence_scores(reference).score
    assert (apart - truth).abs().max() > 1e-5


def test_a_shift_of_policy_and_reference_changes_nothing():
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    h = sequence_scores((x + 1000) - (0.5 + 1000)), sequence_scores(x - 0.5)
    torch.testing.assert_close(h[0].score, h[1].score, rtol=0, atol=6 * 2**-14)


# ----------------------------------------------------------------------------------- scores


def test_scores_of_padded_packed_and_shuffled_tokens_are_the_same():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(4, 9, generator=g)
    mask = torch.arange(9) < torch.tensor([9, 1, 0, 5])[:, None]
    want = sequence_scores(x.masked_fill(~mask, torch.nan), mask=mask)
    assert want.tokens.tolist() == [9, 1, 0, 5]
    assert want.score[2] == 0
    ids = torch.arange(4)[:, None].expand(4, 9)
    packed, named = x[mask], ids[mask]
    for order in (torch.arange(15), torch.randperm(15, generator=g)):
        found = sequence_scores(packed[order], sequence_ids=named[order], num_sequences=4)
        assert torch.equal(found.score, want.score)
        assert torch.equal(found.tokens, want.tokens)
        some = sequence_scores(packed[order], sequence_ids=3 * named[order])  # the third has none
        assert torch.equal(some.score, want.score[[0, 1, 3]])


def test_masked_tokens_have_no_part_and_no_gradient():
    x = torch.tensor([[-1.0, torch.nan, -2.0, -torch.inf]], requires_grad=True)
    mask = torch.tensor([[True, False, True, False]])
    found = sequence_scores(x, mask=mask)
    assert found.score.item() == -3
    assert found.average.item() == -1.5
    found.score.sum().backward()
    assert x.grad.tolist() == [[1, 0, 1, 0]]


def test_tokens_of_no_sequence_have_no_score_and_a_gradient_of_0():
    x = of(-1, -2, math.nan).requires_grad_()
    found = sequence_scores(x, sequence_ids=torch.tensor([-1, -5, -1]))
    assert found.score.shape == found.tokens.shape == (0,)
    dpo_loss(found, found).backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_half_types_are_summed_in_float32():
    x = torch.full((1, 1000), -0.984375).bfloat16()
    found = sequence_scores(x).score
    assert found.dtype == torch.float32
    assert found.item() == -984.375  # which bfloat16 has as -984


@pytest.mark.parametrize(
    ("change", "error", "naming"),
    [
        ({"mask": torch.ones(2, 3)}, TypeError, "mask: got torch.float32"),
        ({"mask": torch.ones(2, 2).bool()}, ValueError, "the lengths differ by one"),
        ({"sequence_ids": torch.zeros(2, 3).long()}, ValueError, "a padded batch"),
        ({"num_sequences": 2}, ValueError, "without sequence_ids"),
        ({"log_prob": torch.zeros(3)}, ValueError, "without sequence_ids"),
        ({"log_prob": torch.zeros(2, 3).long()}, TypeError, "log_prob: got torch.int64"),
    ],
)
def test_what_cannot_be_scored_is_said(change, error, naming):
    with pytest.raises(error, match=naming):
        sequence_scores(**({"log_prob": torch.zeros(2, 3)} | change))


def test_one_answer_for_a_row_of_scores_is_refused_by_its_shape():
    with pytest.raises(ValueError, match=r"desirable: got shape \(\), wanted \(2,\), that of sco"):
        kto_loss(torch.zeros(2), torch.tensor(True), baseline=0.0)


# ------------------------------------------------------------------------- empty and removed

LOSSES = {
    "dpo": lambda x, y, **o: dpo_loss(x, y, **o),
    "ipo": lambda x, y, **o: dpo_loss(x, y, kind="ipo", **o),
    "simpo": lambda x, y, **o: simpo_loss(x, y, **o),
    "orpo": lambda x, y, **o: orpo_loss(x, y, **o),
    "kto": lambda x, y, **o: kto_loss(x, y.score > -5, reference_score=y, baseline=0.1, **o),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_pair_with_an_empty_answer_is_removed(name):
    g = torch.Generator().manual_seed(3)
    x = -torch.rand(5, 6, generator=g).double()
    y = -torch.rand(5, 6, generator=g).double()
    masks = [torch.arange(6) < torch.tensor(n)[:, None] for n in ([6, 0, 2, 3, 1], [1, 2, 0, 5, 4])]
    x, y = x.requires_grad_(), y.requires_grad_()
    loss = LOSSES[name](sequence_scores(x, mask=masks[0]), sequence_scores(y, mask=masks[1]))
    some = torch.tensor([0, 3, 4])
    want = LOSSES[name](
        sequence_scores(x[some], mask=masks[0][some]), sequence_scores(y[some], mask=masks[1][some])
    )
    torch.testing.assert_close(loss, want)
    grads = torch.autograd.grad(loss, (x, y))
    for a, b in zip(grads, torch.autograd.grad(want, (x, y)), strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b)
    nothing = Scores(of(0, 0, grad=True), torch.tensor([0, 0]))
    assert LOSSES[name](nothing, nothing).item() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_an_answer_of_one_token_has_its_part(name):
    def loss(tokens):
        return LOSSES[name](*(Scores(of(-3, -1) * i, torch.tensor([tokens, 2])) for i in (1, 2)))

    assert loss(1) != loss(0)


def test_likelihood_counts_tokens_and_odds_count_pairs():
    seen = {}

    def share(total, count, *, term):
        seen[term] = count.item()
        return total / count

    x = Scores(of(-4, -9, -1), torch.tensor([4, 3, 0]))
    y = Scores(of(-3, -2, -5), torch.tensor([2, 5, 2]))
    terms = orpo_terms(x, y, reduction=share)
    assert seen == {"nll": 7, "odds": 2}
    assert terms["nll"].item() == pytest.approx(13 / 7)
    orpo_terms(x, y, weight=[2.0, 0.5, 1.0], reduction=share)
    assert seen == {"nll": 2 * 4 + 0.5 * 3, "odds": 2.5}


def test_terms_of_simpo_and_kto_are_those_of_what_counts():
    averages = of(-1, -2, -3), of(-1.5, -1.5, -1.5)
    terms = simpo_terms(*averages, weight=[1.0, 3.0, 0.0], beta=2.0, margin=0.5)
    torch.testing.assert_close(
        terms["preference"], simpo_loss(*averages, weight=[1.0, 3.0, 0.0], beta=2.0, margin=0.5)
    )
    assert terms["accuracy"].item() == 0.25
    assert terms["reward_chosen"].item() == pytest.approx(2 * (-1 - 6) / 4)
    score, good = of(1, 2, -1, 7), torch.tensor([True, True, False, False])
    options = {"mismatched": of(0.25, 0.75), "weight": [1.0, 3.0, 1.0, 0.0], "beta": 0.5}
    terms = kto_terms(score, good, **options)
    torch.testing.assert_close(terms["preference"], kto_loss(score, good, **options))
    assert terms["baseline"].item() == 0.5
    assert terms["reward_desirable"].item() == pytest.approx(0.5 * (1 + 6) / 4)
    assert terms["reward_undesirable"].item() == -0.5
    each = kto_terms(score, good, reduction="none", **options)
    assert each["reward_desirable"].tolist() == [0.5, 3.0, 0.0, 0.0]
    assert KTOLoss(baseline=0.0).terms(score, ~good)["reward_desirable"].item() == pytest.approx(
        0.3
    )
    only = kto_terms(score[:2], good[:2], baseline=0.0)  # none of the other kind: 0, not NaN
    assert only["reward_undesirable"].item() == 0


def test_terms_of_dpo_are_means_over_the_pairs_that_count():
    x, y = of(-10, -3, -7), of(-12, -1, -7)
    terms = dpo_terms(x, y, weight=[1.0, 3.0, 0.0], beta=0.5)
    assert terms["accuracy"].item() == 0.25
    assert terms["reward_chosen"].item() == pytest.approx(0.5 * (-10 - 9) / 4)
    assert terms["reward_rejected"].item() == pytest.approx(0.5 * (-12 - 3) / 4)
    torch.testing.assert_close(
        terms["preference"], dpo_loss(x, y, weight=[1.0, 3.0, 0.0], beta=0.5)
    )
    each = dpo_terms(x, y, reduction="none")
    assert each["accuracy"].tolist() == [1, 0, 0]
    assert DPOLoss(beta=0.5).terms(x, y, weight=[1.0, 3.0, 0.0]) == terms


def test_several_micro_batches_are_the_whole_for_each_loss():
    g = torch.Generator().manual_seed(4)
    x = Scores(-20 * torch.rand(9, generator=g).double(), torch.randint(0, 5, (9,), generator=g))
    y = Scores(-20 * torch.rand(9, generator=g).double(), torch.randint(1, 5, (9,), generator=g))
    for loss_fn in (DPOLoss(), SimPOLoss(), ORPOLoss(), DPOLoss(kind="ipo")):
        counts = {}

        def note(total, count, *, term, counts=counts):
            counts[term] = counts.get(term, 0) + count.item()
            return total

        loss_fn.reduction = note
        parts = [slice(0, 1), slice(1, 4), slice(4, 4), slice(4, 9)]
        cut = [[Scores(*(t[part] for t in s)) for s in (x, y)] for part in parts]
        for pair in cut:
            loss_fn(*pair)
        loss_fn.reduction = lambda total, count, *, term, counts=counts: total / counts[term]
        found = sum(loss_fn(*pair) for pair in cut)
        loss_fn.reduction = "mean"
        torch.testing.assert_close(found, loss_fn(x, y))


# -------------------------------------------------------------------------------------- KTO


def test_z0_is_the_mean_gain_of_mismatched_answers_at_least_0():
    score, good = of(0, 0), torch.tensor([True, False])
    gains = Scores(of(1, 5, torch.nan), torch.tensor([3, 2, 0]))
    found = kto_loss(score, good, mismatched=gains)
    torch.testing.assert_close(found, kto_loss(score, good, baseline=3.0))
    below = kto_loss(score, good, mismatched=of(-1, -5))
    torch.testing.assert_close(below, kto_loss(score, good, baseline=0.0))


def test_z0_has_no_gradient():
    score, gains = of(1, -1, grad=True), of(1, 2, grad=True)
    loss = kto_loss(score, torch.tensor([True, False]), mismatched=gains)
    by_gains = torch.autograd.grad(loss, (score, gains), allow_unused=True)[1]
    assert by_gains is None


def test_z0_over_ranks_is_the_mean_over_all_answers():
    score, good, gains = of(0.5, 1, -2), torch.tensor([True, False, True]), of(1, 2, 6, 3, 3)
    whole = kto_loss(score, good, mismatched=gains, reduction="none")
    parts = [(slice(0, 1), slice(0, 4)), (slice(1, 3), slice(4, 5)), (slice(3, 3), slice(5, 5))]
    sums = [torch.stack((gains[m].sum(), of(len(gains[m])).squeeze())) for _, m in parts]
    found = [
        kto_loss(score[s], good[s], mismatched=gains[m], reduction="none",
                 pool=lambda mine: torch.stack(sums).sum(0))
        for s, m in parts
    ]  # fmt: skip
    torch.testing.assert_close(torch.cat(found), whole)  # mean of means: 3, not 3 of 12 / 4


def test_a_batch_of_one_kind_is_the_sum_over_it():
    score = of(1, 2, grad=True)
    for kind in (True, False):
        good = torch.full((2,), kind)
        loss = kto_loss(score, good, baseline=0.0, undesirable_weight=3.0)
        sign = 1 if kind else -1
        want = (1 - torch.sigmoid(sign * 0.1 * score)).mean() * (1 if kind else 3)
        torch.testing.assert_close(loss, want)
        loss.backward()


def test_kto_asks_for_its_baseline():
    score, good = of(1.0), torch.tensor([True])
    with pytest.raises(ValueError, match="baseline: got neither of them"):
        kto_loss(score, good)
    with pytest.raises(ValueError, match="baseline: got both"):
        KTOLoss(baseline=0.0)(score, good, mismatched=score)


# --------------------------------------------------------------------- from hidden states


def test_dpo_from_hidden_states_makes_nothing_of_the_size_of_the_logits(largest):
    g = torch.Generator().manual_seed(5)
    tokens, width, classes = 48, 8, 640
    hidden = torch.randn(4, tokens, width, generator=g, requires_grad=True)
    head = torch.randn(classes, width, generator=g, requires_grad=True)
    target = torch.randint(classes, (4, tokens), generator=g)
    target[:, :10] = -100  # the prompts
    target[1, 30:] = -100

    def score(h, w):
        stats = linear_token_stats(h, w, target, chunk=16)
        return stats.log_prob

    with largest() as seen:
        with torch.no_grad():
            reference = score(hidden * 0.9, head)
        gain = sequence_scores(score(hidden, head) - reference, mask=target != -100)
        loss = dpo_loss(Scores(*(t[:2] for t in gain)), Scores(*(t[2:] for t in gain)))
        loss.backward()
    assert seen.elements < target.numel() * classes / 5
    z = hidden.detach().double().requires_grad_(), head.detach().double().requires_grad_()

    def dense(h):
        log_p = (h @ z[1].T).log_softmax(-1)
        keep = target != -100
        at = (target * keep).unsqueeze(-1)
        return (log_p.gather(-1, at).squeeze(-1) * keep).sum(1)

    gain = dense(z[0]) - dense(z[0].detach() * 0.9).detach()
    want = torch.nn.functional.softplus(-0.1 * (gain[:2] - gain[2:])).mean()
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=0)
    grads = torch.autograd.grad(want, z)
    torch.testing.assert_close(hidden.grad.double(), grads[0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(head.grad.double(), grads[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "naming"),
    [
        (lambda: dpo_loss(W, of(1, 2)), r"rejected: got shape \(2,\), wanted \(1,\)"),
        (lambda: dpo_loss(W, L, reference_chosen=W), "reference_rejected: got None"),
        (lambda: dpo_loss(W, L, per_token=True), "per_token: got True"),
        (
            lambda: dpo_loss(_S, _S, reference_chosen=W, reference_rejected=L, per_token=True),
            "reference_chosen: got numbers beside Scores",
        ),
        (lambda: dpo_loss(_S, L, kind="ipo"), "rejected: got numbers beside Scores"),
        (lambda: dpo_loss(W, L, kind="ipo", label_smoothing=0.1), "label_smoothing: got 0.1"),
        (lambda: dpo_loss(W, L, kind="robust", label_smoothing=0.5), "label_smoothing: got 0.5"),
        (lambda: dpo_loss(Scores(W, torch.ones(2).long()), L), r"chosen.tokens: got shape \(2,\)"),
        (lambda: orpo_loss(of(12.0), L), "chosen: got 12 a token, wanted log-probabilities"),
        (lambda: orpo_loss(W, L, reduction="none"), "reduction: got 'none'"),
        (lambda: simpo_loss(W, L, weight=[1.0, 2.0]), r"weight: got shape \(2,\)"),
        (lambda: simpo_loss(W, L, margin=1.5e30), r"margin: got 1.5e\+30"),
        (lambda: simpo_loss(W, L, margin=-1.5e30), r"margin: got -1.5e\+30"),
        (lambda: dpo_loss(W, L, margin=1.5e30), r"margin: got 1.5e\+30"),
        (lambda: dpo_loss(W, L, margin=-1.5e30), r"margin: got -1.5e\+30"),
    ],
)
def test_what_is_wrong_is_said_by_name(call, naming):
    with pytest.raises(ValueError, match=naming):
        call()


@pytest.mark.parametrize("name", LOSSES)
def test_tokens_are_a_tensor_beside_the_scores(name):
    good = Scores(of(-3, -1), torch.tensor([1, 2]))
    for tokens in ([1, 2], torch.tensor([1, 2], device="meta")):
        with pytest.raises((TypeError, ValueError), match=r"^(chosen|score)\.tokens: got "):
            LOSSES[name](good._replace(tokens=tokens), good)


def test_half_scores_are_divided_by_their_tokens_in_float32():
    one, none = (
        Scores(torch.tensor([v], dtype=torch.bfloat16), torch.tensor([7])) for v in (1.0, 0.0)
    )
    found = dpo_loss(one, none, per_token=True, beta=1.0)
    assert found.item() == pytest.approx(math.log1p(math.exp(-1 / 7)), rel=1e-6)
