"""Contrastive losses: closed forms, dense float64 truth, and where others go wrong."""

import math
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from aptt.audit.ways import plainly
from aptt.loss import (
    ContrastiveLoss,
    contrastive_loss,
    ldam_margins,
    margin_loss,
    siglip_loss,
    supcon_loss,
    triplet_loss,
)

E2 = torch.eye(2, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3])


def _rows(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _leaf(t):
    return t.detach().clone().requires_grad_()


# ---------------------------------------------------------------------- closed forms of the notes


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (lambda: contrastive_loss(E2, E2, scale=2.0), 0.126928),
        (lambda: contrastive_loss(E2, E2, scale=1 / 0.07), 6.24875e-7),
        (lambda: contrastive_loss(E2[:1].expand(4, 2), E2[:1].expand(4, 2)), math.log(4)),
        # NT-Xent of two perfect pairs that are orthogonal, at temperature .5
        (lambda: contrastive_loss(E2, E2, scale=2.0, symmetric=True, within=True), 0.239545),
        (lambda: siglip_loss(E2, E2, scale=10.0, bias=-10.0), 0.693193),
        # similarities to P = {1, 0} and to a negative of 0, at temperature 1
        (lambda: _supcon_of_one("out"), 1.051445),
        (lambda: _supcon_of_one("in"), 0.931330),
        (lambda: _triplet_of_one(margin=0.6), 0.1),
        (lambda: _triplet_of_one(margin="soft"), 0.474077),
    ],
)
def test_values_worked_out_by_hand(found, wanted):
    assert found().item() == pytest.approx(wanted, rel=2e-6)


def _turned(own, other):
    """Candidates with these cosines to the two unit vectors, as far as two numbers say it."""
    rest = math.sqrt(1 - own**2 - other**2)
    return torch.tensor([[own, other, rest], [other, own, rest]], dtype=torch.float64)


def test_siglip_of_given_similarities():
    anchors = torch.eye(3, dtype=torch.float64)[:2]
    found = siglip_loss(anchors, _turned(0.5, 0.1), scale=10.0, bias=-5.0)
    own, other = math.log1p(1.0), math.log1p(math.exp(-4.0))
    assert found.item() == pytest.approx(own + other, rel=1e-12)
    assert found.item() == pytest.approx(0.711297, rel=1e-6)


def _supcon_of_one(kind):
    x = torch.eye(3, dtype=torch.float64)[[0, 0, 1, 2]]
    return supcon_loss(x, torch.tensor([0, 0, 0, 1]), scale=1.0, kind=kind, reduction="none")[0]


def _triplet_of_one(**options):
    x = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]], dtype=torch.float64)
    return triplet_loss(x, torch.tensor([0, 0, 1]), reduction="none", **options)[0]


# ------------------------------------------------------------------------------- dense truth


def _dense(a, b, target=None, ids=None, candidate_ids=None, scale=20.0, duplicates="mask"):
    a, b = F.normalize(a, eps=0), F.normalize(b, eps=0)
    s, at = scale * a @ b.T, torch.arange(len(a)) if target is None else target
    own = F.one_hot(at, len(b)).bool()
    if ids is None:
        return F.cross_entropy(s, at, reduction="none")
    same = ids[:, None] == (ids if candidate_ids is None else candidate_ids)
    if duplicates == "mask":
        return F.cross_entropy(s.masked_fill(same & ~own, -torch.inf), at, reduction="none")
    log_p, positive = s.log_softmax(1), same | own
    return -torch.where(positive, log_p, 0).sum(1) / positive.sum(1)


IDS = torch.tensor([4, 4, 9, 2, 9, 4])
CASES = {
    "pairs": {},
    "more candidates": {"m": 11},
    "a shared pool": {"m": 5, "target": torch.tensor([4, 0, 0, 3, 2, 1])},
    "duplicates masked": {"ids": IDS},
    "duplicates positive": {"ids": IDS, "duplicates": "positive"},
    "duplicates of a pool": {
        "m": 8,
        "ids": IDS,
        "candidate_ids": torch.tensor([4, 1, 9, 2, 9, 4, 4, 7]),
        "duplicates": "positive",
    },
}


