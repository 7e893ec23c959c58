"""Distillation from hidden states: the numbers of the logits, without the logits."""

import pytest
import torch

import aptt.loss
from aptt.loss import (
    LinearDistillationLoss,
    distillation_loss,
    distillation_terms,
    linear_distillation_loss,
    linear_distillation_terms,
)

N, D, E, V = 24, 8, 12, 1024  # large enough to go in chunks
DIVERGENCES = ["forward_kl", "reverse_kl", "jsd"]


def _inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    target = torch.randint(V, (N,), generator=generator)
    target[::4] = -100
    student = [normal(N, D), normal(V, D), normal(V)]
    return [t.requires_grad_() for t in student], [normal(N, E), normal(V, E), normal(V)], target


def _gradients(loss, leaves, up=None):
    return [loss.detach(), *torch.autograd.grad(loss, leaves, up)]


def _both(student, teacher, target, chunk=None, **options):
    (h, w, b), (th, tw, tb) = student, teacher
    found = linear_distillation_loss(
        h, w, th, tw, bias=b, teacher_bias=tb, hard_targets=target, chunk=chunk, **options
    )
    logits, taught = h @ w.T + b, th @ tw.T + tb
    return found, distillation_loss(logits, taught, hard_targets=target, class_dim=-1, **options)


@pytest.mark.parametrize("chunk", [None, 1, 5, 24, 100])
@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_it_is_that_of_the_logits(divergence, chunk, reduction):
    student, teacher, target = _inputs()
    found, expected = _both(
        student,
        teacher,
        target,
        chunk,
        divergence=divergence,
        alpha=0.3,
        temperature=2.0,
        reduction=reduction,
    )
    up = None
    if reduction == "none":
        up = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(
        _gradients(found, student, up), _gradients(expected, student, up), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_terms_are_those_of_the_logits(divergence, reduction):
    student, teacher, target = _inputs()
    (h, w, b), (th, tw, tb) = student, teacher
    options = {"divergence": divergence, "temperature": 2.0, "reduction": reduction}
    found = LinearDistillationLoss(chunk=5, alpha=0.3, **options).terms(
        h, w, th, tw, bias=b, teacher_bias=tb, hard_targets=target
    )
    expected = distillation_terms(h @ w.T + b, th @ tw.T + tb, hard_targets=target, **options)
    assert list(found) == list(expected) == ["soft", "hard"]
    up = torch.linspace(0.5, 2, N, dtype=torch.float64) if reduction == "none" else None
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    pair = [0.3 * terms["soft"] + 0.7 * terms["hard"] for terms in (found, expected)]
    torch.testing.assert_close(
        *(_gradients(loss, student, up) for loss in pair), rtol=1e-9, atol=1e-12
    )


def test_without_hard_targets_there_is_one_term_and_a_normalizer_hears_its_name():
    (h, w, _), (th, tw, _), target = _inputs()
    (name,) = linear_distillation_terms(h, w, th, tw)
    assert name == "soft"
    heard = {}

    def told(total, count, *, term):
        heard[term] = float(count)
        return total / count

    linear_distillation_terms(h, w, th, tw, hard_targets=target, reduction=told)
    assert heard == {"soft": 18, "hard": 18}


@pytest.mark.parametrize("drop_ignored", [True, False])
def test_ignored_tokens_may_hold_anything(drop_ignored):
    student, teacher, target = _inputs()
    expected = _gradients(_both(student, teacher, target)[1], student)
    with torch.no_grad():
        student[0][::4], teacher[0][::4] = torch.nan, torch.inf
    found = linear_distillation_loss(
        student[0],
        student[1],
        *teacher[:2],
        hard_targets=target,
        bias=student[2],
        teacher_bias=teacher[2],
        drop_ignored=drop_ignored,
    )
    torch.testing.assert_close(_gradients(found, student), expected, rtol=1e-9, atol=1e-12)
    nothing = linear_distillation_loss(
        *student[:2], *teacher[:2], hard_targets=torch.full_like(target, -100)
    )
    assert nothing == 0
    assert all((g == 0).all() for g in torch.autograd.grad(nothing, student[:2]))


@pytest.mark.parametrize("chunk", [1, 5, 24])
def test_half_types_lose_what_their_inputs_lose_at_any_chunk(chunk):
    """Liger#1432: rounding the logits to bf16 costs 4 to 23 per cent of the gradient."""
    student, teacher, target = _inputs(torch.bfloat16)
    options = {"divergence": "jsd", "temperature": 1.0}
    wide = [t.detach().double().requires_grad_() for t in student]
    truth = _gradients(_both(wide, [t.double() for t in teacher], target, **options)[1], wide)
    found = linear_distillation_loss(
        *student[:2],
        *teacher[:2],
        bias=student[2],
        teacher_bias=teacher[2],
        hard_targets=target,
        chunk=chunk,
        **options,
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), truth[0], rtol=1e-5, atol=0)
    for got, want in zip(torch.autograd.grad(found, student), truth[1:], strict=True):
        assert (got.double() - want).norm() / want.norm() < 2**-8


