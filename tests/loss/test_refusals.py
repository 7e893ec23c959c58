"""What used to pass without a word, and was not meant: each by its name, with its cure."""

import inspect
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import aptt.loss
from aptt.core.elsewhere import _ELSEWHERE
from aptt.loss import (
    Assignment,
    AsymmetricLoss,
    ATSSAssigner,
    BinaryCrossEntropyLoss,
    CIoULoss,
    CrossEntropyLoss,
    DETRLoss,
    DistillationLoss,
    DistributionFocalLoss,
    FocalLoss,
    HungarianMatcher,
    MaxIoUAssigner,
    MelLoss,
    SimOTAAssigner,
    TaskAlignedAssigner,
    cross_entropy,
    cross_entropy_terms,
    detection_loss,
    detr_loss,
    dice_loss,
    distillation_loss,
    distribution_focal_loss,
    expected_value,
    focal_loss,
    giou_loss,
    heatmap_loss,
    linear_cross_entropy,
    linear_distillation_loss,
    lovasz_loss,
    mel_loss,
    mse_loss,
    multi_resolution_stft_loss,
    probiou_loss,
    si_sdr_loss,
    signed_distance,
    stft_loss,
    top_k_cross_entropy_loss,
)

# ------------------------------------------------------------------------------ soft targets

LOGITS = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
SHARES = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]])
SOFT = {
    "cross_entropy": cross_entropy,
    "cross_entropy_terms": lambda x, t, **w: cross_entropy_terms(x, t, **w)["cross_entropy"],
    "top_k": lambda x, t: top_k_cross_entropy_loss(x, t),
    "focal": lambda x, t, sample_weight=None: focal_loss(
        x, t, weight=sample_weight, kind="softmax"
    ),
    "linear": lambda x, t, **w: linear_cross_entropy(x, torch.eye(3), t, **w),
}


@pytest.mark.parametrize("share", [-0.5, torch.inf, torch.nan])
@pytest.mark.parametrize("name", SOFT)
def test_a_share_is_finite_and_not_negative(name, share):
    wrong = SHARES.clone()
    wrong[1, 0] = share
    with pytest.raises(ValueError, match=rf"^target: got a share of {share}"):
        SOFT[name](LOGITS, wrong)


@pytest.mark.parametrize("name", [name for name in SOFT if name != "top_k"])
def test_a_share_that_does_not_count_is_anything(name):
    wrong, only = SHARES.clone(), torch.tensor([1.0, 0.0])
    wrong[1] = torch.tensor([-1.0, torch.nan, torch.inf])
    got = SOFT[name](LOGITS, wrong, sample_weight=only)
    assert got == SOFT[name](LOGITS[:1], SHARES[:1])


SCORED = {
    "binary_cross_entropy": aptt.loss.binary_cross_entropy,
    "asymmetric": aptt.loss.asymmetric_loss,
    "varifocal": aptt.loss.varifocal_loss,
    "quality_focal": aptt.loss.quality_focal_loss,
    "mal": aptt.loss.mal_loss,
    "ia_bce": aptt.loss.ia_bce_loss,
    "heatmap": lambda x, t, weight: heatmap_loss(x, t, weight=weight, kind="focal"),
    "adaptive_wing": aptt.loss.adaptive_wing_loss,
    "dice": lambda x, t, weight: dice_loss(x, t, weight=weight[:, 0], mode="binary"),
}