@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("case", CASES)
def test_dense_truth_at_any_chunk(case, chunk):
    options = dict(CASES[case])
    a, b = _leaf(_rows(6, 5)), _leaf(_rows(options.pop("m", 6), 5, seed=1))
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    up = _rows(6, seed=2)
    want = _dense(a, b, scale=scale, **options)
    wanted = torch.autograd.grad(want, (a, b, scale), up)
    found = contrastive_loss(a, b, scale=scale, chunk=chunk, reduction="none", **options)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(found, (a, b, scale), up)
    for got, wish in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got, wish, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("chunk", [None, 2])
def test_both_ways_and_within(chunk):
    a, b = _rows(5, 4), _rows(5, 4, seed=1)
    ways = (_dense(a, b) + _dense(b, a)) / 2
    found = contrastive_loss(a, b, symmetric=True, chunk=chunk, reduction="none")
    torch.testing.assert_close(found, ways)
    # NT-Xent as SimCLR writes it: 2N views, each against all others
    z = F.normalize(torch.cat((a, b)), eps=0)
    s = (2 * z @ z.T).fill_diagonal_(-torch.inf)
    partner = torch.arange(10).roll(5)
    each = F.cross_entropy(s, partner, reduction="none")
    found = contrastive_loss(a, b, scale=2.0, symmetric=True, within=True, chunk=chunk)
    torch.testing.assert_close(found, each.mean())
    found = contrastive_loss(a, b, scale=2.0, within=True, reduction="none", chunk=chunk)
    torch.testing.assert_close(found, each[:5])


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("duplicates", ["mask", "positive"])
def test_siglip_is_a_sum_of_questions(duplicates, chunk):
    a, b = _rows(6, 5), _rows(6, 5, seed=1)
    z = 3 * F.normalize(a, eps=0) @ F.normalize(b, eps=0).T - 2
    own, same = torch.eye(6, dtype=torch.bool), IDS[:, None] == IDS
    yes = own | same if duplicates == "positive" else own
    weight = torch.where(own | ~same | (yes & same), 1.0, 0.0)
    want = F.binary_cross_entropy_with_logits(z, yes.double(), weight, reduction="none").sum(1)
    found = siglip_loss(
        a, b, scale=3.0, bias=-2.0, ids=IDS, duplicates=duplicates, chunk=chunk, reduction="none"
    )
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("kind", ["out", "in"])
def test_supcon_is_what_the_paper_says(kind, chunk):
    x = _rows(7, 5)
    s = (10 * F.normalize(x, eps=0) @ F.normalize(x, eps=0).T).fill_diagonal_(-torch.inf)
    positive = (LABELS[:, None] == LABELS).fill_diagonal_(False)
    log_p, count = s.log_softmax(1), positive.sum(1)
    if kind == "out":
        want = -torch.where(positive, log_p, 0).sum(1) / count
    else:
        want = -(log_p.masked_fill(~positive, -torch.inf).logsumexp(1) - count.log())
    found = supcon_loss(x, LABELS, kind=kind, chunk=chunk, reduction="none")
    alone = count == 0
    assert alone.sum() == 2
    torch.testing.assert_close(found, want.masked_fill(alone, 0))
    torch.testing.assert_close(supcon_loss(x, LABELS, kind=kind, chunk=chunk), want[~alone].mean())


def test_one_positive_is_info_nce():
    a, b = _rows(4, 5), _rows(4, 5, seed=1)
    pairs = contrastive_loss(a, b, scale=10.0, symmetric=True, within=True)
    for kind in ("out", "in"):
        found = supcon_loss(torch.cat((a, b)), torch.arange(4).repeat(2), kind=kind)
        torch.testing.assert_close(found, pairs)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.7, "soft"])
