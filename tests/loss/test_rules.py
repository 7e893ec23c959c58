"""Rules that every loss keeps: what weights may be, what serves as numbers, what NaN and inf do."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aptt.audit import SPECS
from aptt.audit.ways import in_blocks, plainly
from aptt.loss import (
    BinaryCrossEntropyLoss,
    BoxIoULoss,
    CrossEntropyLoss,
    DistillationLoss,
    FocalLoss,
    KeypointLoss,
    QualityFocalLoss,
    adaptive_wing_loss,
    binary_cross_entropy,
    box_iou_loss,
    ciou_loss,
    cross_entropy,
    dice_ce_loss,
    dice_loss,
    distillation_loss,
    distribution_focal_loss,
    ensemble_crps_loss,
    focal_loss,
    gaussian_nll_loss,
    giou_loss,
    heatmap_loss,
    keypoint_loss,
    kld_loss,
    linear_cross_entropy,
    linear_distillation_loss,
    linear_multi_token_loss,
    linear_token_stats,
    lovasz_loss,
    lwf_loss,
    mse_loss,
    multi_token_loss,
    permutation_invariant_loss,
    probiou_loss,
    quality_focal_loss,
    quantile_loss,
    render_heatmaps,
    rmse_loss,
    rmsle_loss,
    rotated_giou_loss,
    rotated_iou_loss,
    snr_loss,
    varifocal_loss,
)

INF, NAN = math.inf, math.nan
WEIGHTS = ("weight", "sample_weight", "class_weight", "pos_weight")


def _trials(*names):
    return [
        pytest.param(trial, id=f"{spec.name}, {trial.label}")
        for spec in SPECS.values()
        for trial in spec.trials()
        if not names or spec.function.__name__ in names
    ]


def _value_and_gradient(loss_fn, x):
    x = x.clone().requires_grad_()
    loss = loss_fn(x)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


# -------------------------------------------------------------------------------- the weights


def _weights(trial):
    """The weights of a case by name; a linear loss calls its head ``weight``."""
    given = {**trial.inputs(), **trial.options()}
    names = WEIGHTS[1:] if "hidden" in given else WEIGHTS
    return {
        name: given[name]
        for name in names
        if isinstance(given.get(name), torch.Tensor) and given[name].dtype != torch.bool
    }


@pytest.mark.parametrize("trial", [p for p in _trials() if _weights(p.values[0])])
def test_weights_are_finite_and_not_negative(trial):
    call = {**trial.inputs(), **trial.options()}
    for name, weight in _weights(trial).items():
        for number in (-1.0, INF, NAN):
            wrong = weight.masked_fill(weight != 0, number)
            with pytest.raises(ValueError, match=r"weight: got .*, wanted finite numbers"):
                trial.spec.function(**{**call, name: wrong})


CONSTRUCTED = [
    (CrossEntropyLoss, "weight"),
    (BinaryCrossEntropyLoss, "pos_weight"),
    (FocalLoss, "alpha"),
]


@pytest.mark.parametrize(("module", "name"), CONSTRUCTED)
@pytest.mark.parametrize("number", [-1.0, INF, NAN])
@pytest.mark.parametrize("form", [list, tuple, np.array, torch.tensor])
def test_a_constructor_holds_weights_to_the_same_rule(form, number, module, name):
    with pytest.raises(ValueError, match=f"{name}: got {number}, wanted finite numbers"):
        module(**{name: form([1.0, number])})
    module(**{name: form([0.0, 7.0])})


@pytest.mark.parametrize("form", [float, np.float32, np.float64, np.int64, torch.tensor])
@pytest.mark.parametrize(
    ("loss_fn", "module", "name"),
    [
        (binary_cross_entropy, BinaryCrossEntropyLoss, "pos_weight"),
        (focal_loss, FocalLoss, "alpha"),
    ],
)
def test_one_number_is_one_number_whatever_holds_it(loss_fn, module, name, form):
    logits, target = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([1, 0, 0])
    expected = loss_fn(logits, target, **{name: 1.0})
    assert loss_fn(logits, target, **{name: form(1)}) == expected
    assert module(**{name: form(1)})(logits, target) == expected
    with pytest.raises(ValueError, match=f"{name}: got -1"):
        loss_fn(logits, target, **{name: form(-1)})
    with pytest.raises(ValueError, match=f"{name}: got -1"):
        module(**{name: form(-1)})


@pytest.mark.parametrize("form", [list, np.array, torch.tensor])
@pytest.mark.parametrize("module", [False, True])
def test_a_balance_of_positives_and_negatives_lies_between_0_and_1(module, form):
    # a negative would weigh 1 - 2: the loss is -0.20, and falls for ever
    logits, target, alpha = torch.zeros(1, 3), torch.zeros(1, 3), form([2.0, 3.0, 1.5])
    loss_fn = FocalLoss(alpha) if module else lambda *a: focal_loss(*a, alpha=alpha)
    with pytest.raises(ValueError, match=r"alpha: got 2\.0, wanted from 0 to 1"):
        loss_fn(logits, target)
    # in a softmax it is the weight of the right class, and may be 1 / frequency
    found = loss_fn(logits.double(), torch.tensor([1]))
    assert found.item() == pytest.approx(3 * (2 / 3) ** 2 * math.log(3), rel=1e-12)


@pytest.mark.parametrize("alpha", [2.0, [2.0], torch.tensor(2.0)])
def test_a_number_weighs_all_classes_of_a_softmax_alike(alpha):
    logits, target = torch.randn(5, 3), torch.arange(5) % 3
    found = focal_loss(logits, target, alpha=alpha)
    torch.testing.assert_close(found, 2 * focal_loss(logits, target, alpha=None))


def test_what_is_ignored_may_weigh_anything():
    logits, weight = torch.randn(3, 4), torch.tensor([1.0, NAN, 2.0])
    target = torch.tensor([0, -100, 1])
    found = cross_entropy(logits, target, sample_weight=weight)
    torch.testing.assert_close(
        found, cross_entropy(logits[::2], target[::2], sample_weight=weight[::2])
    )


# ------------------------------------------------------------------------------- the defaults


def test_alpha_is_a_quarter_in_the_sigmoid_form_alone():
    logits, target = torch.randn(6, 3).double(), torch.arange(6) % 3
    p = logits.softmax(1)[range(6), target]
    found = focal_loss(logits, target)
    torch.testing.assert_close(found, (-((1 - p) ** 2) * p.log()).mean())
    assert FocalLoss()(logits, target) == found
    quarter = focal_loss(logits, target, alpha=0.25)  # where it is asked for
    torch.testing.assert_close(quarter, found / 4)
    hot = F.one_hot(target, 3)
    assert focal_loss(logits, hot) == focal_loss(logits, hot, alpha=0.25)
    with pytest.raises(ValueError, match="alpha: got 'balanced', wanted 'auto' or numbers"):
        FocalLoss("balanced")


@pytest.mark.parametrize("shape", [(4, 1), (2, 1, 3, 3), (2, 5, 1)])
@pytest.mark.parametrize("loss_fn", [focal_loss, cross_entropy, FocalLoss(), CrossEntropyLoss()])
def test_a_softmax_over_one_class_is_refused(loss_fn, shape):
    axis = 1 if shape[1] == 1 else 2
    target = torch.zeros([n for i, n in enumerate(shape) if i != axis], dtype=torch.long)
    with pytest.raises(ValueError, match=r"logits: got .* class.* wanted 2 or more.*binary_cross"):
        loss_fn(torch.randn(shape), target)
    with pytest.raises(ValueError, match="wanted 2 or more"):
        cross_entropy(torch.randn(4, 1), torch.ones(4, 1))
    targets = torch.zeros(shape)  # the cure
    assert focal_loss(torch.randn(shape), targets) > 0
    assert binary_cross_entropy(torch.randn(shape), targets) > 0


def test_other_losses_do_not_take_one_class_either():
    z, one = torch.randn(4, 1), torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"student_logits.*wanted 2 or more.*second logit of 0"):
        distillation_loss(z, z, alpha=1.0)
    with pytest.raises(ValueError, match="wanted 2 or more"):
        multi_token_loss([z[None], z[None]], one[None])
    with pytest.raises(ValueError, match="binary"):
        dice_loss(torch.randn(2, 1, 3), torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize("logits", [(4,), (1,), (4, 1), (4, 3), (2, 1, 3, 3)])
def test_one_pos_weight_in_a_tensor_is_for_all(logits):
    x = torch.randn(logits).double()
    t, weight = (torch.randn(logits) > 0).double(), torch.tensor([3.0]).double()
    wanted = F.binary_cross_entropy_with_logits(x, t, pos_weight=weight)
    for given in (weight, [3.0], np.array([3.0])):
        torch.testing.assert_close(binary_cross_entropy(x, t, pos_weight=given), wanted)
        torch.testing.assert_close(BinaryCrossEntropyLoss(given)(x, t), wanted)


def test_classes_are_the_last_axis_of_a_matrix_and_a_vector_has_none():
    x, t = torch.randn(3, 3).double(), torch.ones(3, 3)
    weight = torch.tensor([1.0, 2.0, 3.0]).double()
    found = binary_cross_entropy(x, t, pos_weight=weight, reduction="none")
    torch.testing.assert_close(found, weight * F.softplus(-x))
    for loss_fn, name in ((binary_cross_entropy, "pos_weight"), (focal_loss, "alpha")):
        with pytest.raises(ValueError, match=rf"{name}: got shape \(3,\).*no class axis.*weight="):
            loss_fn(x[0], t[0], **{name: weight / 3})


# -------------------------------------------------------------------------- infinite and NaN


@pytest.mark.parametrize("n", [3, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("integers", [False, True])
def test_an_infinite_logit_costs_and_pulls_the_same_at_any_size(integers, dtype, n):
    x = torch.zeros(n, dtype=dtype)
    x[:3] = torch.tensor([INF, -INF, INF])
    t = torch.zeros(n, dtype=torch.long if integers else torch.float32)
    t[1] = 1
    for loss_fn, share in (
        (lambda x: binary_cross_entropy(x, t, reduction="none"), (1, 1)),
        (lambda x: binary_cross_entropy(x, t, pos_weight=3.0, reduction="none"), (1, 3)),
        (lambda x: focal_loss(x, t, reduction="none"), (0.75, 0.25)),
        (lambda x: focal_loss(x, t, alpha=None, gamma=0.5, reduction="none"), (1, 1)),
        (lambda x: quality_focal_loss(x, t, reduction="none"), (1, 1)),
        (lambda x: varifocal_loss(x, t, reduction="none"), (0.75, 1)),
        (lambda x: heatmap_loss(x.view(1, 1, n), t.view(1, 1, n), kind="focal",
                                reduction="none"), (1, 1)),
    ):  # fmt: skip
        for way in (plainly, in_blocks):
            with way():
                value, gradient = _value_and_gradient(loss_fn, x)
            assert value.reshape(n)[:3].tolist() == [INF, INF, INF]
            assert gradient[:3].tolist() == [share[0], -share[1], share[0]]
            assert gradient.isfinite().all()


LOGITS = (
    "binary_cross_entropy",
    "focal_loss",
    "quality_focal_loss",
    "varifocal_loss",
    "heatmap_loss",
)


@pytest.mark.parametrize("trial", _trials(*LOGITS))
@pytest.mark.parametrize("number", [INF, -INF])
def test_no_way_differs_at_infinite_logits(trial, number):
    inputs = trial.inputs(7)
    name = trial.prediction(inputs)
    x = inputs[name].clone()
    x.view(-1)[::7] = number
    found = []
    for way in (plainly, in_blocks):
        with way():
            found.append(_value_and_gradient(trial.of(inputs, reduction="sum"), x))
    (value, gradient), (other, slope) = found
    torch.testing.assert_close(value, other, equal_nan=True)
    if value.isnan():  # a softmax of +inf
        assert gradient.isnan().any()
        assert slope.isnan().any()
    else:
        assert not gradient.isnan().any()
        torch.testing.assert_close(gradient, slope)


def test_a_right_class_that_is_masked_costs_infinitely_and_pulls_as_cross_entropy():
    x = torch.tensor([[-INF, 0.0, 1.0]]).double()
    for way in (plainly, in_blocks):
        with way():
            value, gradient = _value_and_gradient(lambda x: focal_loss(x, torch.tensor([0])), x)
        assert value == INF
        expected = torch.tensor([[-1.0, *torch.tensor([0.0, 1.0]).double().softmax(0)]])
        torch.testing.assert_close(gradient, expected.double(), rtol=1e-6, atol=0)


UNSURE = {"detection_loss"}  # an assigner takes the likeliest boxes, and NaN is none of them


@pytest.mark.parametrize("trial", [p for p in _trials() if p.values[0].spec.name not in UNSURE])
def test_a_nan_that_counts_is_never_a_number(trial):
    inputs = trial.inputs(dtype=torch.float32)
    name, x = trial.prediction(inputs), inputs[trial.prediction(inputs)]
    _, gradient = trial.gradient(inputs, reduction="sum")
    seen = gradient.reshape(-1).nonzero().squeeze(1)
    assert len(seen)
    for i in seen[:: max(len(seen) // 6, 1)].tolist():
        wrong = x.clone()
        wrong.view(-1)[i] = NAN
        for way in (plainly, in_blocks):
            try:
                with way():
                    value = trial.loss({**inputs, name: wrong}, reduction="sum")
            except ValueError as error:
                assert name in str(error)  # noqa: PT017
            else:
                assert value.isnan()


FAMILY = ["box_iou_loss", "giou_loss", "diou_loss", "ciou_loss", "eiou_loss", "siou_loss"]


@pytest.mark.parametrize("power", [1.0, 3.0])
@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("name", FAMILY)
def test_an_infinite_coordinate_is_never_a_finite_loss(name, box_format, power):
    # 70000 is infinite in float16: 1.0, with NaN gradients that nothing sees
    target = torch.tensor([[1.0, 0, 3, 2]] * 3)
    for number in (INF, -INF, NAN):
        for columns in (c for k in (1, 2, 4) for c in combinations(range(4), k)):
            x = torch.tensor([[0.0, 0, 2, 2]] * 3)
            x[1, list(columns)] = number
            for way in (plainly, in_blocks):
                with way():
                    loss = SPECS[name].function(
                        x, target, box_format=box_format, power=power, reduction="none"
                    )
                assert not loss[1].isfinite()
                assert loss[[0, 2]].isfinite().all()


@pytest.mark.parametrize("loss_fn", [probiou_loss, kld_loss, rotated_iou_loss, rotated_giou_loss])
def test_a_rotated_box_with_a_nan_is_nan(loss_fn):
    target = torch.tensor([[1.0, 0, 4, 2, 0.5]])
    for column in range(5):
        x = torch.tensor([[0.0, 0, 4, 2, 0]])
        x[0, column] = NAN  # 0.23, whatever the rest
        assert loss_fn(x, target).isnan()


def test_a_cuboid_with_a_nan_is_nan():
    target = torch.tensor([[1.0, 0, 0, 4, 2, 1, 0.5]])
    for column in range(7):
        x = torch.tensor([[0.0, 0, 0.5, 4, 2, 1, 0]])
        x[0, column] = NAN
        assert rotated_giou_loss(x, target).isnan()


# ------------------------------------------------------------------- what serves as numbers

TAKE = (
    "cross_entropy", "binary_cross_entropy", "focal_loss", "varifocal_loss", "quality_focal_loss",
    "distillation_loss", "keypoint_loss", "heatmap_loss", "wing_loss", "adaptive_wing_loss",
    "box_iou_loss", "giou_loss", "diou_loss", "ciou_loss", "eiou_loss", "siou_loss", "probiou_loss",
    "box_l1_loss", "rotated_iou_loss", "rotated_giou_loss", "kld_loss", "nwd_loss",
    "distribution_focal_loss", "rmse_loss", "rmsle_loss", "l1_loss", "huber_loss", "quantile_loss",
    "ensemble_crps_loss",
)  # fmt: skip


@pytest.mark.parametrize("form", ["list", "array"])
@pytest.mark.parametrize("trial", _trials(*TAKE))
def test_lists_and_arrays_serve_as_tensors(trial, form):
    as_given = torch.Tensor.tolist if form == "list" else torch.Tensor.numpy
    inputs, options = trial.inputs(), trial.options()
    name = trial.prediction(inputs)
    others = {k: as_given(t) for k, t in inputs.items() if k != name}
    loose = {k: as_given(v) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    expected = trial.spec.function(**inputs, **options)
    found = trial.spec.function(**{name: inputs[name]}, **others, **loose)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    found = trial.spec.module(**loose)(**{name: inputs[name]}, **others)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # buffers are float32


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: cross_entropy(x, "0"), "target"),
        (lambda x: cross_entropy(x, [0, None]), "target"),
        (lambda x: cross_entropy(x, [0, 1], weight="balanced"), "weight"),
        (lambda x: cross_entropy(x, [0, 1], sample_weight={0: 1.0}), "sample_weight"),
        (lambda x: CrossEntropyLoss(weight=3.0), "weight"),
        (lambda x: CrossEntropyLoss(ignore_index=0.5), "ignore_index"),
        (lambda x: FocalLoss(class_dim="last"), "class_dim"),
        (lambda x: DistillationLoss(ignore_index="pad"), "ignore_index"),
        (lambda x: DistillationLoss(beta="half"), "beta"),
        (lambda x: QualityFocalLoss(beta="2"), "beta"),
        (lambda x: binary_cross_entropy(x, x > 0, pos_weight="3"), "pos_weight"),
        (lambda x: giou_loss(x, [["a"] * 3] * 2), "target_boxes"),
        (lambda x: focal_loss(x.tolist(), [0, 1]), "logits"),
    ],
)
def test_what_does_not_serve_is_named(call, name):
    with pytest.raises(TypeError, match=f"{name}: got .*, wanted "):
        call(torch.zeros(2, 3))


_UNIGNORED = {
    "cross_entropy": cross_entropy,
    "CrossEntropyLoss": lambda x, y, **o: CrossEntropyLoss(**o)(x, y),
    "focal": focal_loss,
    "distillation": lambda x, y, **o: distillation_loss(x, x.cos(), hard_targets=y, **o),
    "lwf": lambda x, y, **o: lwf_loss(x, y, x[:, :2].cos(), **o),
    "dice": lambda x, y, **o: dice_loss(x.T[None], y[None], **o),
    "dice_ce": lambda x, y, **o: dice_ce_loss(x.T[None], y[None], **o),
    "lovasz": lambda x, y, **o: lovasz_loss(x.T[None], y[None], **o),
    "linear": lambda x, y, **o: linear_cross_entropy(x, torch.eye(3), y, **o),
    "stats": lambda x, y, **o: linear_token_stats(x, torch.eye(3), y, **o).log_prob,
    "linear distillation": lambda x, y, **o: linear_distillation_loss(
        x, torch.eye(3), x.cos(), torch.eye(3), hard_targets=y, **o
    ),
    "mtp": lambda x, y, **o: multi_token_loss([x, x[1:]], y, **o),
    "linear mtp": lambda x, y, **o: linear_multi_token_loss([x, x[1:]], torch.eye(3), y, **o),
}


@pytest.mark.parametrize("name", _UNIGNORED)
def test_nothing_is_ignored_where_ignore_index_is_none(name):
    loss_fn = _UNIGNORED[name]
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    ignoring_none = loss_fn(logits, target, ignore_index=None)
    torch.testing.assert_close(ignoring_none, loss_fn(logits, target))
    marked = torch.tensor([0, -100, 1, 1])
    assert loss_fn(logits, marked).isfinite().all()
    with pytest.raises(ValueError, match=r"targets?: got class -100, wanted (0 to 2|at least 0)"):
        loss_fn(logits, marked, ignore_index=None)


def test_soft_targets_take_ignore_index_none():
    logits = torch.randn(4, 3)
    soft = logits.softmax(1)
    assert cross_entropy(logits, soft, ignore_index=None) == cross_entropy(logits, soft)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8, torch.float64])
def test_coco_comes_in_whole_numbers(dtype):
    pred = torch.tensor([[[10.5, 20.0], [30.0, 41.0]]])
    target, area = (
        torch.tensor([[[10, 21], [30, 40]]], dtype=dtype),
        torch.tensor([90], dtype=dtype),
    )
    visibility = torch.tensor([[2, 1]])
    found = keypoint_loss(pred, target, visibility, area, sigmas=0.1)
    expected = keypoint_loss(pred, target.float(), visibility, area.float(), sigmas=0.1)
    torch.testing.assert_close(found, expected, check_dtype=False)
    maps = torch.tensor([[[0, 1, 0]]], dtype=dtype)
    for kind in ("mse", "focal", "awing"):
        found = heatmap_loss(torch.tensor([[[0.1, 0.7, -1.0]]]), maps, kind=kind)
        expected = heatmap_loss(torch.tensor([[[0.1, 0.7, -1.0]]]), maps.float(), kind=kind)
        torch.testing.assert_close(found, expected, check_dtype=False)
    drawn = render_heatmaps(target, (50, 50), visibility=visibility)
    torch.testing.assert_close(drawn, render_heatmaps(target.float(), (50, 50)), check_dtype=False)


def test_a_constructor_refuses_sigmas_that_are_none():
    for sigmas in ([0.1, -0.1], np.array([0.1, 0.0]), torch.tensor([0.1, NAN])):
        with pytest.raises(ValueError, match=r"sigmas: got \[.*\], wanted positive numbers"):
            KeypointLoss(sigmas)


# ------------------------------------------------------------------------------- the cures


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss_fn", [box_iou_loss, giou_loss, ciou_loss, BoxIoULoss()])
def test_corner_and_size_read_as_two_corners_are_told(loss_fn, reduction):
    pred, target = torch.tensor([[50.0, 50, 20, 10]]), torch.tensor([[48.0, 52, 22, 9]])
    if isinstance(loss_fn, torch.nn.Module):
        loss_fn.reduction = reduction
        given = {}
    else:
        given = {"reduction": reduction}
    with pytest.raises(ValueError, match=r"target_boxes: row 0 is .*box_format='xywh'"):
        loss_fn(pred, target, **given)
    turned = pred[:, [2, 3, 0, 1]]  # a prediction may be inside out: it is turned back
    assert loss_fn(pred, turned, **given) > 1


def test_vocabularies_of_two_sizes_are_cut_not_padded():
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(5, 8, generator=g), torch.randn(5, 6, generator=g)
    options = {"alpha": 1.0, "temperature": 1.0, "divergence": "reverse_kl"}
    with pytest.raises(
        ValueError, match=r"teacher_logits: .*cut both to the classes.*logits\["
    ) as e:
        distillation_loss(student, teacher, **options)
    assert "or pad" not in str(e.value)
    q, p = student[:, :6].double().softmax(1), teacher.double().softmax(1)
    expected = (q * (q / p).log()).sum(1).mean()
    found = distillation_loss(student[..., :6], teacher, **options)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    padded = torch.cat((teacher, torch.full((5, 2), -INF)), 1)
    assert distillation_loss(student, padded, **options) > 100 * expected


@pytest.mark.parametrize("trial", [p for p in _trials() if p.values[0].spec.composite])
def test_a_sum_of_terms_says_why_it_has_no_value_per_element(trial):
    with pytest.raises(ValueError, match=r"reduction: got 'none'.*not of one shape.*_terms"):
        trial.spec.function(**trial.inputs(), **{**trial.case.options, "reduction": "none"})


_LEARNED = {  # of six elements, rows, boxes or pixels
    "binary": lambda x, t, w: binary_cross_entropy(x[:, 0], t, weight=w),
    "focal": lambda x, t, w: focal_loss(x[:, 0], t.round(), weight=w, normalize="positives"),
    "quality": lambda x, t, w: quality_focal_loss(x[:, 0], t, weight=w, normalize="quality"),
    "heat": lambda x, t, w: heatmap_loss(
        x[:, 0].view(1, 1, -1), t.view(1, 1, -1), weight=w.view(1, 1, -1)
    ),
    "adaptive wing": lambda x, t, w: adaptive_wing_loss(x[:, 0], t, weight=w),
    "rmse": lambda x, t, w: rmse_loss(x[:, 0], t, weight=w),
    "rmsle": lambda x, t, w: rmsle_loss(x[:, 0].abs(), t, weight=w),
    "mse": lambda x, t, w: mse_loss(x[:, 0], t, weight=w),
    "quantile": lambda x, t, w: quantile_loss(x, t, quantiles=(0.1, 0.2, 0.5, 0.6), weight=w),
    "ensemble": lambda x, t, w: ensemble_crps_loss(x, t, weight=w),
    "likelihood": lambda x, t, w: gaussian_nll_loss(x[:, 0], t, x[:, 1], weight=w),
    "softmax": lambda x, t, w: cross_entropy(x, t.round().long(), sample_weight=w),
    "lwf": lambda x, t, w: lwf_loss(x, t.round().long(), x.detach().cos()[:, :2], sample_weight=w),
    "distillation": lambda x, t, w: distillation_loss(
        x, x.detach().cos(), sample_weight=w, alpha=1
    ),
    "dfl": lambda x, t, w: distribution_focal_loss(x, t, weight=w),
    "giou": lambda x, t, w: giou_loss(x, x.detach().cos(), weight=w),
    "keypoint": lambda x, t, w: keypoint_loss(
        x.view(-1, 2, 2), x.detach().cos().view(-1, 2, 2), torch.ones(len(x), 2), t + 1,
        weight=w, sigmas=0.5,
    ),
    "dice": lambda x, t, w: dice_loss(
        x[:, 0].view(1, -1), t.view(1, -1), mode="binary", weight=w.view(1, -1)
    ),
    "dice_ce": lambda x, t, w: dice_ce_loss(
        x.T.unsqueeze(0), t.round().long().unsqueeze(0), weight=w.unsqueeze(0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _LEARNED)
def test_a_weight_of_0_has_no_gradient_and_the_others_that_without_its_element(name):
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(6, 4, generator=g).double(), torch.rand(6, generator=g).double()
    w = torch.tensor([0.0, 1.0, 2.5, 0.0, 0.3, 1.0]).double().requires_grad_()
    some = w.detach() != 0
    _LEARNED[name](x[some], t[some], alone := w.detach()[some].requires_grad_()).backward()
    x[~some] = NAN  # what is removed may hold anything
    _LEARNED[name](x, t, w).backward()
    assert (w.grad[~some] == 0).all()
    torch.testing.assert_close(w.grad[some], alone.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", _LEARNED)
def test_float64_counts_with_narrow_weights_as_with_wide_ones(name):
    g = torch.Generator().manual_seed(1)
    x, t = torch.randn(6, 4, generator=g).double(), torch.rand(6, generator=g).double()
    w = 0.1 + torch.rand(6, generator=g)
    for narrow in (w, w.bfloat16(), w.half()):
        found, wide = _LEARNED[name](x, t, narrow), _LEARNED[name](x, t, narrow.double())
        torch.testing.assert_close(found, wide, rtol=1e-14, atol=0)


_SAID = {
    "lwf": lambda x, y, w: lwf_loss(x, y, x[:, :2], sample_weight=w),
    "mtp": lambda x, y, w: multi_token_loss([x, x[1:]], y, sample_weight=w, class_weight=w[:3]),
    "linear": lambda x, y, w: linear_cross_entropy(
        x, torch.eye(3), y, sample_weight=w, class_weight=w[:3]
    ),
    "linear mtp": lambda x, y, w: linear_multi_token_loss(
        [x, x[1:]], torch.eye(3), y, sample_weight=w
    ),
    "linear distillation": lambda x, y, w: linear_distillation_loss(
        x, torch.eye(3), x.cos(), torch.eye(3), hard_targets=y, sample_weight=w
    ),
    "lengths": lambda x, y, w: snr_loss(x, x.cos(), lengths=y),
    "sources": lambda x, y, w: permutation_invariant_loss(x[None], x[None].cos(), lengths=y[:1]),
}


@pytest.mark.parametrize("name", _SAID)
def test_lists_and_arrays_serve_beside_hidden_states_and_signals(name):
    x, y, w = torch.randn(4, 3), torch.tensor([0, 1, 2, 1]), torch.tensor([1.0, 2, 0.5, 3])
    expected = _SAID[name](x, y, w)
    assert _SAID[name](x, y.tolist(), w.tolist()) == expected
    assert _SAID[name](x, y.numpy(), w.numpy()) == expected