@pytest.mark.parametrize("name", SCORED)
def test_a_score_beyond_1_is_refused_where_it_counts(name):
    x, t = torch.tensor([[[[0.3, -0.2]]]]), torch.tensor([[[[0.5, 2.0]]]])
    with pytest.raises(ValueError, match=r"^target: got 2.0, wanted numbers from 0 to 1"):
        SCORED[name](x, t, weight=torch.ones_like(t))
    got = SCORED[name](x, t, weight=torch.tensor([[[[1.0, 0.0]]]]))
    assert got == SCORED[name](x[..., :1], t[..., :1], weight=torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("mass", [0.5, 2.0])
def test_what_shares_add_up_to_is_what_a_position_weighs(mass):
    scale = torch.tensor([mass, 1.0])
    got = cross_entropy(LOGITS, SHARES * scale.unsqueeze(1))
    torch.testing.assert_close(got, cross_entropy(LOGITS, SHARES, sample_weight=scale))
    each = F.cross_entropy(LOGITS.double(), SHARES.double(), reduction="none")
    want = (each * scale).sum() / scale.sum()
    torch.testing.assert_close(got, want.float())


# ------------------------------------------------------------------- options, heads, masks

HIDDEN, HEAD, WHOLE = torch.ones(2, 4), torch.ones(3, 4), torch.ones(3, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: DistillationLoss(divergence="kl"), "divergence: got 'kl', wanted 'forward_kl'"),
        (lambda: DistillationLoss(soft_weight=-1.0), "soft_weight: got -1.0, wanted a number"),
        (lambda: DistillationLoss(hard_weight=-1.0), "hard_weight: got -1.0, wanted a number"),
        (lambda: FocalLoss(ignore_index="pad"), "ignore_index: got 'pad', wanted 'auto' or"),
        (lambda: FocalLoss(ignore_index=0.5), "ignore_index: got 0.5, wanted a whole number"),
        (lambda: CrossEntropyLoss(weight=[True, False]), "weight: got torch.bool, wanted real"),
        (lambda: linear_cross_entropy(WHOLE[:2], HEAD, [0, 1]), "hidden: got torch.int64"),
        (lambda: linear_cross_entropy(HIDDEN, WHOLE, [0, 1]), "weight: got torch.int64"),
        (
            lambda: linear_distillation_loss(HIDDEN, WHOLE, HIDDEN, HEAD, alpha=1.0),
            "weight: got torch.int64",
        ),
        (
            lambda: linear_distillation_loss(HIDDEN, HEAD, HIDDEN, WHOLE, alpha=1.0),
            "teacher_weight: got torch.int64",
        ),
        (
            lambda: dice_loss(HIDDEN, torch.ones(2, 5).long(), mode="binary"),
            "logits: (2, 4) should be (N, *S); target: (2, 5)",
        ),
    ],
)
def test_what_is_out_of_range_or_of_another_kind_is_named(call, said):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(said)}"):
        call()


# ------------------------------------------------------------------- tensors of other kinds

ODD = {
    "sparse": (torch.eye(2, 3).to_sparse(), r"torch.sparse_coo, wanted a dense .*to_dense\(\)"),
    "nested": (
        torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged),
        r"a nested tensor, wanted .*to_padded_tensor\(0.0\)",
    ),
    "float8": (
        torch.eye(2, 3).to(torch.float8_e4m3fn), r"torch.float8_e4m3fn, wanted .*float\(\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_a_tensor_of_another_kind_is_named_with_its_cure(kind):
    odd, said = ODD[kind]
    zeros = torch.zeros(2, 3)
    for name, call in {
        "prediction": lambda: mse_loss(odd, zeros),
        "target": lambda: mse_loss(zeros, odd),
        "weight": lambda: mse_loss(zeros, zeros, weight=odd),
        "logits": lambda: cross_entropy(odd, torch.tensor([0, 1])),
        "teacher_logits": lambda: distillation_loss(zeros, odd, alpha=1.0),
        "estimate": lambda: si_sdr_loss(odd, zeros),
        "pred_boxes": lambda: giou_loss(odd, torch.zeros(2, 4)),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name}: got {said}"):
            call()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool, torch.uint16])
