"""Keypoints: COCO's formula written out, and the known failures of mmpose and ultralytics."""

import math

import pytest
import torch

from aptt.loss import (
    AdaptiveWingLoss,
    KeypointLoss,
    WingLoss,
    adaptive_wing_loss,
    heatmap_loss,
    keypoint_loss,
    wing_loss,
)
from aptt.loss.keypoint import SIGMAS
from aptt.loss.keypoint.sigmas import sigmas_of


def _instances(n=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    target = 100 * torch.rand(n, 17, 2, generator=g, dtype=torch.float64)
    pred = target + 5 * torch.randn(n, 17, 2, generator=g, dtype=torch.float64)
    visibility = torch.randint(3, (n, 17), generator=g)
    visibility[:, 0] = 2
    area = 1000 + 5000 * torch.rand(n, generator=g, dtype=torch.float64)
    return pred, target, visibility, area


def test_sigmas_are_those_of_the_files_that_define_them():
    """``kpt_oks_sigmas`` in cocoeval.py of cocoapi and of CrowdPose, ten times each."""
    pairs = {
        "coco": (0.25, 0.35, 0.79, 0.72, 0.62, 1.07, 0.87, 0.89),
        "crowdpose": (0.79, 0.72, 0.62, 1.07, 0.87, 0.89, 0.79),
    }
    alone = {"coco": [0.26], "crowdpose": []}
    for name, known in pairs.items():
        wanted = alone[name] + [v for v in known for _ in range(2)]
        found = 10 * sigmas_of(name, torch.zeros(len(wanted), 2).double())
        assert found.tolist() == pytest.approx(wanted, rel=1e-12)


def test_sigmas_are_those_of_cocos_evaluation():
    params = pytest.importorskip("faster_coco_eval.core.cocoeval").Params(iouType="keypoints")
    assert SIGMAS["coco"] == pytest.approx(list(params.kpt_oks_sigmas), rel=1e-12)


def _coco_oks(pred, target, visibility, area, sigmas=SIGMAS["coco"]):
    """One instance, as the COCO evaluation computes it."""
    found = []
    for (x, y), (u, v), seen, sigma in zip(
        pred.tolist(), target.tolist(), visibility.tolist(), sigmas, strict=True
    ):
        if seen > 0:
            e = ((x - u) ** 2 + (y - v) ** 2) / (2 * sigma) ** 2 / area / 2
            found.append(math.exp(-e))
    return sum(found) / len(found)


def _gradient(loss, x):
    x = x.clone().requires_grad_()
    loss(x).sum().backward()
    return x.grad


def test_one_minus_oks_of_the_coco_evaluation():
    pred, target, visibility, area = _instances()
    oks = [_coco_oks(*one) for one in zip(pred, target, visibility, area.tolist(), strict=True)]
    found = keypoint_loss(pred, target, visibility, area, reduction="none")
    assert found.tolist() == pytest.approx([1 - value for value in oks], rel=1e-12)
    loss = KeypointLoss(sigmas="coco")(pred, target, visibility, area)
    assert loss.item() == pytest.approx(1 - sum(oks) / 5, rel=1e-12)
    log = keypoint_loss(pred, target, visibility, area, kind="log", reduction="none")
    assert log.tolist() == pytest.approx([-math.log(value) for value in oks], rel=1e-10)
    box = keypoint_loss(pred, target, visibility, area / 0.53, area_scale=0.53)
    torch.testing.assert_close(box, loss)


def test_cauchy_by_its_formula():
    pred, target, visibility, area = _instances(1)
    total, n = 0.0, 0
    for k in range(17):
        if visibility[0, k] > 0:
            d2 = (pred[0, k] - target[0, k]).square().sum().item()
            total += math.log(1 + d2 / (8 * SIGMAS["coco"][k] ** 2 * area.item()))
            n += 1
    found = keypoint_loss(pred, target, visibility, area, kind="cauchy")
    assert found.item() == pytest.approx(total / n, rel=1e-12)


def test_the_loss_is_at_most_one_where_mmpose_subtracts_the_sum():
    # OKSLoss without weights is 1 minus the sum over points: -13.8 for 17 of them
    pred, target, _, area = _instances()
    two = torch.full((5, 17), 2)
    values = keypoint_loss(pred, target, two, area, reduction="none")
    assert (values > 0).all()
    assert (values < 1).all()


def test_hidden_points_do_not_dilute_where_mmpose_divides_by_all():
    # with 9 of 17 hidden, mmpose gives 0.633 for 0.220
    pred, target, visibility, area = _instances(1)
    visibility[:] = 2
    visibility[0, 8:] = 0
    shown = keypoint_loss(pred[:, :8], target[:, :8], visibility[:, :8], area,
                          sigmas=torch.tensor(SIGMAS["coco"][:8], dtype=torch.float64))  # fmt: skip
    torch.testing.assert_close(keypoint_loss(pred, target, visibility, area), shown)


@pytest.mark.parametrize("kind", ["oks", "log", "cauchy"])
def test_all_invisible_is_zero_where_the_log_of_mmpose_is_infinite(kind):
    pred, target, visibility, area = _instances()
    pred.requires_grad_()
    loss = keypoint_loss(pred, target, 0 * visibility, area, kind=kind)
    loss.backward()
    assert loss.item() == 0
    assert pred.grad.count_nonzero() == 0


@pytest.mark.parametrize("kind", ["log", "cauchy"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_300_pixels_off_has_a_gradient_where_that_of_mmpose_is_nan(kind, dtype):
    # and that of ultralytics is 0
    target = torch.full((1, 17, 2), 50.0, dtype=dtype)
    two, area = torch.full((1, 17), 2), torch.tensor([1e4], dtype=dtype)

    def loss(x):
        return keypoint_loss(x, target, two, area, kind=kind)

    grad = _gradient(loss, target + torch.tensor([300.0, 0.0], dtype=dtype))
    assert grad.isfinite().all()
    usable = grad[..., 0] > 1e-4
    if kind == "cauchy":
        assert usable.all()
        expected = 2 / 300 / 17  # 2 d / (d**2 + unit**2), and the unit is small
        assert grad[0, 0, 0].item() == pytest.approx(expected, rel=0.02)
    else:
        assert usable.any()


def test_one_point_far_off_keeps_its_gradient_with_cauchy_alone():
    # as the docstring says of the three
    pred, target, visibility, area = _instances(1)
    pred, visibility = target.clone(), torch.full((1, 17), 2)
    pred[0, 3, 0] += 300
    slopes = {
        kind: _gradient(
            lambda x, kind=kind: keypoint_loss(x, target, visibility, area, kind=kind), pred
        )[0, 3, 0].item()
        for kind in ("oks", "log", "cauchy")
    }
    assert slopes["oks"] == 0
    assert slopes["log"] < 1e-12
    assert slopes["cauchy"] == pytest.approx(2 / 300 / 17, rel=1e-2)


def test_oks_is_flat_as_the_docstring_says():
    # ultralytics: an eye 30 px off on an object of 100 x 100
    one = {"sigmas": 0.025, "reduction": "sum"}
    target, two = torch.zeros(1, 1, 2, dtype=torch.float64), torch.tensor([[2]])
    area = torch.tensor([1e4], dtype=torch.float64)
    pred = torch.tensor([[[30.0, 0.0]]], dtype=torch.float64)
    grad = _gradient(lambda x: keypoint_loss(x, target, two, area, **one), pred)
    assert 0 < grad.abs().max() < 2e-8


@pytest.mark.parametrize("kind", ["oks", "log", "cauchy"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_hidden_points_hold_is_of_no_account_where_ultralytics_and_mmpose_are_nan(
    kind, poison
):
    pred, target, visibility, area = _instances()
    want = keypoint_loss(pred, target, visibility, area, kind=kind)
    hidden = visibility == 0
    target[hidden], pred[hidden] = poison, poison
    torch.testing.assert_close(keypoint_loss(pred, target, visibility, area, kind=kind), want)
    grad = _gradient(lambda x: keypoint_loss(x, target, visibility, area, kind=kind), pred)
    assert (grad[hidden] == 0).all()
    assert grad.isfinite().all()


def test_an_area_of_zero_is_refused_where_ultralytics_is_nan():
    pred, target, visibility, area = _instances()
    area[2] = 0
    with pytest.raises(ValueError, match="area: instance 2"):
        keypoint_loss(pred, target, visibility, area)
    visibility[2] = 0  # not an instance
    assert keypoint_loss(pred, target, visibility, area).isfinite()


def test_nothing_is_changed_where_ultralytics_divides_the_targets_in_place():
    given = _instances()
    copies = [t.clone() for t in given]
    keypoint_loss(given[0].requires_grad_(), *given[1:]).backward()
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_a_single_point_is_not_too_relaxed_where_ultralytics_takes_sigma_1_over_k():
    # one point, a box of 100 x 200, 20 px off: 0.0025 there
    pred, target = torch.tensor([[[20.0, 0.0]]]), torch.zeros(1, 1, 2)
    two, area = torch.tensor([[2]]), torch.tensor([2e4])
    assert keypoint_loss(pred, target, two, area, sigmas=1.0).item() == pytest.approx(
        0.0025, abs=2e-5
    )
    assert keypoint_loss(pred, target, two, area, sigmas=0.05).item() > 0.6


def test_occluded_counts_like_visible_and_absent_like_hidden():
    pred, target, _, area = _instances()
    one, two = (torch.full((5, 17), k) for k in (1, 2))
    torch.testing.assert_close(
        keypoint_loss(pred, target, one, area), keypoint_loss(pred, target, two, area)
    )
    absent = two.clone()
    absent[:, 4:] = -1
    hidden = absent.clamp(min=0)
    torch.testing.assert_close(
        keypoint_loss(pred, target, absent, area), keypoint_loss(pred, target, hidden, area)
    )


def test_everything_twice_is_everything_once():
    given = _instances()
    twice = (torch.cat((t, t)) for t in given)
    torch.testing.assert_close(keypoint_loss(*twice), keypoint_loss(*given))


def test_points_in_space_and_batches_of_people():
    g = torch.Generator().manual_seed(0)
    pred, target = torch.randn(2, 3, 4, 3, generator=g), torch.randn(2, 3, 4, 3, generator=g)
    two, area = torch.full((2, 3, 4), 2), torch.ones(2, 3)
    values = keypoint_loss(pred, target, two, area, sigmas=0.5, reduction="none")
    assert values.shape == (2, 3)
    e = (pred[1, 2] - target[1, 2]).square().sum(1) / (8 * 0.25)
    torch.testing.assert_close(values[1, 2], 1 - (-e).exp().mean())


def test_sigmas_are_said_by_how_many_points():
    pred, target, visibility, area = _instances()
    with pytest.raises(ValueError, match=r"sigmas='crowdpose' has 14, wanted .* 17"):
        keypoint_loss(pred, target, visibility, area, sigmas="crowdpose")
    listed = KeypointLoss(sigmas=list(SIGMAS["coco"]))(pred, target, visibility, area)
    torch.testing.assert_close(
        listed, keypoint_loss(pred, target, visibility, area), rtol=1e-6, atol=0
    )


# ------------------------------------------------------------------------------------- wing


def test_wing_by_its_formula():
    d = torch.tensor([0.0, 0.5, -3.0, 9.99, 10.0, -40.0], dtype=torch.float64)
    c = 10 - 10 * math.log(1 + 10 / 2)
    expected = [10 * math.log(1 + abs(v) / 2) if abs(v) < 10 else abs(v) - c for v in d.tolist()]
    found = wing_loss(d, torch.zeros_like(d), reduction="none")
    assert found.tolist() == pytest.approx(expected)
    assert WingLoss()(d, torch.zeros_like(d)).item() == pytest.approx(sum(expected) / 6)


def test_adaptive_wing_is_smooth_where_the_parts_meet():
    y = torch.linspace(0, 1, 11, dtype=torch.float64)
    for side in (0.5 - 1e-9, 0.5 + 1e-9):
        grad = _gradient(lambda x: adaptive_wing_loss(x, y, reduction="sum"), y + side)
        power = 2.1 - y
        slope = 14 * power * 0.5 ** (power - 1) / (1 + 0.5**power)
        torch.testing.assert_close(grad, slope, rtol=1e-7, atol=0)


def test_adaptive_wing_is_the_one_of_heat_maps():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, generator=g)
    y = torch.rand(2, 3, 4, 5, generator=g)
    torch.testing.assert_close(AdaptiveWingLoss()(x, y), heatmap_loss(x, y, kind="awing"))


@pytest.mark.parametrize("loss", [wing_loss, adaptive_wing_loss])
def test_a_weight_multiplies_the_loss_where_mmpose_multiplies_inside_the_logarithm(loss):
    # half the weight gives 0.58 of the wing and 0.267 of the adaptive wing there
    x, y = torch.tensor([3.0, -0.2, 0.7]), torch.tensor([0.0, 0.5, 1.0])
    half = loss(x, y, weight=torch.full((3,), 0.5), reduction="none")
    torch.testing.assert_close(half, loss(x, y, reduction="none") / 2)


@pytest.mark.parametrize("wrong", [[0.0, 1.0], [1.0, math.nan], torch.tensor(-1.0), math.inf])
def test_sigmas_are_above_0_and_finite(wrong):
    points, two = torch.zeros(1, 2, 2), torch.full((1, 2), 2)
    with pytest.raises(ValueError, match="sigmas: got"):
        keypoint_loss(points, points, two, torch.ones(1), sigmas=wrong)


@pytest.mark.parametrize("wrong", [None, ["a", "b"], {}])
def test_sigmas_that_are_no_numbers_are_named(wrong):
    points, two = torch.zeros(1, 2, 2), torch.full((1, 2), 2)
    with pytest.raises(TypeError, match="sigmas: got"):
        keypoint_loss(points, points, two, torch.ones(1), sigmas=wrong)


def test_instances_without_points_cost_nothing():
    pred = torch.zeros(3, 0, 2, requires_grad=True)
    none = torch.ones(3, 0)
    loss = keypoint_loss(pred, pred.detach(), none, torch.ones(3), sigmas=0.1)
    loss.backward()
    assert loss == 0


def test_the_module_keeps_the_digits_of_its_sigmas_and_learns_them():
    g = torch.Generator().manual_seed(0)
    pred, target = (torch.randn(4, 3, 2, generator=g, dtype=torch.float64) for _ in range(2))
    rest = (torch.full((4, 3), 2), torch.ones(4, dtype=torch.float64))
    sigmas = [0.1, 0.2, 0.3]
    expected = keypoint_loss(pred, target, *rest, sigmas=sigmas)
    module = KeypointLoss(sigmas)
    assert module(pred, target, *rest) == expected
    assert repr(module).startswith("KeypointLoss(sigmas=(0.1, 0.2, 0.3)")
    learned = KeypointLoss(torch.nn.Parameter(torch.tensor(sigmas)))
    learned(pred, target, *rest).backward()
    (parameter,) = learned.parameters()
    assert (parameter.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
@pytest.mark.parametrize("loss_fn", [wing_loss, adaptive_wing_loss])
def test_targets_that_are_no_numbers_are_named(loss_fn, dtype):
    with pytest.raises(TypeError, match=f"target: got {dtype}"):
        loss_fn(torch.zeros(2), torch.zeros(2, dtype=dtype))


def test_a_target_that_is_a_parameter_is_looked_at_too():
    with pytest.raises(ValueError, match="target: got 3"):
        adaptive_wing_loss(torch.rand(2), torch.nn.Parameter(torch.full((2,), 3.0)))


def test_the_gradient_of_the_area_with_a_hidden_point_and_one_far_off():
    pred, area = torch.tensor([[[100.0, 0.0], [0.0, 0.0]]]), torch.ones(1, requires_grad=True)
    seen = torch.tensor([[2, 0]])
    keypoint_loss(pred, torch.zeros(1, 2, 2), seen, area, sigmas=0.05, kind="log").backward()
    assert area.grad.item() == pytest.approx(-(100**2) / (8 * 0.05**2), rel=1e-6)


@pytest.mark.parametrize("far", [60.0, 100.0, 130.0])
def test_the_slope_of_oks_far_away(far):
    pred = torch.tensor([[[far, 0.0]]], requires_grad=True)
    area, seen = torch.tensor([100.0]), torch.tensor([[2]])
    keypoint_loss(pred, torch.zeros(1, 1, 2), seen, area, sigmas=0.5).backward()
    unit = 8 * 0.5**2 * 100
    want = 2 * far / unit * math.exp(-(far**2) / unit)
    assert pred.grad[0, 0, 0].item() == pytest.approx(want, rel=2e-5)


def test_wing_losses_near_the_target():
    x = torch.zeros(1, requires_grad=True)
    adaptive_wing_loss(x, torch.tensor([1e-7])).backward()
    assert x.grad.item() == pytest.approx(-14 * 2.1 * 1e-7**1.1, rel=1e-5)
    x, t = torch.tensor([-28.036127], requires_grad=True), torch.tensor([-28.035673])
    wing_loss(x, t, width=1e-3, epsilon=2.0).backward()
    want = -1e-3 / (2.0 + (t - x).item())
    assert x.grad.item() == pytest.approx(want, rel=1e-6)


# ------------------------------------------------------------------------- weights of points


@pytest.mark.parametrize("kind", ["oks", "log", "cauchy"])
def test_a_point_that_weighs_twice_counts_as_two(kind):
    """mmpose multiplies both points by the weight, of which the loss takes the square."""
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(2, 3, 2, generator=g).double(), torch.zeros(2, 3, 2).double()
    seen, area = torch.tensor([[2, 1, 2], [2, 2, 0]]), torch.tensor([900.0, 400.0]).double()
    weight = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 5.0]])
    got = keypoint_loss(
        x, t, seen, area, point_weight=weight, sigmas=0.05, kind=kind, reduction="none"
    )
    twice = torch.tensor([0, 0, 1])
    want = keypoint_loss(
        x[:, twice], t[:, twice], seen[:, twice], area, sigmas=0.05, kind=kind, reduction="none"
    )
    torch.testing.assert_close(got, want)


def test_a_nearest_point_that_weighs_little_keeps_its_digits():
    x = torch.tensor([[[0.0, 0.0], [60.0, 0.0]]], requires_grad=True)
    options = {"point_weight": torch.tensor([[1e-6, 1.0]]), "sigmas": 0.05, "kind": "log"}
    loss = keypoint_loss(x, torch.zeros(1, 2, 2), [[1, 1]], [900.0], **options)
    assert loss.item() == pytest.approx(math.log1p(1e6), rel=1e-6)
    loss.backward()
    assert x.grad.isfinite().all()


def test_an_instance_whose_points_weigh_nothing_is_not_counted():
    x = torch.full((2, 1, 2), 5.0)
    loss = keypoint_loss(
        x, torch.zeros(2, 1, 2), torch.ones(2, 1), torch.full((2,), 100.0), sigmas=0.1,
        kind="cauchy", point_weight=torch.tensor([[0.3], [0.0]]),
    )  # fmt: skip
    assert loss.item() == pytest.approx(math.log1p(50 / 8))


@pytest.mark.parametrize(("kind", "value", "slope"), [("cauchy", 2 * math.log(1e30), 2e-30)])
def test_a_point_at_the_end_of_the_world_still_pulls(kind, value, slope):
    prediction = torch.tensor([[[1e30, 0.0]]], requires_grad=True)
    options = {"sigmas": 0.5, "area_scale": 0.5, "kind": kind}  # a unit of 1
    loss = keypoint_loss(prediction, torch.zeros(1, 1, 2), [[2]], [1.0], **options)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-6)
    assert prediction.grad[0, 0].tolist() == pytest.approx([slope, 0.0], rel=1e-6)


def test_a_likelihood_that_float32_does_not_hold_is_infinite_and_no_nan():
    prediction = torch.tensor([[[1e30, 0.0], [1e30, 0.0]]])
    options = {"sigmas": 0.5, "kind": "log"}
    loss = keypoint_loss(prediction, torch.zeros(1, 2, 2), [[2, 2]], [1.0], **options)
    assert loss == math.inf


def test_the_points_of_an_instance_that_weighs_nothing_may_weigh_anything():
    args = torch.zeros(2, 3, 2), torch.ones(2, 3, 2), torch.full((2, 3), 2), [1.0, 1.0]
    share = torch.tensor([[1.0] * 3, [math.nan] * 3])
    found = keypoint_loss(*args, sigmas=0.5, weight=[1.0, 0.0], point_weight=share)
    assert found == keypoint_loss(*(t[:1] for t in args), sigmas=0.5)


def test_a_wing_too_steep_for_a_power_is_refused():
    with pytest.raises(ValueError, match=r"epsilon: got 1e-19 with theta=0\.5"):
        adaptive_wing_loss(torch.ones(3), torch.zeros(3), epsilon=1e-19)
