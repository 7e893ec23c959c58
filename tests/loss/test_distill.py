"""Distillation: closed forms, the conventions of other libraries, and known failures."""

import math

import pytest
import torch
from torch.nn import functional as F

from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.core.divergence import Form
from aptt.core.hard import WHOLE
from aptt.loss import DistillationLoss, distillation_loss, distillation_terms

DIVERGENCES = ["forward_kl", "reverse_kl", "jsd"]


def _random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _classes(*shape, classes, seed=1):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def _pair(n=40, c=7):
    return 3 * _random(n, c), 3 * _random(n, c, seed=2), _classes(n, classes=c)


def _value_and_gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss = loss_fn(x)
    loss.sum().backward()
    return loss.detach(), x.grad


def _kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _literal(student, teacher, temperature, divergence, beta=0.5):
    """Each divergence as its paper writes it, per row, without T**2."""
    log_p, log_q = (z.div(temperature).log_softmax(-1) for z in (teacher, student))
    if divergence == "forward_kl":
        return _kl(log_p, log_q)
    if divergence == "reverse_kl":
        return _kl(log_q, log_p)
    log_m = (beta * log_p.exp() + (1 - beta) * log_q.exp()).log()
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


def test_the_sample_of_the_brief():
    student_out, teacher_out, labels = _pair()
    distill_loss = DistillationLoss(temperature=4.0, alpha=0.5)
    loss = distill_loss(student_logits=student_out, teacher_logits=teacher_out, hard_targets=labels)
    soft = F.kl_div(
        F.log_softmax(student_out / 4, 1), F.softmax(teacher_out / 4, 1), reduction="batchmean"
    )
    torch.testing.assert_close(loss, 0.5 * 16 * soft + 0.5 * F.cross_entropy(student_out, labels))


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("temperature", [1.0, 2.7, 4.0])
@pytest.mark.parametrize(
    ("divergence", "beta"), [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.5), ("jsd", 0.1)]
)
def test_each_divergence_is_its_formula(way, temperature, divergence, beta):
    student, teacher, target = _pair()
    target[::5] = -100
    kept = target != -100

    def literal(x):
        soft = temperature**2 * _literal(x, teacher, temperature, divergence, beta)
        return 0.3 * soft[kept].mean() + 0.7 * F.cross_entropy(x, target)

    with way():
        ours = _value_and_gradient(
            lambda x: distillation_loss(
                x,
                teacher,
                hard_targets=target,
                temperature=temperature,
                alpha=0.3,
                divergence=divergence,
                beta=beta,
            ),
            student,
        )
    torch.testing.assert_close(ours, _value_and_gradient(literal, student))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 3.3])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_gradient_by_hand_is_that_of_autograd(divergence, temperature, hard):
    student, teacher, target = 4 * _random(30, 9), 4 * _random(30, 9, seed=3), None
    if hard:
        target = _classes(30, classes=9)
    up = _random(30, seed=4)  # uneven

    def gradient():
        x = student.clone().requires_grad_()
        values = distillation_loss(
            x,
            teacher,
            hard_targets=target,
            alpha=0.4 if hard else 1.0,
            temperature=temperature,
            divergence=divergence,
            reduction="none",
        )
        return values.detach(), torch.autograd.grad(values, x, up)[0]

    with plainly():
        plain = gradient()
    with in_blocks(40) as walked:
        by_hand = gradient()
    assert len(walked.walks) == 2
    torch.testing.assert_close(by_hand, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("hard", [None, 0.6])
@pytest.mark.parametrize("temperature", [1.0, 3.3, 4.0])
@pytest.mark.parametrize("shape", [(30, 9), (3, 9, 7)])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_steps_are_autograd_of_the_definition(
    divergence, shape, temperature, hard, same_as_autograd
):
    student, teacher = 4 * _random(*shape), 4 * _random(*shape, seed=3)
    teacher[1, 4], student[2, 5], teacher[2, 5] = [-torch.inf] * 3
    y = None if hard is None else _classes(shape[0], *shape[2:], classes=3)
    form = Form(temperature, 0.5, 0.4 * temperature**2, hard)
    same_as_autograd(WHOLE[divergence], student, teacher, y, None, form=form)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient(dtype, divergence, way):
    logits = (5 * _random(30, 50)).to(dtype)
    with way():
        value, gradient = _value_and_gradient(
            lambda x: distillation_loss(x, logits, alpha=1.0, divergence=divergence), logits
        )
    assert value == 0
    assert gradient.abs().max() < 1e-6  # torchtune: its forward KL is the entropy here, 1.578


def test_the_middle_of_jsd_is_symmetric_and_at_most_log_2():
    student, teacher, _ = _pair()

    def jsd(a, b):
        return distillation_loss(a, b, alpha=1.0, divergence="jsd", temperature=1.0)

    torch.testing.assert_close(jsd(student, teacher), jsd(teacher, student))
    apart = 1e4 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(jsd(apart, apart.roll(1, 0)), torch.tensor(math.log(2)).double())


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_no_divergence_is_negative_in_half_precision(divergence, way):
    """ms-swift#10156: JSD of log-probabilities in bf16 is -1.7e-4 where it is 5.1e-4."""
    student = _random(64, 2000).mul(1e-2).bfloat16()
    teacher = (student.float() + 1e-3 * _random(64, 2000, seed=5).float()).bfloat16()
    with way():
        values = distillation_loss(
            student, teacher, alpha=1.0, divergence=divergence, temperature=1.0, reduction="none"
        )
    truth = _literal(student.double(), teacher.double(), 1.0, divergence)
    assert (values >= 0).all()
    within = 1e-6 if way is in_one else 3e-7  # log-softmaxes of 2000 classes are rounded at 7.6
    torch.testing.assert_close(values.double(), truth, rtol=0, atol=within)


def test_the_gradient_keeps_its_size_when_the_temperature_rises():
    """distiller#122, keras-io#869: without T**2 it falls with 1 / T**2, to nothing beside CE."""
    student, teacher, _ = _pair(200, 20)
    sizes = [
        _value_and_gradient(
            lambda x, t=t: distillation_loss(x, teacher, alpha=1.0, temperature=t), student
        )[1].norm()
        for t in (50.0, 100.0, 200.0)
    ]
    assert abs(sizes[1] / sizes[0] - 1) < 0.02  # without T**2: 1 / 4
    centred = [z - z.mean(1, keepdim=True) for z in (student, teacher)]
    limit = (centred[0] - centred[1]) / 20 / 200  # Hinton et al. 2015, eq. 4, times T**2
    torch.testing.assert_close(sizes[2], limit.norm(), rtol=0.02, atol=0)


# ------------------------------------------------ the conventions of others, by their formulas


def _mdistiller(s, t, y, a, b, temp):
    soft = F.kl_div(F.log_softmax(s / temp, 1), F.softmax(t / temp, 1), reduction="none")
    return a * F.cross_entropy(s, y) + b * soft.sum(1).mean() * temp**2


def _keras(s, t, y, a, temp):
    soft = _kl((t / temp).log_softmax(1), (s / temp).log_softmax(1)).mean() * temp**2
    return a * F.cross_entropy(s, y) + (1 - a) * soft


def _deit(s, t, y, a, tau):
    log_q, log_p = F.log_softmax(s / tau, 1), F.log_softmax(t / tau, 1)
    soft = F.kl_div(log_q, log_p, reduction="sum", log_target=True) * tau**2 / s.numel()
    return (1 - a) * F.cross_entropy(s, y) + a * soft


def _trl(s, t, beta, temp):
    log_q, log_p = (s / temp).log_softmax(1), (t / temp).log_softmax(1)
    if beta == 0:
        return _kl(log_p, log_q).mean()
    if beta == 1:
        return _kl(log_q, log_p).mean()
    weights = torch.tensor([1 - beta, beta], dtype=s.dtype).log()
    log_m = torch.logsumexp(torch.stack([log_q + weights[0], log_p + weights[1]]), 0)
    return beta * _kl(log_p, log_m).mean() + (1 - beta) * _kl(log_q, log_m).mean()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        pytest.param(
            lambda s, t, y: _mdistiller(s, t, y, 0.1, 0.9, 4.0),
            {"hard_weight": 0.1, "soft_weight": 0.9, "temperature": 4.0},
            id="mdistiller",
        ),
        pytest.param(
            lambda s, t, y: _keras(s, t, y, 0.1, 3.0),
            {"alpha": 0.9, "temperature": 3.0},
            id="Keras",
        ),
        pytest.param(
            lambda s, t, y: _deit(s, t, y, 0.5, 3.0),
            {"soft_weight": 0.5 / 7, "hard_weight": 0.5, "temperature": 3.0},
            id="DeiT",
        ),
        pytest.param(
            lambda s, t, y: 4.0 * _kl((t / 2).log_softmax(1), (s / 2).log_softmax(1)).mean(),
            {"alpha": 1.0, "temperature": 2.0},
            id="NeMo",
        ),
        pytest.param(
            lambda s, t, y: (s.softmax(1) * (s.log_softmax(1) - t.log_softmax(1))).sum(1).mean(),
            {"alpha": 1.0, "temperature": 1.0, "divergence": "reverse_kl"},
            id="torchtune, reverse",
        ),
        pytest.param(
            lambda s, t, y: _trl(s, t, 0.0, 2.0),
            {"soft_weight": 1 / 4, "hard_weight": 0.0, "temperature": 2.0},
            id="Liger and TRL, beta 0",
        ),
        pytest.param(
            lambda s, t, y: _trl(s, t, 1.0, 2.0),
            {
                "soft_weight": 1 / 4,
                "hard_weight": 0.0,
                "temperature": 2.0,
                "divergence": "reverse_kl",
            },
            id="Liger and TRL, beta 1",
        ),
        pytest.param(
            lambda s, t, y: _trl(s, t, 0.2, 2.0),
            {
                "soft_weight": 1 / 4,
                "hard_weight": 0.0,
                "temperature": 2.0,
                "divergence": "jsd",
                "beta": 0.2,
            },
            id="Liger and TRL, between",
        ),
        pytest.param(
            lambda s, t, y: 0.25 * F.cross_entropy(s, y) + 0.75 * _trl(s, t, 0.5, 2.0),
            {
                "soft_weight": 0.75 / 4,
                "hard_weight": 0.25,
                "temperature": 2.0,
                "divergence": "jsd",
            },
            id="Liger, chunked",
        ),
    ],
)
def test_the_table_of_conventions_is_right(theirs, ours):
    student, teacher, target = _pair()
    expected = _value_and_gradient(lambda s: theirs(s, teacher, target), student)
    found = _value_and_gradient(
        lambda s: distillation_loss(s, teacher, hard_targets=target, **ours), student
    )
    torch.testing.assert_close(found, expected)