def test_a_recording_in_whole_numbers_is_told_its_scale(dtype):
    wave = torch.linspace(-1, 1, 100).repeat(1, 2, 1)
    for call in (
        si_sdr_loss, aptt.loss.snr_loss, aptt.loss.esr_loss, aptt.loss.permutation_invariant_loss,
        aptt.loss.sa_sdr_loss, stft_loss, aptt.loss.complex_stft_loss,
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"^target: got {dtype}, .*target / 32768"):
            call(wave, (wave * 32767).to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_labels_of_16_bit_pictures_serve(dtype):
    x, y = torch.linspace(-1, 2, 24).reshape(2, 3, 4), torch.tensor([[0, 1, 2, 1], [2, 2, 0, 1]])
    for call in (
        lambda y: cross_entropy(x, y),
        lambda y: cross_entropy(x, y, ignore_index=2),
        lambda y: focal_loss(x, y),
        lambda y: dice_loss(x, y),
        lambda y: lovasz_loss(x, y, ignore_index=2),
        lambda y: linear_cross_entropy(x.mT, torch.eye(3), y),
        lambda y: distillation_loss(x, x.flip(1), hard_targets=y, class_dim=1),
        lambda y: mse_loss(x[:, 0], y),
        lambda y: signed_distance(y.unsqueeze(1), num_classes=3),
    ):
        torch.testing.assert_close(call(y.to(dtype)), call(y), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"^target: got class \d, wanted 0 to 2"):
        cross_entropy(x, (y + 7).to(dtype), ignore_index=8)


# ---------------------------------------------------------------------- True and False as numbers

NUMBERS = {
    "gamma": lambda yes: FocalLoss(gamma=yes),
    "gamma of the function": lambda yes: focal_loss(LOGITS, torch.tensor([0, 1]), gamma=yes),
    "label_smoothing": lambda yes: cross_entropy(LOGITS, SHARES, label_smoothing=yes),
    "softcap": lambda yes: cross_entropy(LOGITS, SHARES, softcap=yes),
    "ignore_index": lambda yes: cross_entropy(LOGITS, torch.tensor([0, 2]), ignore_index=yes),
    "class_dim": lambda yes: cross_entropy(LOGITS, torch.tensor([0, 2]), class_dim=yes),
    "pos_weight": lambda yes: BinaryCrossEntropyLoss(pos_weight=yes),
    "ignore_index of answers": lambda yes: BinaryCrossEntropyLoss(ignore_index=yes),
    "ignore_index of an asymmetric loss": lambda yes: AsymmetricLoss(ignore_index=yes),
    "f_max": lambda yes: MelLoss(sample_rate=8000, f_max=yes),
    "alpha": lambda yes: TaskAlignedAssigner(alpha=yes),
    "box_gain": lambda yes: DETRLoss(box_gain=yes),
}


@pytest.mark.parametrize("yes", [True, False, np.bool_(True)])
@pytest.mark.parametrize("name", NUMBERS)
def test_yes_and_no_are_no_numbers(name, yes):
    with pytest.raises(TypeError, match=rf"^{name.split()[0]}: got .+, wanted .*number"):
        NUMBERS[name](yes)


@pytest.mark.parametrize("label", ["255", [255], torch.nan, torch.inf])
def test_a_label_of_answers_is_a_number(label):
    target = torch.tensor([[0.0, 1.0, 0.0]] * 2)
    for call in (
        lambda: aptt.loss.binary_cross_entropy(LOGITS, target, ignore_index=label),
        lambda: BinaryCrossEntropyLoss(ignore_index=label),
        lambda: aptt.loss.asymmetric_loss(LOGITS, target, ignore_index=label),
    ):
        with pytest.raises(
            (TypeError, ValueError), match=r"^ignore_index: got .*a number, or None"
        ):
            call()


def _numbers():
    """Every constructor's option whose default is a float."""
    for name in aptt.loss.__all__:
        form = getattr(aptt.loss, name)
        if not inspect.isclass(form) or not hasattr(form, "__init__"):
            continue
        for key, option in inspect.signature(form).parameters.items():
            if type(option.default) is float:
                yield form, key


_NEEDED = {"SSIMLoss": {"data_range": 1.0}, "MSSSIMLoss": {"data_range": 1.0}}


@pytest.mark.parametrize(
    ("form", "key"), [pytest.param(f, k, id=f"{f.__name__}-{k}") for f, k in _numbers()]
)
def test_no_constructor_takes_yes_for_a_number(form, key):
    with pytest.raises((TypeError, ValueError), match=rf"^{key}: got True, wanted"):
        form(**_NEEDED.get(form.__name__, {}) | {key: True})


# -------------------------------------------------------------------- numbers that are all 0

WAVE, OTHER = torch.linspace(-1, 1, 600).expand(1, 2, -1), torch.ones(1, 2, 600)
SPECTRAL = {
    "stft": lambda **o: stft_loss(WAVE, OTHER, n_fft=64, **o),
    "multi": lambda **o: multi_resolution_stft_loss(WAVE, OTHER, n_fft=[64, 64], **o),
    "mel": lambda **o: mel_loss(WAVE, OTHER, sample_rate=800, n_fft=64, n_mels=4, **o),
}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("window", {"window": torch.zeros(64)}),
        ("window", {"window": [0.0] * 64}),
        ("frequency_weight", {"frequency_weight": torch.zeros(33)}),
        ("stereo_weight", {"stereo_weight": (0.0, 0.0), "stereo": "sum_difference"}),
    ],
)
@pytest.mark.parametrize("loss", SPECTRAL)
def test_of_nothing_nothing_is_learned(loss, name, given):
    with pytest.raises(ValueError, match=f"^{name}: got .*0"):
        SPECTRAL[loss](**given)