def test_triplets_one_by_one(margin, squared, chunk):
    x = _rows(7, 3)
    d = torch.cdist(x, x) ** (2 if squared else 1)

    def cost(gap):
        return F.softplus(gap) if margin == "soft" else (gap + margin).clamp(min=0)

    hard, every = [], []
    for i in range(7):
        p = [d[i, j] for j in range(7) if j != i and LABELS[j] == LABELS[i]]
        n = [d[i, j] for j in range(7) if LABELS[j] != LABELS[i]]
        hard.append(cost(max(p) - min(n)) if p else torch.zeros(()).double())
        triplets = [cost(q - r) for q in p for r in n]
        every.append(torch.stack(triplets).mean() if p else torch.zeros(()).double())
    options = {"margin": margin, "squared": squared, "chunk": chunk}
    found = triplet_loss(x, LABELS, reduction="none", **options)
    torch.testing.assert_close(found, torch.stack(hard))
    found = triplet_loss(x, LABELS, mining="all", reduction="none", **options)
    torch.testing.assert_close(found, torch.stack(every))
    found = triplet_loss(x, LABELS, **options)
    torch.testing.assert_close(found, torch.stack(hard).sum() / 5)


# ------------------------------------------------------------------------------ margins


def _of_cosines(own, other=0.0):
    """An embedding with these cosines to two classes at right angles."""
    x = torch.tensor([[own, other, math.sqrt(1 - own**2 - other**2)]], dtype=torch.float64)
    return x, torch.eye(3, dtype=torch.float64)[:2], torch.tensor([0])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"scale": 1.0}, 0.681418),
        ({"scale": 64.0}, 0.199564),
        ({"scale": 1.0, "margin": 0.35, "kind": "cosine"}, 0.620957),
        ({"scale": 1.0, "margin": [0.35, 9.0], "kind": "cosine"}, 0.620957),
    ],
)
def test_margins_of_the_papers(options, wanted):
    assert margin_loss(*_of_cosines(0.5), **options).item() == pytest.approx(wanted, rel=5e-6)


def test_one_class_has_none_to_be_told_from_and_no_class_is_refused():
    x, w, y = _leaf(_rows(3, 4)), _leaf(_rows(1, 4, seed=1)), torch.zeros(3, dtype=torch.long)
    loss = margin_loss(x, w, y)
    assert loss == 0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, (x, w)))
    with pytest.raises(ValueError, match=r"^weight: got no class"):
        margin_loss(x, w[:0], y)


@pytest.mark.parametrize("kind", ["angle", "cosine"])
def test_without_a_margin_it_is_cross_entropy_of_cosines(kind):
    x, w, y = _rows(6, 4), _rows(5, 4, seed=1), torch.tensor([0, 4, 2, -100, 1, 1])
    logits = 7 * F.normalize(x, eps=0) @ F.normalize(w, eps=0).T
    found = margin_loss(x, w, y, margin=0.0, kind=kind, scale=7.0)
    torch.testing.assert_close(found, F.cross_entropy(logits, y))


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_angle_is_turned(chunk):
    x, w, y = _leaf(_rows(6, 4)), _leaf(_rows(5, 4, seed=1)), torch.tensor([0, 4, 2, 3, 1, 1])
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    cosine = F.normalize(x, eps=0) @ F.normalize(w, eps=0).T
    own = F.one_hot(y, 5).bool()
    turned = torch.where(own, (cosine.arccos() + 0.3).cos(), cosine)
    want = F.cross_entropy(scale * turned, y)
    found = margin_loss(x, w, y, margin=0.3, scale=scale, chunk=chunk)
    torch.testing.assert_close(found, want)
    wanted = torch.autograd.grad(want, (x, w, scale))
    for got, wish in zip(torch.autograd.grad(found, (x, w, scale)), wanted, strict=True):
        torch.testing.assert_close(got, wish, rtol=1e-9, atol=1e-13)
    assert gradgradcheck(lambda x, w: margin_loss(x, w, y, scale=9.0, chunk=chunk), (x, w))