def test_torchtunes_forward_kl_is_ours_plus_the_entropy_of_the_teacher():
    student, teacher, _ = _pair()
    theirs = _value_and_gradient(
        lambda s: -(teacher.softmax(1) * s.log_softmax(1)).sum(1).mean(), student
    )
    ours = _value_and_gradient(
        lambda s: distillation_loss(s, teacher, alpha=1.0, temperature=1.0), student
    )
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(ours[0] + entropy, theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


def test_transformers_log_target_form_agrees():
    """F.kl_div takes the student first and as log; `mean` divides by C too (LD#74, deit#61)."""
    student, teacher, _ = _pair()
    log_q, log_p = student.log_softmax(1), teacher.log_softmax(1)
    ours = distillation_loss(student, teacher, alpha=1.0, temperature=1.0)
    right = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    torch.testing.assert_close(ours, right)


# ------------------------------------------------------------------- teachers that say a part


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_all_classes_chosen_are_the_whole(divergence, way):
    student, teacher, target = _pair()
    order = torch.rand(40, 7, generator=torch.Generator().manual_seed(6)).argsort(1)
    log_p = (teacher / 2).log_softmax(1).gather(1, order)
    options = {"hard_targets": target, "temperature": 2.0, "divergence": divergence}
    with way():
        some = _value_and_gradient(
            lambda s: distillation_loss(s, log_p, teacher_indices=order, **options), student
        )
        whole = _value_and_gradient(lambda s: distillation_loss(s, teacher, **options), student)
    torch.testing.assert_close(some, whole)


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", [1, 3, 6])  # of 7
def test_the_rest_is_one_more_class(k, divergence, way):
    student, teacher, _ = _pair()
    log_p, chosen = (teacher / 2).log_softmax(1).topk(k)

    def buckets(log_all):
        mine = log_all.gather(1, chosen)
        return torch.cat((mine, (1 - mine.exp().sum(1, keepdim=True)).log()), 1)

    with way():
        found = distillation_loss(
            student,
            log_p,
            teacher_indices=chosen,
            alpha=1.0,
            temperature=2.0,
            divergence=divergence,
        )
    pair = [buckets((z / 2).log_softmax(1)) for z in (student, teacher)]
    torch.testing.assert_close(found, 4 * _literal(*pair, 1.0, divergence).mean())


def test_top_k_cuts_along_the_class_axis_wherever_it_is():
    student, teacher = _random(4, 7, 5), _random(4, 7, 5, seed=2)
    log_p, chosen = teacher.log_softmax(1).topk(3, dim=1)
    options = {"alpha": 1.0, "temperature": 1.0}
    first = distillation_loss(student, log_p, teacher_indices=chosen, class_dim=1, **options)
    s, p, c = (t.movedim(1, -1) for t in (student, log_p, chosen))
    last = distillation_loss(s, p, teacher_indices=c, class_dim=-1, **options)
    rows = distillation_loss(
        s.reshape(20, 7), p.reshape(20, 3), teacher_indices=c.reshape(20, 3), **options
    )
    torch.testing.assert_close(first, rows)
    torch.testing.assert_close(last, rows)


def test_the_likeliest_classes_alone_would_mislead_without_the_rest():
    """Renormalised over the k, a student with the right ratios would pass as perfect."""
    teacher = torch.tensor([[2.0, 1.0, 0.0, 0.0]]).double().log_softmax(1)
    student = teacher + torch.tensor([[0.0, 0.0, 3.0, 3.0]]).double()  # much mass elsewhere
    found = distillation_loss(
        student, teacher[:, :2], teacher_indices=torch.tensor([[0, 1]]), alpha=1.0, temperature=1.0
    )
    assert found > 0.5


# ----------------------------------------------------------------------------- masked classes


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_classes_masked_in_both_are_as_if_they_were_not_there(divergence, way):
    """F.kl_div gives NaN here; Liger pads a smaller vocabulary with 0, which takes its mass."""
    student, teacher, target = _pair()
    options = {"hard_targets": target, "divergence": divergence}
    pad = torch.full((40, 3), -torch.inf).double()
    with way():
        value, gradient = _value_and_gradient(
            lambda s: distillation_loss(s, torch.cat((teacher, pad), 1), **options),
            torch.cat((student, pad), 1),
        )
        bare = _value_and_gradient(lambda s: distillation_loss(s, teacher, **options), student)
    torch.testing.assert_close((value, gradient[:, :7]), bare)
    assert (gradient[:, 7:] == 0).all()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_classes_masked_in_one_model_are_finite(divergence, who, way):
    student, teacher, _ = _pair()
    (student if who == "student" else teacher)[::2, 3] = -torch.inf
    with way():
        value, gradient = _value_and_gradient(
            lambda s: distillation_loss(s, teacher, alpha=1.0, divergence=divergence), student
        )
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[~student.isfinite()] == 0).all()
    if divergence == "forward_kl" and who == "teacher":  # its zeros count nothing, as in NeMo
        p, q = (teacher / 4).softmax(1), (student / 4).log_softmax(1)
        torch.testing.assert_close(value, 16 * (torch.special.xlogy(p, p) - p * q).sum(1).mean())


