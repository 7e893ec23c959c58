"""Learning without forgetting: the paper's equations, heads that grow, and known failures."""

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import LwFLoss, cross_entropy, lwf_loss, lwf_terms


def _random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def _grown(n=20, old=4, new=7):
    targets = torch.randint(old, new, (n,), generator=torch.Generator().manual_seed(1))
    return _random(n, new), targets, _random(n, old, seed=2)


def _literal(now, then, temperature):
    """Eq. 2 to 4, from probabilities: y' = y**(1/T) / sum, and the same for the network now."""

    def softened(logits):
        p = logits.softmax(-1) ** (1 / temperature)
        return p / p.sum(-1, keepdim=True)

    return -(softened(then) * softened(now).log()).sum(-1).mean()


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_it_is_the_papers_formula(temperature):
    new, targets, old = _grown()
    new.requires_grad_()
    loss = LwFLoss(temperature=temperature, lambda_old=1.5)(new, targets, old)
    expected = F.cross_entropy(new, targets) + 1.5 * _literal(new[:, :4], old, temperature)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, new)[0], torch.autograd.grad(expected, new)[0]
    )


def test_the_gradient_of_the_old_term_has_no_t_squared():
    """The authors' vl_nnsoftmaxdiff: (softmax - c) / T."""
    new, targets, old = _grown()
    new.requires_grad_()
    (gradient,) = torch.autograd.grad(lwf_terms(new, targets, old)["old"], new)
    expected = ((new[:, :4] / 2).softmax(1) - (old / 2).softmax(1)) / 2 / len(new)
    torch.testing.assert_close(gradient[:, :4], expected.detach())
    assert (gradient[:, 4:] == 0).all()


def test_the_old_softmax_runs_over_the_old_classes_alone():
    """avalanche#1018: a softmax over all classes, cut afterwards, gives negative losses."""
    new, targets, old = _grown()
    louder = new.clone()
    louder[:, 4:] += 50  # what the new classes say does not matter to the old term
    old_terms = [lwf_terms(logits, targets, old)["old"] for logits in (new, louder)]
    assert old_terms[0] == old_terms[1]


def test_a_head_that_has_grown_is_no_error():
    """deepsuite distils all of the new logits against the old: shapes differ as soon as it grew."""
    new, targets, old = _grown()
    assert lwf_loss(new, targets, old).isfinite()
    index = [6, 0, 2, 5]
    found = lwf_terms(new, targets, old, old_classes=index)["old"]
    torch.testing.assert_close(found, _literal(new[:, index], old, 2.0))


def test_heads_by_task():
    """avalanche#1121: distillation that matched no task was silently zero."""
    targets = torch.randint(3, (20,), generator=torch.Generator().manual_seed(1))
    heads = {
        "cats": _random(20, 4),
        "dogs": _random(20, 2, seed=3),
        "birds": _random(20, 3, seed=4),
    }
    old = {"dogs": _random(20, 2, seed=5), "cats": _random(20, 4, seed=6)}
    terms = lwf_terms(heads, targets, old)
    assert set(terms) == {"new", "old_cats", "old_dogs"}
    expected = (
        F.cross_entropy(heads["birds"], targets)
        + _literal(heads["cats"], old["cats"], 2.0)
        + _literal(heads["dogs"], old["dogs"], 2.0)
    )
    torch.testing.assert_close(lwf_loss(heads, targets, old), expected)
    named = LwFLoss(task="birds")
    torch.testing.assert_close(named(heads, targets, old), expected)
    again = {**old, "birds": heads["birds"]}  # the task that is learnt may have old logits too
    extra = _literal(heads["birds"], heads["birds"], 2.0)
    torch.testing.assert_close(named(heads, targets, again), expected + extra)

    with pytest.raises(ValueError, match=r"old_logits: got tasks \['fish'\]"):
        lwf_loss(heads, targets, {"fish": old["cats"]})
    with pytest.raises(ValueError, match="old_logits: got tasks"):
        lwf_loss(heads, targets, {})
    with pytest.raises(ValueError, match=r"task: got None, wanted one of"):
        lwf_loss(heads, targets, {"cats": old["cats"]})
    with pytest.raises(ValueError, match="task: got 'fish'"):
        lwf_loss(heads, targets, old, task="fish")
    with pytest.raises(TypeError, match="both"):
        lwf_loss(heads, targets, old["cats"])
    with pytest.raises(ValueError, match="old_logits: got 4 classes, wanted 2"):
        lwf_loss(heads, targets, {"cats": old["cats"], "dogs": old["cats"]})
    with pytest.raises(ValueError, match="old_classes"):
        lwf_loss(heads, targets, old, old_classes=[0, 1])


