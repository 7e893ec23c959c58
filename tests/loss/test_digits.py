"""What is left near the optimum: float32 against float64, relatively, whichever way it is taken.

Found by the fuzzer, one test a kind: a number near 1 has no digits for what it lacks of 1.
"""

import inspect
import math

import pytest
import torch

import aptt.loss as L
from aptt.audit.ways import in_blocks, in_one, plainly
from aptt.core.softmax import leading
from tests.fuzz.check import MODULES
from tests.fuzz.draws import LOSSES
from tests.fuzz.fuzz import make

WAYS = pytest.mark.parametrize("way", [plainly, in_blocks, in_one])
BOXES = ("box_iou_loss", "giou_loss", "diou_loss", "ciou_loss", "eiou_loss", "siou_loss")


def _with_gradient(loss, x):
    x = x.clone().requires_grad_()
    value = loss(x)
    return value.detach().double(), torch.autograd.grad(value.sum(), x)[0].double()


def _held(loss, x, way, *, within=2e-5):
    """Value and gradient of float32 numbers are what float64 says of these numbers."""
    x = x.float()
    with way():
        value, grad = _with_gradient(loss, x)
    with plainly():
        truth, slope = _with_gradient(loss, x.double())
    assert bool((truth != 0).any())
    assert bool(((value - truth).abs() <= within * truth.abs()).all())
    row = slope.abs().amax(-1, keepdim=True)  # numbers of a row are sums of each other
    assert bool(((grad - slope).abs() <= within * slope.abs() + 1e-6 * row).all())