@pytest.mark.parametrize("off", [0.0, 1e-20, 1e-4, 1e-3, 0.1])
def test_at_a_cosine_of_one_the_slope_is_bounded(off):
    # insightface's sqrt(1 - cos**2) has an infinite slope here, and is NaN at 1 + 1e-7
    x = torch.tensor([[1.0, off, 0.0]], requires_grad=True)
    w = torch.eye(3)[:2].requires_grad_()
    loss = margin_loss(x, w, torch.tensor([0]))
    grads = torch.autograd.grad(loss, (x, w))
    assert all(g.isfinite().all() for g in grads)
    # of the cosine: cos m + c sin m / max(sin, 0.01), and the other's
    assert grads[0].abs().max() <= 64 * (math.sin(0.5) / 0.01 + 2) * max(off, 1e-6) + 64
    sharp = margin_loss(x.double(), w.double(), torch.tensor([0]))
    torch.testing.assert_close(loss.double(), sharp, rtol=64 * 2**-23, atol=0)  # of a cosine, once


def test_cosines_beyond_one_by_rounding_and_the_opposite():
    g = torch.Generator().manual_seed(0)
    w = torch.randn(50, 7, generator=g)
    y = torch.arange(50)
    for x in (w.clone(), -w, 1e-30 * w):
        x.requires_grad_()
        loss = margin_loss(x, w, y)
        (grad,) = torch.autograd.grad(loss, x)
        assert loss.isfinite()
        assert not grad.isnan().any()


def test_beyond_pi_less_the_margin_it_goes_on_as_arcface_does():
    x, w, y = _of_cosines(-1.0)
    found = margin_loss(x, w, y, margin=0.5, scale=1.0)
    held = -1 - 0.5 * math.sin(0.5)
    assert found.item() == pytest.approx(math.log1p(math.exp(-held)), rel=1e-12)


def test_an_angle_ends_at_a_right_one():
    w, y = torch.eye(2), torch.tensor([0, 1])
    assert margin_loss(w, w, y, margin=torch.tensor([math.pi / 2, 0.1])).isfinite()
    for margin in (1.6, [0.1, 1.6]):
        with pytest.raises(ValueError, match=r"margin: got 1\.6"):
            margin_loss(w, w, y, margin=margin)
        assert margin_loss(w, w, y, margin=margin, kind="cosine").isfinite()


def test_rare_classes_get_the_larger_margin():
    torch.testing.assert_close(ldam_margins([1000, 10]), torch.tensor([0.158114, 0.5]))
    with pytest.raises(ValueError, match="counts: got 0, wanted at least 1"):
        ldam_margins([0, 3])


# ------------------------------------------------------------------------------ the gradient

LOSSES = {
    "InfoNCE": lambda a, b, s, c: contrastive_loss(a, b, scale=s, ids=IDS[:4], chunk=c),
    "NT-Xent": lambda a, b, s, c: contrastive_loss(
        a, b, scale=s, symmetric=True, within=True, chunk=c
    ),
    "several": lambda a, b, s, c: contrastive_loss(
        a, b, scale=s, ids=IDS[:4], duplicates="positive", chunk=c
    ),
    "SigLIP": lambda a, b, s, c: siglip_loss(a, b, scale=s, bias=-s, chunk=c),
    "SupCon": lambda a, b, s, c: supcon_loss(torch.cat((a, b)), _TWICE, scale=s, chunk=c),
    "SupCon in": lambda a, b, s, c: supcon_loss(
        torch.cat((a, b)), _TWICE, scale=s, kind="in", chunk=c
    ),
    "triplet": lambda a, b, s, c: s * triplet_loss(torch.cat((a, b)), _TWICE, chunk=c),
    "all triplets": lambda a, b, s, c: (
        s * triplet_loss(torch.cat((a, b)), _TWICE, mining="all", margin="soft", chunk=c)
    ),
}
_TWICE = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_both_gradients_and_those_of_the_gradients(name, chunk):
    a, b = _leaf(_rows(4, 3)), _leaf(_rows(4, 3, seed=1))
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def loss(a, b, s):
        return LOSSES[name](a, b, s, chunk)

    assert gradcheck(loss, (a, b, scale))
    assert gradgradcheck(loss, (a, b, scale))
    with plainly():
        wanted = torch.autograd.grad(loss(a, b, scale), (a, b, scale))
    found = torch.autograd.grad(loss(a, b, scale), (a, b, scale))
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-14)