def test_old_classes_in_other_positions_are_only_of_one_head():
    new, targets, old = _grown()
    with pytest.raises(ValueError, match="old_logits: got 8 classes, wanted 1 to 7"):
        lwf_loss(new, targets, _random(20, 8))
    with pytest.raises(ValueError, match="old_classes: got"):
        lwf_loss(new, targets, old, old_classes=[0, 1, 2, 7])


def test_at_rest_the_old_term_is_the_old_entropy():
    """avalanche#1014, #1223: the value is not 0, the gradient is."""
    new, targets, old = _grown()
    new = torch.cat((old, new[:, 4:]), 1).requires_grad_()
    term = lwf_terms(new, targets, old)["old"]
    p = (old / 2).softmax(1)
    torch.testing.assert_close(term.detach(), -(p * p.log()).sum(1).mean())
    assert torch.autograd.grad(term, new)[0].abs().max() < 1e-16


def test_a_gap_that_underflows_is_exact():
    """mammoth takes a power of a softmax, then its log: NaN from a gap of 110 on."""
    new = torch.tensor([[0.0, 900.0, 0.0]], requires_grad=True)
    loss = lwf_terms(new, torch.tensor([2]), torch.tensor([[900.0, 0.0]]))["old"]
    assert loss == 450
    torch.testing.assert_close(torch.autograd.grad(loss, new)[0], torch.tensor([[-0.5, 0.5, 0.0]]))


def test_what_is_ignored_counts_in_neither_term():
    new, targets, old = _grown()
    targets[::3] = -100
    rows = targets != -100
    whole = lwf_loss(new[rows], targets[rows], old[rows])
    new[~rows], old[~rows] = torch.nan, torch.inf
    torch.testing.assert_close(lwf_loss(new, targets, old), whole)
    new.requires_grad_()
    nothing = lwf_loss(new, torch.full_like(targets, -100), old)
    assert nothing == 0
    assert (torch.autograd.grad(nothing, new)[0] == 0).all()


def test_ragged_micro_batches_add_up_to_one():
    new, targets, old = _grown()
    targets[::3] = -100
    seen = {}

    def count(total, count, *, term):
        seen[term] = seen.get(term, 0) + count
        return total

    parts = list(zip(*(t.split([3, 1, 16]) for t in (new, targets, old)), strict=True))
    for part in parts:
        lwf_loss(*part, reduction=count)
    assert set(seen) == {"new", "old"}
    torch.testing.assert_close(seen["new"].double(), seen["old"].double())
    found = sum(lwf_loss(*p, reduction=lambda total, _, *, term: total / seen[term]) for p in parts)
    torch.testing.assert_close(found, lwf_loss(new, targets, old))


def test_classes_masked_in_both_take_no_part():
    new, targets, old = _grown()
    bare = lwf_terms(new, targets, old, old_classes=[0, 1, 2, 3])["old"]
    pad = torch.full((20, 1), -torch.inf).double()
    padded = torch.cat((new[:, :4], pad, new[:, 4:]), 1)
    found = lwf_terms(padded, targets + 1, torch.cat((old, pad), 1))["old"]
    torch.testing.assert_close(found, bare)


def test_the_sample_weight_of_what_is_ignored_may_be_nan():
    new, targets, old = _grown()
    weight = torch.rand(len(targets), dtype=torch.float64)
    targets[3] = -100
    wanted = lwf_loss(new, targets, old, sample_weight=weight)
    weight[3] = torch.nan
    torch.testing.assert_close(lwf_loss(new, targets, old, sample_weight=weight), wanted)