def test_a_gap_that_underflows_is_exact():
    """mammoth and mdistiller's DKD take the log of a softmax: NaN here."""
    student = torch.tensor([[0.0, 900.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[900.0, 0.0, 0.0]])
    loss = distillation_loss(student, teacher, alpha=1.0, temperature=1.0)
    loss.backward()
    assert loss == 900
    torch.testing.assert_close(student.grad, torch.tensor([[-1.0, 1.0, 0.0]]))


# ----------------------------------------------------------------------- counting and splitting


def test_the_mean_is_over_the_tokens_that_count():
    """deepsuite, sparseml#592: `batchmean` of (B, T, V) logits scales with the length."""
    student, teacher = _random(2, 5, 11), _random(2, 5, 11, seed=2)
    target = _classes(2, 5, classes=11)
    target[:, 3:] = -100
    options = {"temperature": 2.0, "alpha": 0.5}
    whole = distillation_loss(student, teacher, hard_targets=target, **options)
    cut = distillation_loss(
        student[:, :3].reshape(6, 11),
        teacher[:, :3].reshape(6, 11),
        hard_targets=target[:, :3].reshape(6),
        **options,
    )
    torch.testing.assert_close(whole, cut)


def test_ragged_micro_batches_add_up_to_one():
    student, teacher, target = _pair()
    target[::3] = -100
    whole = distillation_loss(student, teacher, hard_targets=target)
    count = (target != -100).sum()

    def shared(total, _, *, term):
        assert term == "distillation"
        return total / count

    parts = [
        distillation_loss(s, t, hard_targets=y, reduction=shared)
        for s, t, y in zip(*(v.split([17, 1, 22]) for v in (student, teacher, target)), strict=True)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_the_terms_add_up_with_their_weights():
    student, teacher, target = _pair()
    target[::3] = -100
    seen = {}

    def noted(total, count, *, term):
        seen[term] = count
        return total / count

    terms = distillation_terms(student, teacher, hard_targets=target, reduction=noted)
    assert {k: int(v) for k, v in seen.items()} == {"soft": 26, "hard": 26}
    whole = distillation_loss(
        student, teacher, hard_targets=target, soft_weight=0.7, hard_weight=2.0
    )
    torch.testing.assert_close(whole, 0.7 * terms["soft"] + 2.0 * terms["hard"])
    torch.testing.assert_close(terms["hard"], F.cross_entropy(student, target))
    assert set(distillation_terms(student, teacher)) == {"soft"}


def test_ignored_rows_may_hold_anything():
    student, teacher, target = _pair()
    target[::4] = -100
    rows = target != -100
    expected = _value_and_gradient(
        lambda s: distillation_loss(s, teacher[rows], hard_targets=target[rows]), student[rows]
    )
    student[~rows], teacher[~rows] = torch.nan, torch.inf
    for way in (plainly, in_blocks, in_one):
        with way():
            value, gradient = _value_and_gradient(
                lambda s: distillation_loss(s, teacher, hard_targets=target), student
            )
        torch.testing.assert_close((value, gradient[rows]), expected)
        assert (gradient[~rows] == 0).all()


def test_a_teacher_learns_only_if_it_is_not_detached():
    student, teacher, target = _pair()
    teacher.requires_grad_()
    loss = distillation_loss(student, teacher, hard_targets=target, detach_teacher=False)
    (gradient,) = torch.autograd.grad(loss, teacher)
    literal = 0.5 * 16 * _literal(student, teacher, 4.0, "forward_kl").mean()
    torch.testing.assert_close(gradient, torch.autograd.grad(literal, teacher)[0])
    kept = distillation_loss(student.requires_grad_(), teacher, hard_targets=target)
    assert torch.equal(kept, loss)
    found = torch.autograd.grad(kept, (student, teacher), allow_unused=True)
    assert found[1] is None
    loss = distillation_loss(student, teacher, hard_targets=target, detach_teacher=False)
    torch.testing.assert_close(found[0], torch.autograd.grad(loss, student)[0])


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_another_layout_gives_the_same(divergence):
    student, teacher, target = _random(3, 9, 6), _random(3, 9, 6, seed=2), _classes(3, 6, classes=9)
    options = {"hard_targets": target, "divergence": divergence}
    first = _value_and_gradient(lambda s: distillation_loss(s, teacher, **options), student)
    for way in (plainly, in_blocks, in_one):
        with way():
            value, gradient = _value_and_gradient(
                lambda s: distillation_loss(s, teacher.movedim(1, -1).contiguous(), **options),
                student.movedim(1, -1),
            )
        torch.testing.assert_close((value, gradient.movedim(-1, 1)), first)


def test_errors_say_what_came_and_what_was_wanted():
    student, teacher, target = _pair()
    with pytest.raises(ValueError, match=r"teacher_logits: got \(40, 6\).*cut both"):
        distillation_loss(student, teacher[:, :6], hard_targets=target)
    with pytest.raises(ValueError, match=r"hard_targets: got None with a hard_weight of 0.5"):
        distillation_loss(student, teacher)
    with pytest.raises(ValueError, match="temperature: got 0"):
        DistillationLoss(temperature=0)
    with pytest.raises(ValueError, match="log-probabilities"):
        distillation_loss(student, teacher, alpha=1.0, teacher_indices=target.expand(7, 40).T)
    for dtype in (torch.int32, torch.uint8):
        whole = distillation_loss(student, teacher, hard_targets=target.to(dtype))
        assert whole == distillation_loss(student, teacher, hard_targets=target)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_sample_weight_of_what_is_ignored_may_be_nan(reduction):
    student, teacher, target = _pair()
    weight = _random(len(target), seed=3).abs()
    target[3] = -100
    options = {"hard_targets": target, "reduction": reduction}
    wanted = distillation_loss(student, teacher, sample_weight=weight, **options)
    weight = weight.clone()
    weight[3] = torch.nan
    found = distillation_loss(student, teacher, sample_weight=weight, **options)
    torch.testing.assert_close(found, wanted)


def test_jsd_in_float64_has_the_beta_that_was_asked_for():
    x, t = torch.tensor([[2.0, 0.0, -1.0]]).double(), torch.tensor([[3.0, 1.0, -4.0]]).double()
    p, q = t.softmax(1), x.softmax(1)
    m = 0.1 * p + 0.9 * q
    wanted = (0.1 * p * (p / m).log() + 0.9 * q * (q / m).log()).sum()
    loss = distillation_loss(x, t, alpha=1.0, temperature=1.0, divergence="jsd", beta=0.1)
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_the_rest_of_the_classes_may_be_far_below_a_chosen_one(divergence):
    x = torch.tensor([[6e4, 0.0, -1.0]], requires_grad=True)
    t, chosen = torch.tensor([[-0.5]]), torch.tensor([[0]])
    loss = distillation_loss(
        x, t, teacher_indices=chosen, alpha=1.0, temperature=1.0, divergence=divergence
    )
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()


def test_log_probabilities_that_were_stored_in_half_precision_are_taken():
    g = torch.Generator().manual_seed(0)
    top = (6 * torch.randn(500, 64, generator=g)).log_softmax(-1).topk(8)
    student = torch.randn(500, 64, generator=g)
    stored = top.values.half().float()
    assert stored.exp().sum(1).max() > 1 + 8 * torch.finfo(torch.float32).eps
    found = distillation_loss(student, stored, teacher_indices=top.indices, alpha=1.0)
    expected = distillation_loss(student, top.values, teacher_indices=top.indices, alpha=1.0)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


def test_a_position_of_weight_0_may_hold_anything():
    log_p, indices = torch.randn(2, 16).log_softmax(1).topk(4)
    student = torch.randn(2, 16)
    alone = distillation_loss(student[:1], log_p[:1], teacher_indices=indices[:1], alpha=1.0)
    log_p[1], indices[1] = torch.nan, -1
    weight = torch.tensor([1.0, 0.0])
    found = distillation_loss(
        student, log_p, teacher_indices=indices, alpha=1.0, sample_weight=weight
    )
    torch.testing.assert_close(found, alone)


def test_a_class_named_twice_is_refused():
    student, log_p = torch.zeros(1, 4), torch.tensor([[-0.2, -1.8, -torch.inf]])
    with pytest.raises(ValueError, match="teacher_indices: got class 0 twice"):
        distillation_loss(student, log_p, teacher_indices=torch.tensor([[0, 1, 0]]), alpha=1.0)


@pytest.mark.parametrize("n", [8, 4096])
def test_a_learned_temperature_gets_its_gradient_at_any_size(n):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(n, 32, generator=g, dtype=torch.float64)
    learned = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    distillation_loss(z, 2 * z, alpha=1.0, temperature=learned).backward()
    step = 1e-5
    up, down = (distillation_loss(z, 2 * z, alpha=1.0, temperature=2.0 + s) for s in (step, -step))
    torch.testing.assert_close(learned.grad, (up - down) / (2 * step), rtol=1e-6, atol=0)


# ------------------------------------------------- hard targets that are soft, smoothed, weighted

FACTORS = torch.tensor([1.0, 2.0, 0.0, 3.0])


def _pair_of_models():
    generator = torch.Generator().manual_seed(5)
    student, teacher = (3 * torch.randn(6, 4, generator=generator).double() for _ in range(2))
    return student, teacher, torch.tensor([0, 1, 3, -100, 2, 1])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"class_weight": FACTORS}, {"weight": FACTORS.double()}),
        ({"class_weight": [1, 2, 0, 3]}, {"weight": FACTORS.double()}),
        ({"label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    ],
)
def test_the_hard_term_is_the_cross_entropy_with_its_options(ours, theirs, reduction):
    student, teacher, target = _pair_of_models()
    given = {"hard_targets": target, "reduction": reduction}
    terms = distillation_terms(student, teacher, **given, **ours)
    wanted = F.cross_entropy(student, target, reduction=reduction, **theirs)
    torch.testing.assert_close(terms["hard"], wanted)
    torch.testing.assert_close(terms["soft"], distillation_terms(student, teacher, **given)["soft"])
    loss = distillation_loss(student, teacher, alpha=0.3, **given, **ours)
    torch.testing.assert_close(loss, 0.3 * terms["soft"] + 0.7 * terms["hard"])
    module = DistillationLoss(alpha=0.3, reduction=reduction, **ours)
    torch.testing.assert_close(module(student, teacher, hard_targets=target), loss)


def test_targets_of_mixup_are_mixed_hard_targets():
    student, teacher, target = _pair_of_models()
    first, second = target.clamp(min=0), target.clamp(min=0).roll(1)
    hot = [F.one_hot(t, 4).double() for t in (first, second)]
    mixed = 0.3 * hot[0] + 0.7 * hot[1]
    parts = [distillation_loss(student, teacher, hard_targets=t) for t in (first, second)]
    loss = distillation_loss(student, teacher, hard_targets=mixed)
    torch.testing.assert_close(loss, 0.3 * parts[0] + 0.7 * parts[1])
    for given in (hot[0], hot[0].tolist()):
        torch.testing.assert_close(
            distillation_loss(student, teacher, hard_targets=given), parts[0]
        )


def test_each_term_is_told_its_count():
    student, teacher, target = _pair_of_models()
    told = {}

    def normalizer(total, count, *, term):
        told[term] = count.item()
        return total / count

    given = {"hard_targets": target, "class_weight": FACTORS}
    for loss in (distillation_loss, distillation_terms):
        told.clear()
        loss(student, teacher, reduction=normalizer, **given)
        assert told == {"soft": 5, "hard": 1 + 2 + 3 + 0 + 2}


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"hard_weight": 0.0, "label_smoothing": 0.1}, ValueError, "hard_targets: got None with"),
        ({"hard_targets": torch.zeros(6)}, TypeError, "hard_targets: got torch.float32 of shape"),
        ({"hard_targets": torch.zeros(6).long(), "label_smoothing": 2.0}, ValueError, "label_smoo"),
        (
            {"hard_targets": torch.zeros(6).long(), "class_weight": [1.0]},
            ValueError,
            "class_weight: ",
        ),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_the_hard_term_refuses(given, error, said):
    student, teacher, _ = _pair_of_models()
    with pytest.raises(error, match=f"^{said}"):
        distillation_loss(student, teacher, **given)