# -------------------------------------------------------------- where others go wrong


def test_supcon_at_a_temperature_of_a_hundredth():
    # SupContrast: 79.3 with a gradient of 100, for its maximum takes in the row itself, and + 1e-9
    x = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    x = _leaf(x)
    loss = supcon_loss(x, torch.tensor([0, 0, 1, 1]), scale=100.0, reduction="none")
    torch.testing.assert_close(loss.detach(), torch.full((4,), math.log(3)))
    (grad,) = torch.autograd.grad(loss[0], x)
    # d loss / d s: 1/3 - 1 of the positive, 1/3 of each negative
    assert grad[0, 1].item() == pytest.approx(-100 * 2 / 3, rel=1e-6)


def test_identical_embeddings_cost_the_logarithm_of_the_others():
    x = torch.ones(6, 3, requires_grad=True)
    loss = supcon_loss(x, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert loss.item() == pytest.approx(math.log(5), rel=1e-6)
    (grad,) = torch.autograd.grad(loss, x)
    assert grad.abs().max() < 1e-6
    loss = contrastive_loss(x, x)
    assert loss.item() == pytest.approx(math.log(6), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_vectors_of_zeros(dtype):
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]], dtype=dtype, requires_grad=True)
    b = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=dtype, requires_grad=True)
    for loss in (
        contrastive_loss(a, b, symmetric=True),
        siglip_loss(a, b),
        supcon_loss(a, torch.tensor([0, 0, 1])),
        triplet_loss(a, torch.tensor([0, 0, 1])),
        contrastive_loss(a * 0, b * 0),
    ):
        grads = torch.autograd.grad(loss, (a, b), allow_unused=True)
        assert loss.isfinite()
        assert loss.dtype == torch.float32
        assert all(g is None or g.isfinite().all() for g in grads)
    (grad,) = torch.autograd.grad(contrastive_loss(a, b), a)
    assert (grad[1] == 0).all()
    assert contrastive_loss(a[1:2] * 0, b).item() == pytest.approx(math.log(3))


def test_a_pair_without_any_negative_costs_nothing_and_counts():
    a, b = _leaf(_rows(3, 4)), _rows(3, 4, seed=1)
    one = contrastive_loss(a[:1], b[:1])
    (grad,) = torch.autograd.grad(one, a)
    assert one == 0
    assert (grad == 0).all()
    same = torch.tensor([5, 5, 6])
    found = contrastive_loss(a, b[:3], ids=same, candidate_ids=torch.tensor([5, 5, 5]), weight=None)
    each = contrastive_loss(a, b, ids=same, candidate_ids=torch.tensor([5, 5, 5]), reduction="none")
    assert (each[:2] == 0).all()
    torch.testing.assert_close(found, each.sum() / 3)


def test_a_hopeless_pair_keeps_its_gradient():
    # pytorch-metric-learning's log(num / den + tiny) ends at 87.3, with a gradient of 3e-6
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    b = torch.tensor([[-1.0, 1e-3], [1.0, 0.0]])
    loss = contrastive_loss(a, b, scale=100.0, reduction="none")[0]
    (grad,) = torch.autograd.grad(loss, a)
    assert loss.item() == pytest.approx(200, rel=1e-5)
    assert grad[0].abs().max() > 0.09