def _sure(n=6, classes=5, margin=14.0, seed=0):
    """Logits that are sure of a class, and which."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    noise = torch.randn(n, classes, generator=g, dtype=torch.float64)
    return (noise + margin * torch.nn.functional.one_hot(y, classes)).float(), y


@WAYS
@pytest.mark.parametrize("z_loss", [0.0, 1e-4])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_of_sure_rows(way, soft, z_loss):
    x, y = _sure()
    target = torch.nn.functional.one_hot(y, 5).double() if soft else y
    _held(lambda x: L.cross_entropy(x, target, z_loss=z_loss, reduction="none"), x, way)


@WAYS
def test_cross_entropy_of_one_hot_targets_is_that_of_their_indices(way):
    x, y = _sure(margin=20.0)
    shares = torch.nn.functional.one_hot(y, 5).float()
    with way():
        (soft, slope), (hard, wanted) = (
            _with_gradient(lambda x, t=t: L.cross_entropy(x, t), x) for t in (shares, y)
        )
    torch.testing.assert_close(soft, hard, rtol=1e-6, atol=0)
    torch.testing.assert_close(slope, wanted, rtol=1e-5, atol=1e-14)


@WAYS
@pytest.mark.parametrize("off", [0.0, 1e-3])
def test_distribution_focal_loss_near_its_optimum(way, off):
    x, y = _sure()
    target = (y + off).clamp(max=4).double()
    _held(lambda x: L.distribution_focal_loss(x, target, reduction="none"), x, way)


def test_the_mean_of_a_sure_distribution_has_its_slope():
    x, _ = _sure(margin=20.0)
    grad = _with_gradient(L.expected_value, x)[1]
    p = x.double().softmax(1)
    away = torch.arange(5) - x.argmax(1, keepdim=True)
    closed = p * (away - (p * away).sum(1, keepdim=True))  # p (k - mean), seen from the likeliest
    torch.testing.assert_close(grad, closed, rtol=5e-6, atol=0)


@WAYS
def test_the_statistics_of_sure_tokens(way):
    x, y = _sure()
    up = torch.tensor([1.0, 0.0, -2.0, 0.0])

    def some(x):
        return (torch.stack(L.token_stats(x, y), -1) * up.to(x.dtype)).sum(-1)

    _held(some, x, way)


@WAYS
@pytest.mark.parametrize("name", ["dice_loss", "generalized_dice_loss", "dice_ce_loss"])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_regions_of_soft_targets_that_are_nearly_met(way, name, mode):
    x, y = _sure(n=8, margin=16.0)
    t = torch.nn.functional.one_hot(y, 5).double()
    x = x if mode == "multiclass" else (2 * t - 1) * 12 + 0.1 * x
    x, t = x.T.unsqueeze(0), t.T.unsqueeze(0)
    _held(lambda x: getattr(L, name)(x, t.to(x.dtype), mode=mode), x, way)


@WAYS
@pytest.mark.parametrize("name", ["dice_loss", "boundary_loss", "hausdorff_loss"])
def test_squares_and_distances_of_regions_that_are_nearly_met(way, name):
    x, y = _sure(n=8, margin=16.0)
    x, y = x.T.reshape(1, 5, 2, 4), y.reshape(1, 2, 4)
    options = {"squared": True} if name == "dice_loss" else {}
    _held(lambda x: getattr(L, name)(x, y, **options), x, way)


@WAYS
def test_a_boundary_is_there_however_small_a_power_of_its_distances(way):
    far = torch.tensor([[1.0, 1e-30]]).reshape(1, 2, 1)
    _held(
        lambda x: L.hausdorff_loss(x, torch.zeros(1, 1).long(), distance_map=far.to(x.dtype)),
        torch.zeros(1, 2, 1),
        way,
    )


@WAYS
def test_sure_answers_of_aligned_quality_ask_for_nearly_1(way):
    x, q = torch.tensor([20.0, 12.0, 3.0, -4.0]), torch.tensor([1.0, 1.0, 0.75, 0.5])
    _held(lambda x: L.ia_bce_loss(x, q.to(x.dtype), reduction="none"), x, way)
    wanted = [0.25 * 20 + 1, 0.25 * 12 + 1]  # times 1 - p, by the first term of either
    found = L.ia_bce_loss(x, q, reduction="none")[:2].double() * x[:2].double().exp()
    torch.testing.assert_close(found, torch.tensor(wanted).double(), rtol=1e-4, atol=0)


@WAYS
@pytest.mark.parametrize("off", [1e-3, 0.4, 30.0, -30.0])
def test_either_side_of_a_weighted_penalty_has_the_digits_of_its_difference(way, off):
    reference = torch.tensor([-1.5])
    given = {"kind": "k3", "reduction": "sum"}

    def both(z):
        x, other = z.split(1)
        old = reference.to(z.dtype)
        return L.kl_penalty_loss(x, other, old_log_prob=old, **given).reshape(1)

    with way():
        z = torch.tensor([-1.5, -1.5 - off], requires_grad=True)
        (slope,) = torch.autograd.grad(both(z).sum(), z)
    d = (z[0] - z[1]).detach().double()
    wanted = torch.stack((d, torch.expm1(-d)))
    torch.testing.assert_close(slope.double(), wanted, rtol=1e-6, atol=0)


@WAYS
def test_regions_that_nearly_nothing_is_in(way):
    """The price of a false positive is what little is found, over the square of the whole."""
    target = torch.zeros(2, 2, 2, dtype=torch.float64)
    target[1, 1, 1] = 5.87e-7
    _held(
        lambda x: L.generalized_dice_loss(x, target.to(x.dtype), mode="multilabel"),
        torch.zeros(2, 2, 2),
        way,
    )


def test_weights_of_0_alone_have_no_slope():
    weight = torch.zeros(2, requires_grad=True)
    x, target = torch.zeros(2, 2, 2), torch.tensor([[1, 0], [1, 1]])
    loss = L.generalized_dice_loss(x, target, class_weight=weight, absent="penalize")
    (grad,) = torch.autograd.grad(loss, weight)
    assert loss == 0
    assert grad.tolist() == [0, 0]


def _near(off, seed=0, numbers=4):
    g = torch.Generator().manual_seed(seed)
    low = 100 * torch.rand(9, 2, generator=g)
    t = torch.cat((low, low + 5 + 20 * torch.rand(9, 2, generator=g)), 1)
    if numbers == 5:
        t = torch.cat(
            (low, 5 + 20 * torch.rand(9, 2, generator=g), torch.rand(9, 1, generator=g)), 1
        )
    return (t + off * torch.randn(9, numbers, generator=g)).float(), t.double()


@WAYS
@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("off", [0.3, 1e-2, 1e-3])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_boxes_that_are_nearly_equal(way, name, off, power):
    x, t = _near(off)
    loss = getattr(L, name)
    _held(lambda x: loss(x, t.to(x.dtype), power=power, reduction="none"), x, way, within=5e-5)


@WAYS
@pytest.mark.parametrize("off", [0.1, 1e-3])
def test_rotated_boxes_that_are_nearly_equal(way, off):
    x, t = _near(off, numbers=5)
    x[:, 4] = t[:, 4].float()
    loss = L.probiou_loss
    _held(lambda x: loss(x, t.to(x.dtype), reduction="none"), x, way, within=1e-4)


@WAYS
def test_rotated_boxes_of_no_size_have_the_slope_of_the_least(way):
    x = torch.tensor([[2.0, 0.0, -0.0, -1.0, -1.0], [1.0, 1.0, 0.0, 3.0, 0.2]])
    t = torch.tensor([[2.25, 0.5, 0.25, 0.5, -1.25], [1.0, 1.5, 1.0, 2.0, 0.0]]).double()
    loss = L.probiou_loss
    _held(lambda x: loss(x, t.to(x.dtype), distance="bhattacharyya", reduction="none"), x, way)


def test_a_softmax_seen_from_the_largest_is_exact_and_so_is_its_slope():
    x, y = _sure(margin=30.0)
    z = x.double().requires_grad_()
    lead = leading(z)
    others = z.scatter(1, y[:, None], -torch.inf)
    odds = (others.logsumexp(1) - z.gather(1, y[:, None])[:, 0]).exp()
    torch.testing.assert_close(lead.rest[:, 0], odds, rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(lead.level.sum(), z)
    miss = odds / (1 + odds)  # of log(1 + odds), at the largest -miss
    torch.testing.assert_close(slope.gather(1, y[:, None])[:, 0], -miss, rtol=1e-12, atol=0)


def test_a_tie_and_a_nan_of_a_softmax_seen_from_the_largest():
    lead = leading(torch.tensor([[1.0, 1.0, -torch.inf], [torch.nan, 0.0, 0.0]]))
    assert lead.rest[0].tolist() == [1.0]
    assert lead.rest[1].isnan()
    assert leading(torch.tensor([[torch.nan]])).rest.isnan()


def test_class_weights_have_a_slope_where_no_other_class_is_open():
    x = torch.tensor([[0.0, 0.0], [-torch.inf, 0.0]])
    weight = torch.zeros(2, requires_grad=True)
    loss = L.cross_entropy(
        x, torch.tensor([0, 1]), weight=weight, label_smoothing=1.0, reduction="sum"
    )
    (grad,) = torch.autograd.grad(loss, weight, torch.tensor(3.0))
    assert grad.tolist() == pytest.approx([1.5 * math.log(2)] * 2)


@WAYS
def test_the_price_of_an_edge_outside_is_not_beside_that_of_one_inside(way):
    x = torch.tensor([[0.0, -1.36, 1.4, 0.0]])  # around a target that is a spot
    t = torch.tensor([[1.3356457, -0.9378001, 1.3369545, -0.9376381]]).double()
    _held(lambda x: L.box_iou_loss(x, t.to(x.dtype), reduction="none"), x, way)


@WAYS
def test_widths_of_boxes_that_are_apart_keep_their_digits(way):
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    t = torch.tensor([[-0.37600356, 3.2042449, -0.37585607, 6.2124729]]).double()
    _held(lambda x: L.siou_loss(x, t.to(x.dtype), reduction="none"), x, way)


@WAYS
def test_a_point_has_no_aspect_wherever_it_lies(way):
    x = torch.tensor([[499712.0] * 4])
    t = torch.tensor([[0.0, 0.0, 999424.0, 0.953125]]).double()
    _held(lambda x: L.ciou_loss(x, t.to(x.dtype), reduction="none"), x, way)


@WAYS
def test_classes_that_are_equally_wrong_have_next_to_no_slope(way):
    x = torch.tensor([[[-0.0], [1.0], [-60000.0]], [[0.0], [0.0], [0.0]]], requires_grad=True)
    with way():
        loss = L.wasserstein_dice_loss(x, torch.tensor([[2], [2]]))
    (slope,) = torch.autograd.grad(loss, x)
    assert (slope[0] == 0).all()
    assert (slope[1] != 0).all()


@WAYS
def test_squares_of_what_has_nearly_nothing_in_common(way):
    """The slope of an error that is nearly the whole is that of what is in common."""
    target = torch.zeros(2, 2, 2, dtype=torch.float64)
    target[1, 1, 1] = 3.39e-7
    given = {"mode": "multilabel", "squared": True}
    _held(lambda x: L.dice_loss(x, target.to(x.dtype), **given), torch.zeros(2, 2, 2), way)


def test_a_logarithm_of_sure_pixels_that_weigh_little():
    x, t = torch.tensor([[[8.0], [0.0]], [[0.0], [9.0]]]), torch.tensor([[0], [1]])
    weight = torch.tensor([[1e-3], [1e3]], requires_grad=True)
    _held(lambda x: L.dice_loss(x, t, weight=weight.to(x.dtype), log=True), x, plainly, within=1e-6)


@WAYS
def test_a_share_that_a_rounding_leads_below_0_has_its_slope(way):
    x = torch.tensor([[[53.0, 57.0], [0.0, 29.0]]])
    t = torch.tensor([[[1.0, 0.95], [0.0, 0.0]]]).double()
    _held(lambda x: L.mcc_loss(x, t.float().to(x.dtype)), x, way)


@WAYS
def test_the_skeleton_of_what_is_nearly_sure(way):
    """A ridge is a difference of probabilities near 1: of what they lack of it."""
    sure = torch.tensor([[7.56, 8.29, 9.0], [8.66, 8.23, 8.0], [-3.0, -3.1, -2.9]])
    x, t = torch.stack((sure, -sure)).unsqueeze(0), (sure < 0).long().unsqueeze(0)
    _held(lambda x: L.cl_dice_loss(x, t, iterations=1), x, way, within=1e-5)


@pytest.mark.parametrize("way", [plainly, in_blocks])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("sure", [0.0, 14.0])
@pytest.mark.parametrize("off", [1e-5, 1e-3, 0.1, 3.0])
def test_a_student_near_its_teacher(way, divergence, sure, off):
    teacher = _sure(margin=sure)[0]
    student = teacher + off * _sure(margin=0.0, seed=1)[0]
    given = {"alpha": 1.0, "divergence": divergence, "reduction": "none"}
    _held(lambda x: L.distillation_loss(x, teacher.to(x.dtype), **given), student, way, within=3e-6)
    assert teacher.shape == (6, 5)
    chosen = torch.tensor([[0, 1, 2]]).expand(6, 3)  # and the other two as one class more
    known = (teacher / 4).log_softmax(1).gather(1, chosen)
    with way():
        value = L.distillation_loss(student, known, teacher_indices=chosen, **given)
    truth = L.distillation_loss(student.double(), known, teacher_indices=chosen, **given)
    torch.testing.assert_close(value.double(), truth, rtol=1e-4, atol=1e-6)


@WAYS
def test_weights_of_distillations_that_are_nearly_nothing(way):
    student = torch.tensor([[0.0, 1.0], [-0.613, -0.908]])
    teacher = torch.tensor([[0.0401, 1.0154], [-0.611, -0.907]])
    _held(
        lambda w: L.distillation_loss(
            student.to(w.dtype), teacher.to(w.dtype), sample_weight=w, alpha=1.0
        ),
        torch.ones(2),
        way,
    )


def test_the_teacher_of_a_student_that_nearly_is_it_learns_its_digits():
    off = -0.000472
    teacher = torch.tensor([[0.0, off]], requires_grad=True)
    head = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    loss = L.linear_distillation_loss(
        torch.zeros(1, 2), 0 * head, teacher, head, alpha=1.0, detach_teacher=False
    )
    (grad,) = torch.autograd.grad(loss, teacher)
    p = 1 / (1 + math.exp(-off / 4))
    assert grad[0, 1].item() == pytest.approx(4 * p * (1 - p) * off / 4, rel=2e-6)


FLAGGED = [
    (name, key)
    for name in LOSSES
    for key, arg in inspect.signature(getattr(L, name)).parameters.items()
    if isinstance(arg.default, bool)
]


@pytest.mark.parametrize(("name", "key"), FLAGGED)
def test_an_option_of_two_is_no_number_and_no_name(name, key):
    calls = (make(name, f"flag/{i}") for i in range(20))
    call = next(call for call in calls if not call.wrong)
    for wrong in ("no", 1, None):
        args = call.args | {key: wrong}
        with pytest.raises(TypeError, match=rf"{key}: got {wrong!r}, wanted True or False"):
            getattr(L, name)(**args)
        kind = MODULES.get(name)
        if kind is not None and key in inspect.signature(kind).parameters:
            with pytest.raises(TypeError, match=key):
                kind(**{key: wrong} | _needed(kind, args))


def _needed(kind, args):
    """What the constructor cannot do without."""
    wanted = inspect.signature(kind).parameters.values()
    return {p.name: args[p.name] for p in wanted if p.default is p.empty}