def test_old_logits_of_an_ignored_row_may_be_nan_and_ask_for_a_gradient():
    old = torch.tensor([[0.0, 1.0], [torch.nan, torch.nan]], requires_grad=True)
    loss = lwf_loss(torch.randn(2, 4), torch.tensor([1, -100]), old, detach_teacher=False)
    loss.backward()
    assert (old.grad[0] != 0).all()
    assert old.grad[1].tolist() == [0, 0]


@pytest.mark.parametrize("by_task", [False, True])
@pytest.mark.parametrize("loss", [lwf_loss, lambda *a, **k: LwFLoss(**k)(*a)])
def test_the_old_logits_learn_only_where_they_are_not_detached(loss, by_task):
    new, old = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    head = torch.randn(3, 2, dtype=torch.float64)
    target = torch.tensor([1, 0, 1])
    tasks = ({"a": head, "b": new}, target, {"b": old}) if by_task else (new, target, old)
    free, held = (loss(*tasks, detach_teacher=detached) for detached in (False, True))
    torch.testing.assert_close(free, held, rtol=1e-14, atol=0)
    of_new, of_old = torch.autograd.grad(free, (new, old))
    y, log_p = (old.detach() / 2).softmax(1), (new.detach() / 2).log_softmax(1)
    wanted = -y * (log_p - (y * log_p).sum(1, keepdim=True)) / 2 / 3  # the softmax's slope at T = 2
    torch.testing.assert_close(of_old, wanted, rtol=1e-12, atol=1e-14)
    again, none = torch.autograd.grad(held, (new, old), allow_unused=True)
    assert none is None
    torch.testing.assert_close(again, of_new, rtol=1e-12, atol=1e-14)