# ------------------------------------------------------------------------------ standardised


def _standard(z):
    z = z - z.mean(1, keepdim=True)
    return z / z.square().mean(1, keepdim=True).sqrt()


@pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_standardized_is_the_divergence_of_standardised_logits(way, divergence):
    """Sun et al. 2024: of [3, 1, -1] they are sqrt(3/2), 0, -sqrt(3/2); labels see what came."""
    student, teacher, target = _pair()
    student[0, :3] = torch.tensor([3.0, 1, -1])
    options = {"temperature": 2.0, "divergence": divergence}

    def literal(x):
        soft = 4 * _literal(_standard(x), _standard(teacher), 2.0, divergence).mean()
        return 0.3 * soft + 0.7 * F.cross_entropy(x, target)

    with way():
        ours = _value_and_gradient(
            lambda x: distillation_loss(
                x, teacher, hard_targets=target, alpha=0.3, standardize=True, **options
            ),
            student,
        )
    torch.testing.assert_close(ours, _value_and_gradient(literal, student))
    terms = distillation_terms(student, teacher, hard_targets=target, standardize=True, **options)
    torch.testing.assert_close(0.3 * terms["soft"] + 0.7 * terms["hard"], ours[0])


def test_standardized_neither_size_nor_level_of_either_side_counts():
    student, teacher, _ = (t.float() for t in _pair())

    def call(a, b):
        return distillation_loss(a, b, alpha=1.0, standardize=True, reduction="none")

    expected = call(student, teacher)
    torch.testing.assert_close(call(64 * student, teacher / 256), expected)
    torch.testing.assert_close(call(student + 1000, teacher), expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(call(student * 1e30, teacher * 1e-30), expected)
    assert (call(7 * teacher - 3, teacher) < 1e-10).all()
    assert call(teacher, teacher).eq(0).all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_standardized_a_row_without_a_spread_has_no_gradient(divergence):
    """torch.std has an infinite gradient there; 0.1 is rounded in every sum."""
    x = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.0] * 4, [5.0, 5, -torch.inf, 5], [1, 2, 3, 4]])
    t = torch.tensor([[1.0, 2, 3, 4]]).repeat(4, 1)
    t[2, 2] = -torch.inf

    def call(x):
        return distillation_loss(x, t, alpha=1.0, standardize=True, divergence=divergence)

    for way in (plainly, in_blocks, in_one):
        with way():
            value, slope = _value_and_gradient(call, x)
        assert value > 0
        assert slope.eq(0).all()
        flat_teacher = distillation_loss(t, x, alpha=1.0, standardize=True, divergence=divergence)
        assert flat_teacher.isfinite()