def test_the_scale_keeps_half_types_exact():
    # bf16 at scale 100: exact 12.6 is 12.5 where the product is rounded
    a, b = _rows(16, 32).bfloat16(), _rows(16, 32, seed=1).bfloat16()
    want = contrastive_loss(a.double(), b.double(), scale=100.0)
    found = contrastive_loss(a, b, scale=100.0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(want.item(), rel=1e-6)


def test_triplets_of_one_point_cost_the_margin():
    x = torch.ones(6, 3, requires_grad=True)
    target = torch.tensor([0, 0, 0, 1, 1, 1])
    for mining in ("hard", "all"):
        loss = triplet_loss(x, target, margin=0.25, mining=mining)
        (grad,) = torch.autograd.grad(loss, x)
        assert loss.item() == 0.25
        assert (grad == 0).all()
        soft = triplet_loss(x, target, margin="soft", mining=mining)
        assert soft.item() == pytest.approx(math.log(2), rel=1e-6)


def test_no_triplet_and_no_positive_is_zero_on_the_graph():
    x = _leaf(_rows(3, 4))
    for loss in (
        triplet_loss(x, torch.tensor([0, 0, 0])),
        triplet_loss(x, torch.tensor([0, 1, 2]), mining="all"),
        supcon_loss(x, torch.tensor([0, 1, 2])),
        supcon_loss(x[:0], torch.zeros(0, dtype=torch.long)),
        contrastive_loss(x[:0], x[:0]),
        siglip_loss(x[:0], x[:0]),
    ):
        (grad,) = torch.autograd.grad(loss, x)
        assert loss == 0
        assert (grad == 0).all()
    learnt = {"scale": _leaf(torch.tensor(9.0)), "bias": _leaf(torch.tensor(-9.0))}
    siglip_loss(x[:0], x[:0], **learnt).backward()
    assert all(t.grad == 0 for t in learnt.values())


def test_neighbours_far_from_the_origin_are_told_apart():
    # of a matrix product, float32 has no digit left of these distances
    x = torch.tensor([[0.0], [3e-3], [1e-3], [9e-3]]) + 100
    found = triplet_loss(x, torch.tensor([0, 0, 1, 1]), margin=0.0, reduction="none")
    with_truth = triplet_loss(x.double(), torch.tensor([0, 0, 1, 1]), margin=0.0, reduction="none")
    torch.testing.assert_close(found.double(), with_truth, rtol=1e-6, atol=0)


def test_a_removed_pair_is_no_negative_either():
    a, b, weight = _rows(5, 4), _rows(5, 4, seed=1), torch.tensor([1.0, 0, 2, 0, 1])
    left = weight > 0
    a[~left], b[~left] = math.nan, math.inf
    for options in ({}, {"symmetric": True}, {"within": True}, {"ids": torch.arange(5)}):
        some = {k: v[left] if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        found = contrastive_loss(a, b, weight=weight, **options)
        want = contrastive_loss(a[left], b[left], weight=weight[left], **some)
        torch.testing.assert_close(found, want)
    # of a shared pool, a removed anchor leaves the candidates alone
    at, pool = torch.tensor([0, 1, 1, 2, 0]), _rows(3, 4, seed=2)
    found = contrastive_loss(a, pool, target=at, weight=weight)
    want = contrastive_loss(a[left], pool, target=at[left], weight=weight[left])
    torch.testing.assert_close(found, want)


def test_micro_batches_of_anchors_against_all_candidates_are_exact():
    a, b = _leaf(_rows(9, 4)), _leaf(_rows(9, 4, seed=1))
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    whole = torch.autograd.grad(contrastive_loss(a, b, scale=scale), (a, b, scale))

    def share(total, count, *, term):
        return total / 9

    parts = [torch.zeros_like(t) for t in whole]
    for some in torch.arange(9).split([2, 0, 6, 1]):
        loss = contrastive_loss(a[some], b, target=some, scale=scale, reduction=share)
        for part, g in zip(parts, torch.autograd.grad(loss, (a, b, scale)), strict=True):
            part += g
    for part, want in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, want)


def test_a_scale_that_learns():
    loss_fn = ContrastiveLoss(scale=torch.nn.Parameter(torch.tensor(10.0)))
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    loss_fn(a, b).backward()
    assert loss_fn.scale.grad.abs() > 0
    assert [n for n, _ in loss_fn.named_parameters()] == ["scale"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": torch.tensor([0, 1, 9])}, "target: got class 9"),
        ({"target": torch.tensor([0, 1])}, r"target: got shape \(2,\)"),
        ({"symmetric": True, "target": torch.arange(3)}, "symmetric: got True with target"),
        ({"ids": torch.arange(4)}, r"ids: got shape \(4,\)"),
        ({"candidate_ids": torch.arange(3)}, "candidate_ids: got a tensor without ids"),
        ({"scale": 0.0}, "scale: got 0"),
        ({"scale": torch.ones(2)}, r"scale: got shape \(2,\)"),
        ({"duplicates": "drop"}, "duplicates: got 'drop'"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"weight": torch.ones(4)}, r"weight: got shape \(4,\)"),
    ],
)
def test_what_does_not_fit_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        contrastive_loss(torch.randn(3, 2), torch.randn(3, 2), **options)