def test_old_classes_in_a_tensor_are_told_apart():
    new, old = torch.randn(2, 4), torch.randn(2, 2)
    target = torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"old_classes: got \[1, 1\]"):
        lwf_loss(new, target, old, old_classes=torch.tensor([1, 1]))
    found = lwf_loss(new, target, old, old_classes=torch.tensor([2, 0]))
    torch.testing.assert_close(found, lwf_loss(new, target, old, old_classes=[2, 0]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_first_task_has_no_old_model(dtype):
    new, targets, _ = _grown()
    new, weight = new.to(dtype).requires_grad_(), torch.linspace(0, 2, len(new)).to(dtype)
    want = cross_entropy(new, targets, sample_weight=weight)
    for logits in (new, {"birds": new}):
        loss = LwFLoss()(logits, targets, None, sample_weight=weight)
        assert torch.equal(loss, want)
        (got,) = torch.autograd.grad(loss, new)
        assert torch.equal(got, torch.autograd.grad(want, new, retain_graph=True)[0])
    assert list(lwf_terms(new, targets, None)) == ["new"]
    told = []

    def counted(total, count, *, term):
        told.append(term)
        return total / count

    lwf_loss({"birds": new, "fish": new}, targets, None, task="fish", reduction=counted)
    assert told == ["new"]
    values = lwf_loss(new, targets, None, reduction="none")
    assert values.shape == targets.shape


@pytest.mark.parametrize(
    ("new", "old", "error", "said"),
    [
        (
            {1: 7, "b": 7},
            {"1": 4},
            ValueError,
            r"old_logits: got tasks \['1'\].*; or None",
        ),
        ({1: 7, "b": 7, 3: 7}, {"b": 7}, ValueError, r"task: got None, wanted one of \[1, 3\]"),
        ({1: 7, "b": 7}, None, ValueError, r"task: got None, wanted one of \[1, 'b'\]"),
        ({"b": 7}, [4], TypeError, "old_logits: got list, wanted a tensor or tensors by task"),
        ({"b": None}, None, TypeError, r"new_logits\['b'\]: got NoneType, wanted a tensor"),
    ],
)
def test_tasks_of_any_kind_are_named(new, old, error, said):
    def made(heads):
        if not isinstance(heads, dict):
            return heads
        return {k: None if n is None else torch.zeros(2, n) for k, n in heads.items()}

    with pytest.raises(error, match=said):
        lwf_loss(made(new), torch.tensor([0, 1]), made(old))


def test_old_classes_need_old_logits():
    new, targets, _ = _grown()
    with pytest.raises(ValueError, match="old_classes: got some without old_logits"):
        lwf_loss(new, targets, None, old_classes=[0, 1])


# ------------------------------------------------------------------------ several tasks at once


def _of_two():
    """Twelve images, every other one of birds, one of no task; and a task that none is of."""
    task = torch.arange(12) % 2
    labels = torch.randint(3, (12,), generator=torch.Generator().manual_seed(1))
    targets = {
        name: labels.masked_fill(task != i, -100) for i, name in enumerate(("birds", "fish"))
    }
    targets["birds"][4] = -100
    sizes = {"birds": 4, "fish": 3, "cats": 2}
    new = {name: _random(12, n, seed=n).requires_grad_() for name, n in sizes.items()}
    old = {name: _random(12, n, seed=7 * n) for name, n in sizes.items() if name != "fish"}
    return new, targets, old


def test_a_batch_of_several_tasks():
    """Each image has the cross-entropy of its own head, and all but that of none the old terms."""
    new, targets, old = _of_two()
    terms = LwFLoss().terms(new, targets, old)
    assert list(terms) == ["new_birds", "new_fish", "old_birds", "old_cats"]
    some = torch.arange(12) != 4
    expected = {f"new_{name}": F.cross_entropy(new[name], y) for name, y in targets.items()}
    expected |= {f"old_{name}": _literal(new[name][some], old[name][some], 2.0) for name in old}
    torch.testing.assert_close(terms, expected)
    loss = lwf_loss(new, targets, old, lambda_old=0.5)
    whole = sum(terms[name] * (0.5 if name.startswith("old") else 1.0) for name in terms)
    torch.testing.assert_close(loss, whole)
    gradients = torch.autograd.grad(loss, list(new.values()))
    assert all((g[4] == 0).all() for g in gradients)


def test_one_task_by_name_is_the_task():
    new, targets, old = _of_two()
    expected = lwf_loss(new, targets["fish"], old)
    assert lwf_loss(new, {"fish": targets["fish"]}, old) == expected
    values = lwf_loss(new, targets, old, reduction="none")
    torch.testing.assert_close(values.sum(), lwf_loss(new, targets, old, reduction="sum"))


def test_each_task_is_told_its_own_count():
    new, targets, old = _of_two()
    heard = {}

    def told(total, count, *, term):
        heard[term] = float(count)
        return total / count

    lwf_loss(new, targets, old, reduction=told)
    assert heard == {"new_birds": 5, "new_fish": 6, "old_birds": 11, "old_cats": 11}
    first = lwf_terms(new, targets, None)
    assert list(first) == ["new_birds", "new_fish"]


def test_targets_by_task_are_held_to_the_heads():
    new, targets, old = _of_two()
    with pytest.raises(ValueError, match=r"target: got tasks \['dogs'\]"):
        lwf_loss(new, {"dogs": targets["fish"]}, old)
    with pytest.raises(ValueError, match="task: got 'fish' with targets by task"):
        lwf_loss(new, targets, old, task="fish")
    with pytest.raises(TypeError, match="target: got targets by task with one head"):
        lwf_loss(new["fish"], targets, old["cats"])
    with pytest.raises(ValueError, match=r"target: got shape \(6,\) for new_fish"):
        lwf_loss({**new, "fish": new["fish"][:6]}, {**targets, "fish": targets["fish"][:6]}, old)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (dict(task=3), TypeError, "task: got 3"),
        (dict(old_classes=[0, 0]), ValueError, r"old_classes: got \[0, 0\]"),
        (dict(old_classes=[-1, 0]), ValueError, r"old_classes: got \[-1, 0\]"),
        (dict(old_classes=[0.5]), TypeError, r"old_classes: got \[0\.5\]"),
        (dict(old_classes=4), TypeError, "old_classes: got 4"),
    ],
)
def test_the_module_refuses_at_construction(options, error, said):
    with pytest.raises(error, match=said):
        LwFLoss(**options)