def test_a_frozen_head_and_a_scaled_loss():
    student, teacher, target = _inputs()
    h, w = student[0], student[1].detach()
    loss = linear_distillation_loss(h, w, *teacher[:2], hard_targets=target)
    expected = distillation_loss(h @ w.T, teacher[0] @ teacher[1].T, hard_targets=target)
    for _ in range(2):
        torch.testing.assert_close(
            torch.autograd.grad(3 * loss, h, retain_graph=True)[0],
            torch.autograd.grad(3 * expected, h, retain_graph=True)[0],
        )


def test_a_teacher_that_asks_gets_its_gradient():
    student, teacher, target = _inputs()
    teacher = [t.requires_grad_() for t in teacher]
    found, expected = _both(student, teacher, target, detach_teacher=False)
    leaves = [*student, *teacher]
    torch.testing.assert_close(_gradients(found, leaves), _gradients(expected, leaves))
    for loss in _both(student, teacher, target):
        assert torch.autograd.grad(loss, teacher, allow_unused=True) == (None, None, None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports torch.jit
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_compiled_it_is_one_graph_with_the_chunks_in_it(divergence):
    student, teacher, target = _inputs(torch.float32)
    loss_fn = LinearDistillationLoss(divergence=divergence, chunk=5)

    def loss(h, w, th, tw):
        return loss_fn(h, w, th, tw, hard_targets=target)

    expected = _gradients(loss(*student[:2], *teacher[:2]), student[:2])
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found = _gradients(compiled(*student[:2], *teacher[:2]), student[:2])
    torch.compiler.reset()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_any_leading_shape():
    student, teacher, target = _inputs()
    flat = linear_distillation_loss(
        *student[:2], *teacher[:2], hard_targets=target, reduction="none"
    )
    shaped = linear_distillation_loss(
        student[0].view(4, 6, D),
        student[1],
        teacher[0].view(4, 6, E),
        teacher[1],
        hard_targets=target.view(4, 6),
        reduction="none",
    )
    assert shaped.shape == (4, 6)
    torch.testing.assert_close(shaped.flatten(), flat)


def test_errors_say_what_came_and_what_was_wanted():
    (h, w, _), (th, tw, _), target = _inputs()
    with pytest.raises(ValueError, match="teacher_weight: got 1023 classes, wanted 1024"):
        linear_distillation_loss(h, w, th, tw[1:], hard_targets=target)
    with pytest.raises(ValueError, match=r"teacher_weight: got shape \(1024, 8\)"):
        linear_distillation_loss(h, w, th, w, hard_targets=target)
    with pytest.raises(ValueError, match="teacher_hidden: got shape"):
        linear_distillation_loss(h, w, th[1:], tw, hard_targets=target)
    with pytest.raises(ValueError, match="hard_targets: got None"):
        linear_distillation_loss(h, w, th, tw)
    with pytest.raises(ValueError, match="hard_targets: got shape"):
        linear_distillation_loss(h, w, th, tw, hard_targets=target[1:])
    with pytest.raises(TypeError, match=r"hard_targets: got torch\.float64"):
        linear_distillation_loss(h, w, th, tw, hard_targets=target.double())
    with pytest.raises(ValueError, match="hard_targets: got class 1024"):
        linear_distillation_loss(h, w, th, tw, hard_targets=target.clamp_min(0) * 0 + V)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_what_is_ignored_is_0_where_class_0_is_masked(divergence):
    student, (th, tw, tb), target = _inputs()
    mask = torch.zeros_like(tb)
    mask[0], target = -torch.inf, target.clamp(min=1)
    target[::4] = -100
    found = []
    for drop in (True, False):
        loss = linear_distillation_loss(
            student[0],
            student[1],
            th,
            tw,
            hard_targets=target,
            bias=mask,
            teacher_bias=mask,
            divergence=divergence,
            drop_ignored=drop,
        )
        found.append(_gradients(loss, student[:2]))
        assert all(t.isfinite().all() for t in found[-1])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("chunk", [0, -1, 2.5, "x"])
def test_a_chunk_that_is_no_number_of_tokens_is_refused(chunk):
    (h, w, _), (th, tw, _), target = _inputs()
    with pytest.raises(ValueError, match="chunk: got"):
        linear_distillation_loss(h, w, th, tw, hard_targets=target, chunk=chunk)
    with pytest.raises(ValueError, match="chunk: got"):
        LinearDistillationLoss(chunk=chunk)


def test_a_head_without_classes_is_refused():
    with pytest.raises(ValueError, match="no class"):
        linear_distillation_loss(
            torch.ones(2, 3), torch.ones(0, 3), torch.ones(2, 3), torch.ones(0, 3), alpha=1.0
        )


def _bent(h, w, b, scale, softcap):
    return softcap * torch.tanh(scale * (h @ w.T + b) / softcap)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("engine", ["auto", "plain"])
def test_logits_may_be_scaled_and_bent(divergence, engine):
    student, teacher, target = _inputs()
    options = {"divergence": divergence, "temperature": 2.0}
    with aptt.loss.engine(engine):
        found = linear_distillation_loss(
            *student[:2],
            *teacher[:2],
            bias=student[2],
            teacher_bias=teacher[2],
            hard_targets=target,
            scale=0.4,
            softcap=3.0,
            teacher_scale=2.0,
            teacher_softcap=5.0,
            chunk=5,
            **options,
        )
    expected = distillation_loss(
        _bent(*student, 0.4, 3.0), _bent(*teacher, 2.0, 5.0), hard_targets=target, **options
    )
    found, expected = _gradients(found, student), _gradients(expected, student)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("k", [1, 4, None])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_teacher_may_have_been_asked_before(divergence, k, reduction):
    student, (th, tw, tb), target = _inputs()
    (h, w, b), told, classes = student, th @ tw.T + tb, None
    if k is not None:
        told, classes = (told / 2).log_softmax(-1).topk(k)
    options = {"hard_targets": target, "divergence": divergence, "temperature": 2.0}
    options |= {"reduction": reduction, "teacher_indices": classes}
    given = (h, w, None, None)
    found = linear_distillation_loss(*given, bias=b, teacher_logits=told, chunk=5, **options)
    expected = distillation_loss(h @ w.T + b, told, **options)
    up = torch.linspace(0.5, 2, N, dtype=torch.float64) if reduction == "none" else None
    torch.testing.assert_close(
        _gradients(found, student, up), _gradients(expected, student, up), rtol=1e-9, atol=1e-12
    )
    terms = linear_distillation_terms(*given, bias=b, teacher_logits=told, **options)
    torch.testing.assert_close(0.5 * (terms["soft"] + terms["hard"]), expected)


@pytest.mark.parametrize("which", ["student", "teacher", "both"])
@pytest.mark.parametrize("detach", [True, False])
def test_a_head_may_be_a_callable(which, detach):
    """LoRA: the head's matrix and a product of two thin ones, which alone learn."""
    student, teacher, target = _inputs()
    teacher = [t.requires_grad_() for t in teacher]
    asked = []

    def head(w, b, name):
        def project(h):
            asked.append((name, len(h)))
            return h @ w.T + b

        return project

    options = {"hard_targets": target, "detach_teacher": detach}
    given = {}
    if which == "teacher":
        given["bias"] = student[2]
    if which == "student":
        given["teacher_bias"] = teacher[2]
    found = linear_distillation_loss(
        student[0],
        student[1] if which == "teacher" else head(*student[1:], "student"),
        teacher[0],
        teacher[1] if which == "student" else head(*teacher[1:], "teacher"),
        chunk=5,
        **given,
        **options,
    )
    expected = distillation_loss(
        student[0] @ student[1].T + student[2], teacher[0] @ teacher[1].T + teacher[2], **options
    )
    leaves = student if detach else [*student, *teacher]
    torch.testing.assert_close(
        _gradients(found, leaves), _gradients(expected, leaves), rtol=1e-9, atol=1e-12
    )
    assert max(n for _, n in asked) == 5
    if detach:
        assert torch.autograd.grad(
            linear_distillation_loss(
                student[0], student[1], teacher[0], head(*teacher[1:], "teacher"), **options
            ),
            teacher,
            allow_unused=True,
        ) == (None, None, None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports torch.jit
def test_some_classes_and_bent_logits_compile_into_one_graph():
    (h, w, _), (th, tw, _), target = _inputs(torch.float32)
    told, classes = (th @ tw.T / 4).log_softmax(-1).topk(3)
    loss_fn = LinearDistillationLoss(chunk=5, softcap=3.0, scale=0.5)

    def loss(h, w):
        known = {"teacher_logits": told, "teacher_indices": classes}
        return loss_fn(h, w, None, None, hard_targets=target, **known)

    expected = _gradients(loss(h, w), [h, w])
    torch.compiler.reset()
    found = _gradients(torch.compile(loss, backend="aot_eager", fullgraph=True)(h, w), [h, w])
    torch.compiler.reset()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"teacher_hidden": None}, ValueError, "teacher_hidden: got None"),
        ({"teacher_weight": None}, ValueError, "teacher_weight: got None"),
        ({"teacher_logits": torch.ones(2, 3)}, ValueError, "teacher_hidden: got some with"),
        ({"teacher_indices": torch.ones(2, 3)}, ValueError, "teacher_indices: got some without"),
        ({"weight": torch.nn.Embedding(3, 2)}, TypeError, "weight: got Embedding"),
        ({"teacher_weight": "a"}, TypeError, "teacher_weight: got str"),
        ({"weight": lambda h: h, "bias": torch.ones(3)}, ValueError, "bias: got a tensor with a"),
        ({"weight": lambda h: h[0]}, ValueError, "weight: the callable gave"),
        ({"weight": lambda h: h}, ValueError, "teacher_weight: its head has 3 classes, wanted 2"),
        ({"scale": 0.0}, ValueError, "scale: got 0.0"),
        ({"teacher_softcap": -1.0}, ValueError, "teacher_softcap: got -1.0"),
    ],
)
def test_what_is_no_head_and_no_teacher_is_refused(changed, error, says):
    given = {"hidden": torch.ones(2, 2), "weight": torch.ones(3, 2)}
    given |= {"teacher_hidden": torch.ones(2, 4), "teacher_weight": torch.ones(3, 4)}
    with pytest.raises(error, match=says):
        linear_distillation_loss(**{**given, **changed}, alpha=1.0)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"teacher_logits": torch.ones(2, 4)}, "teacher_logits: got shape"),
        ({"teacher_logits": torch.ones(3, 3)}, "teacher_logits: got shape"),
        ({"teacher_scale": 2.0}, "teacher_scale: got 2.0 with teacher_logits"),
        ({"teacher_indices": torch.ones(2, 2).long()}, "teacher_indices: got"),
        ({"teacher_indices": torch.ones(2, 3).long()}, "teacher_logits, the sum of exp"),
        ({"teacher_logits": -torch.ones(2, 2), "teacher_indices": torch.ones(2, 2).long()},
         "got class 1 twice"),
        ({"teacher_logits": -torch.ones(2, 1), "teacher_indices": torch.full((2, 1), 3)},
         "teacher_indices: got class 3"),
    ],
)  # fmt: skip
def test_what_a_teacher_cannot_have_said_is_refused(changed, says):
    given = {"hidden": torch.ones(2, 2), "weight": torch.ones(3, 2)}
    given |= {"teacher_hidden": None, "teacher_weight": None, "teacher_logits": torch.ones(2, 3)}
    with pytest.raises(ValueError, match=says):
        linear_distillation_loss(**{**given, **changed}, alpha=1.0)