def test_a_gather_that_does_not_know_where_it_is_is_refused():
    with pytest.raises(TypeError, match=r"gather: got function, wanted aptt\.parallel"):
        contrastive_loss(torch.randn(3, 2), torch.randn(3, 2), gather=lambda t: t)
    with pytest.raises(ValueError, match="candidates: got 2 for 3 anchors"):
        contrastive_loss(torch.randn(3, 2), torch.randn(2, 2))


class _Here:
    """A world of one rank."""

    def __call__(self, rows):
        return rows

    def offset(self, rows):
        return 0


@pytest.mark.parametrize("gather", [None, _Here()])
@pytest.mark.parametrize("name", ["contrastive", "siglip", "supcon", "triplet"])
def test_a_normalizer_hears_that_parts_of_a_batch_have_fewer_negatives(name, gather, told):
    x, options = _rows(7, 3), {"gather": gather, "reduction": told}
    if name in ("supcon", "triplet"):
        loss_fn = {"supcon": supcon_loss, "triplet": partial(triplet_loss, margin=0.3)}[name]
        loss_fn(x, LABELS, **options)
    else:
        {"contrastive": contrastive_loss, "siglip": siglip_loss}[name](x, x, **options)
    assert told.heard == [(name, gather is not None)]


class _After:
    """A world of two ranks: what the first was called with comes before what the second is."""

    def __init__(self):
        self.first = []
        self.second = False

    def __call__(self, rows):
        if not self.second:
            self.first.append(rows)
            return rows
        return torch.cat((self.first.pop(0), rows))

    def offset(self, rows):
        return 3 if self.second else 0


@pytest.mark.parametrize("name", ["contrastive", "siglip", "supcon", "triplet"])
def test_a_second_rank_has_its_part_of_the_whole(name):
    x, y, world = _rows(7, 3), _rows(7, 3, seed=1), _After()
    options = {"gather": world, "reduction": "none"}
    if name in ("supcon", "triplet"):
        y = LABELS
        loss_fn = {"supcon": supcon_loss, "triplet": partial(triplet_loss, margin=0.3)}[name]
    else:
        loss_fn = {"contrastive": contrastive_loss, "siglip": siglip_loss}[name]
    loss_fn(x[:3], y[:3], **options)
    world.second = True
    found, whole = loss_fn(x[3:], y[3:], **options), loss_fn(x, y, reduction="none")
    torch.testing.assert_close(found, whole[3:], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss_fn", [supcon_loss, partial(triplet_loss, margin=0.3)])
def test_a_batch_of_nothing_is_compiled(loss_fn):
    torch._dynamo.reset()
    x = torch.zeros(0, 2, requires_grad=True)
    loss = torch.compile(loss_fn, backend="aot_eager")(x, torch.zeros(0).long())
    (grad,) = torch.autograd.grad(loss, x)
    assert loss == 0
    assert grad.shape == (0, 2)