def test_standardized_masked_classes_have_no_part_in_mean_and_spread():
    student, teacher, _ = _pair()
    wide = [F.pad(z, (0, 2), value=-torch.inf) for z in (student, teacher)]
    options = {"alpha": 1.0, "standardize": True, "reduction": "none"}
    torch.testing.assert_close(
        distillation_loss(*wide, **options), distillation_loss(student, teacher, **options)
    )


def test_standardized_says_what_it_cannot_do():
    student, teacher, _ = _pair()
    with pytest.raises(ValueError, match="student_logits: got 2 classes with standardize"):
        distillation_loss(student[:, :2], teacher[:, :2], alpha=1.0, standardize=True)
    with pytest.raises(ValueError, match="standardize: got True with teacher_indices"):
        distillation_loss(
            student,
            teacher.log_softmax(1)[:, :3],
            teacher_indices=torch.arange(3).expand(40, 3),
            alpha=1.0,
            standardize=True,
        )


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("k", [5, 12])
def test_a_teacher_of_some_classes_keeps_its_digits_at_any_level_of_the_logits(divergence, k):
    """Differences of logits at 5000 and logarithms near 0: 2 % off, if subtracted as they come."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 12, generator=g) + 5000
    near = logits.double() + 1e-2 * torch.randn(4, 12, generator=g, dtype=torch.float64)
    teacher, chosen = near.log_softmax(-1).float().topk(k, -1)
    found = []
    for x in (logits.requires_grad_(), logits.detach().double().requires_grad_()):
        loss = distillation_loss(
            x,
            teacher.to(x.dtype),
            teacher_indices=chosen,
            temperature=1.0,
            alpha=1.0,
            divergence=divergence,
        )
        loss.backward()
        found.append((loss.detach().double(), x.grad.double()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=2e-5, atol=0)
    scale = float(found[1][1].abs().max())
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=2e-5 * scale)