# -------------------------------------------------------- hard terms with a count of their own


def _shares(requires_grad=False):
    generator = torch.Generator().manual_seed(3)
    shares = torch.rand(N, V, generator=generator, dtype=torch.float64) ** 8
    return (shares / shares.sum(1, keepdim=True)).requires_grad_(requires_grad)


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kind", ["class_weight", "label_smoothing", "all", "soft", "soft, all"])
def test_the_hard_term_has_the_options_that_it_has_of_logits(kind, reduction, chunk):
    student, teacher, target = _inputs()
    options = {"divergence": "jsd", "alpha": 0.3, "temperature": 2.0, "reduction": reduction}
    options["sample_weight"] = torch.linspace(0, 2, N, dtype=torch.float64)
    if "all" in kind or kind == "class_weight":
        options["class_weight"] = torch.linspace(0, 3, V, dtype=torch.float64)
    if "all" in kind or kind == "label_smoothing":
        options["label_smoothing"] = 0.1
    target = _shares() if "soft" in kind else target
    up = torch.linspace(-1, 2, N, dtype=torch.float64) if reduction == "none" else None
    found, expected = _both(student, teacher, target, chunk, **options)
    torch.testing.assert_close(
        _gradients(found, student, up), _gradients(expected, student, up), rtol=1e-9, atol=1e-12
    )