# ------------------------------------------------------------------------- one bin alone


def test_a_distribution_over_one_bin_is_always_1():
    one, target = torch.zeros(2, 4, 1), torch.zeros(2, 4)
    for call in (
        lambda: distribution_focal_loss(one, target),
        lambda: DistributionFocalLoss()(one, target),
        lambda: expected_value(one),
    ):
        with pytest.raises(ValueError, match=r"^logits: got \(2, 4, 1\), with 1 bin .* 2 or more"):
            call()
    with pytest.raises(ValueError, match=r"^pred_boxes: got \(1, 2, 4, 1\), with 1 bin"):
        detection_loss(
            torch.zeros(1, 2, 1), torch.zeros(1, 2, 4, 1), torch.ones(1, 1, 4),
            torch.zeros(1, 1).long(), anchors=torch.zeros(2, 2), strides=torch.ones(2),
        )  # fmt: skip


# --------------------------------------------------------------- what a detector is handed

SCENE = {
    "class_logits": torch.zeros(1, 3, 2),
    "pred_boxes": torch.tensor([[[0.0, 0.0, 4.0, 4.0], [1.0, 1, 5, 5], [0, 0, 2, 2]]]),
    "target_boxes": torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]),
    "target_labels": torch.tensor([[1]]),
}
PLACES = {"anchors": torch.tensor([[2.0, 2.0], [3.0, 3], [1, 1]]), "strides": torch.ones(3)}
RETURNED = {
    "None": None,
    "matches alone": torch.zeros(1, 3).long(),
    "pairs of indices": [(torch.tensor([0]), torch.tensor([0]))],
    "no tensors": (1, 2),
}


@pytest.mark.parametrize("what", RETURNED)
def test_an_assigner_returns_an_assignment(what):
    def assigner(*args, **kwargs):
        return RETURNED[what]

    for name, call in {
        "assigner": lambda: detection_loss(**SCENE, **PLACES, assigner=assigner),
        "matcher": lambda: detr_loss(**SCENE, matcher=assigner, box_format="xyxy"),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name}: returned \w+, wanted an aptt.loss.Assign"):
            call()


def test_a_matcher_of_layers_returns_each_layers_images():
    layers = {k: t.expand(2, *t.shape) for k, t in SCENE.items() if not k.startswith("target")}

    def matcher(*args):
        return Assignment(torch.zeros(1, 3).long(), torch.zeros(1, 3))

    with pytest.raises(ValueError, match=r"^matcher: returned matches of shape \(1, 3\).*\(2, 3\)"):
        detr_loss(**SCENE | layers, matcher=matcher, box_format="xyxy")


ASSIGNERS = {
    "task": lambda overlap: TaskAlignedAssigner(overlap=overlap),
    "sim": lambda overlap: SimOTAAssigner(overlap=overlap),
    "atss": lambda overlap: ATSSAssigner(overlap=overlap),
    "max": lambda overlap: MaxIoUAssigner(overlap=overlap),
}
PRIORS = {"max": {"anchors": SCENE["pred_boxes"][0]}}
NO_OVERLAPS = {
    "two arguments": (lambda a, b: a.sum(-1), TypeError, "<lambda> raised TypeError"),
    "a number a coordinate": (F.l1_loss, ValueError, "l1_loss returned"),
    "one for all": (
        lambda a, b, reduction: (a - b).abs().mean(), ValueError, r"<lambda> returned \(\)",
    ),
    "rotated": (probiou_loss, ValueError, "probiou_loss raised ValueError"),
    "nothing": (lambda a, b, reduction: None, ValueError, "<lambda> returned NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("what", NO_OVERLAPS)
@pytest.mark.parametrize("name", ASSIGNERS)
def test_what_is_no_overlap_is_named(name, what):
    overlap, error, said = NO_OVERLAPS[what]
    with pytest.raises(error, match=f"^overlap: {said}"):
        detection_loss(**SCENE, **PLACES | PRIORS.get(name, {}), assigner=ASSIGNERS[name](overlap))


def test_a_module_serves_as_overlap():
    for overlap in (CIoULoss(), aptt.loss.ciou_loss):
        got = detection_loss(**SCENE, **PLACES, assigner=TaskAlignedAssigner(overlap=overlap))
        assert got.isfinite()


@pytest.mark.parametrize("score", [-0.1, 1.5, torch.nan])
def test_a_match_score_is_a_share(score):
    matches, scores = torch.tensor([[0, -1, -2]]), torch.tensor([[score, torch.nan, 7.0]])
    with pytest.raises(ValueError, match=rf"^match_scores: got {score:g}"):
        detection_loss(**SCENE, matches=matches, match_scores=scores)
    scores[0, 0] = 0.5
    assert detection_loss(**SCENE, matches=matches, match_scores=scores).isfinite()


def test_a_matcher_of_upright_boxes_names_those_that_are_rotated():
    boxes = torch.rand(1, 3, 5)
    given = {
        "pred_boxes": boxes,
        "target_boxes": boxes[:, :1],
        "target_labels": torch.tensor([[0]]),
    }
    with pytest.raises(ValueError, match=r"^pred_boxes: got \(1, 3, 5\).*TaskAlignedAssigner"):
        detection_loss(
            torch.zeros(1, 3, 2), **given, assigner=HungarianMatcher(), box_loss=probiou_loss
        )


# ------------------------------------------------------------------- names that there are not


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BCELoss", "BinaryCrossEntropyLoss"),
        ("BCEWithLogitsLoss", "BinaryCrossEntropyLoss"),
        ("FocalLossWithLogits", "FocalLoss"),
        ("SoftDiceLoss", "DiceLoss"),
        ("KLDivLoss", "DistillationLoss"),
        ("PITLossWrapper", "PermutationInvariantLoss"),
        ("GIOULoss", "GIoULoss"),
        ("giou_los", "giou_loss"),
        ("binary_cross_entropy_with_logits", "binary_cross_entropy"),
    ],
)
def test_a_name_of_another_library_is_told_ours(name, meant):
    with pytest.raises(ImportError, match=rf"^{name}: aptt.loss has no such name, .*{meant}"):
        exec(f"from aptt.loss import {name}")
    with pytest.raises(AttributeError, match=rf"^{name}: .*{meant}"):
        getattr(aptt.loss, name)
    assert not hasattr(aptt.loss, name)


def test_a_name_like_no_other_is_told_where_to_look():
    with pytest.raises(ImportError, match=r"^Foo: aptt.loss has no such name; `aptt list`"):
        exec("from aptt.loss import Foo")
    with pytest.raises(AttributeError, match=r"^module 'aptt.loss' has no attribute '__wrapped__'"):
        aptt.loss.__wrapped__  # noqa: B018


def test_all_that_is_named_instead_is_there():
    for said in _ELSEWHERE.values():
        named = re.findall(r"\b[A-Z]\w+(?:Loss|Assigner|Matcher)\b", said)
        assert named
        assert set(named) <= set(aptt.loss.__all__)