def test_soft_targets_and_class_weights_get_a_gradient_where_they_ask():
    student, teacher, _ = _inputs()
    both = []
    for linear in (True, False):
        shares, weight = _shares(True), torch.linspace(1, 3, V).double().requires_grad_()
        options = {"hard_targets": shares, "class_weight": weight}
        if linear:
            loss = linear_distillation_loss(*student[:2], *teacher[:2], chunk=7, **options)
        else:
            logits = student[0] @ student[1].T, teacher[0] @ teacher[1].T
            loss = distillation_loss(*logits, class_dim=-1, **options)
        both.append(_gradients(loss, [*student[:2], shares, weight]))
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-12)


def test_each_term_is_told_its_own_count():
    (h, w, _), (th, tw, _), target = _inputs()
    heard = {}

    def told(total, count, *, term):
        heard[term] = float(count)
        return total / count

    weight = torch.full((V,), 0.5).double()
    linear_distillation_loss(h, w, th, tw, hard_targets=target, class_weight=weight, reduction=told)
    assert heard == {"soft": 18, "hard": 9}


@pytest.mark.parametrize("hard", ["no", "indices", "smoothed"])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_standardized_from_hidden_states(divergence, hard):
    """A chunk holds whole rows, so their mean and spread are at hand."""
    student, teacher, target = _inputs()
    options = {"divergence": divergence, "standardize": True, "alpha": 1.0 if hard == "no" else 0.4}
    if hard != "no":
        options |= {"hard_targets": target}
    if hard == "smoothed":
        options |= {"label_smoothing": 0.1}
    found = linear_distillation_loss(
        *student[:2], *teacher[:2], bias=student[2], softcap=5.0, chunk=7, **options
    )
    logits = 5 * torch.tanh((student[0] @ student[1].T + student[2]) / 5)
    expected = distillation_loss(logits, teacher[0] @ teacher[1].T, **options)
    torch.testing.assert_close(
        _gradients(found, student), _gradients(expected, student), rtol=1e-9, atol=1e-12
    )


def test_of_its_hard_options_it_says_what_is_wrong():
    (h, w, _), (th, tw, _), target = _inputs()
    call = linear_distillation_loss
    with pytest.raises(ValueError, match="hard_targets: got None with class_weight"):
        call(h, w, th, tw, alpha=1.0, class_weight=torch.ones(V))
    with pytest.raises(ValueError, match="hard_targets: got None with label_smoothing"):
        linear_distillation_terms(h, w, th, tw, label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"class_weight: got shape \(3,\)"):
        call(h, w, th, tw, hard_targets=target, class_weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"hard_targets: got shape \(24, 3\)"):
        call(h, w, th, tw, hard_targets=torch.rand(N, 3))
    with pytest.raises(ValueError, match="hard_targets: got 3 shares a token"):
        call(h, lambda x: x @ w.T, th, tw, hard_targets=torch.rand(N, 3))
    with pytest.raises(ValueError, match="ignore_index: got 3 with soft targets"):
        call(h, w, th, tw, hard_targets=_shares(), ignore_index=3)
    with pytest.raises(ValueError, match="weight: got 2 classes with standardize"):
        call(h, w[:2], th, tw[:2], alpha=1.0, standardize=True)
