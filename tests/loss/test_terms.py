"""``loss_fn.terms(...)``: what a loss adds up, by name."""

import pytest
import torch

import aptt.loss
from aptt.audit import SPECS
from aptt.core.module import LossModule

COMPOUNDS = [
    c
    for c in vars(aptt.loss).values()
    if isinstance(c, type) and issubclass(c, LossModule) and c.terms_function is not None
]
G = torch.Generator().manual_seed(0)
X, Y = torch.randn(2, 3, 7, generator=G), torch.randint(3, (2, 7), generator=G)
HEADS = [torch.randn(2, n, 3, generator=G) for n in (7, 6)]

WEIGHED = {
    "DiceCE": (
        aptt.loss.DiceCELoss(dice_weight=0.3, ce_weight=2.0, smooth=1.0, ignore_index=2),
        (X, Y),
        {"dice": 0.3, "cross_entropy": 2.0},
    ),
    "DiceFocal": (
        aptt.loss.DiceFocalLoss(dice_weight=0.5, focal_weight=3.0, gamma=1.5),
        (X, Y),
        {"dice": 0.5, "focal": 3.0},
    ),
    "MTP": (
        aptt.loss.MTPLoss(mtp_lambda=0.25, label_smoothing=0.1),
        (HEADS, Y),
        {"main": 1.0, "depth_1": 0.25},
    ),
    "LinearMTP": (
        aptt.loss.LinearMTPLoss(mtp_lambda=0.25, scale=0.5),
        (HEADS, torch.randn(3, 3, generator=G), Y),
        {"main": 1.0, "depth_1": 0.25},
    ),
    "LwF": (
        aptt.loss.LwFLoss(lambda_old=0.7, temperature=3.0),
        (X[..., 0], Y[:, 0], X[..., 1]),
        {"new": 1.0, "old": 0.7},
    ),
    "ORPO": (
        aptt.loss.ORPOLoss(odds_weight=0.3),
        (-X[0, 0].abs(), -X[0, 1].abs()),
        {"nll": 1.0, "odds": 0.3},
    ),
    "Distillation": (
        aptt.loss.DistillationLoss(alpha=0.25, temperature=2.0),
        (X[..., 0], X[..., 1]),
        {"soft": 0.25, "hard": 0.75},
    ),
}


def test_every_function_of_terms_belongs_to_a_module():
    functions = {f for name, f in vars(aptt.loss).items() if name.endswith("_terms")}
    functions -= {aptt.loss.point_mask_terms}  # which are weighed beside those of a set
    assert functions == {c.terms_function for c in COMPOUNDS}
    assert len(functions) == len(COMPOUNDS)


@pytest.mark.parametrize("name", WEIGHED)
def test_the_terms_add_up_under_the_weights_of_the_module(name):
    loss_fn, inputs, weights = WEIGHED[name]
    extra = {"hard_targets": Y[:, 0]} if name == "Distillation" else {}
    terms = loss_fn.terms(*inputs, **extra)
    assert terms.keys() == weights.keys()
    total = sum(weights[term] * value for term, value in terms.items())
    torch.testing.assert_close(total, loss_fn(*inputs, **extra))


ADDED = {
    "cross_entropy": lambda o: {"cross_entropy": 1.0, "z_loss": o["z_loss"]},
    "distillation_loss": lambda o: {
        "soft": o["alpha"] if o["soft_weight"] is None else o["soft_weight"],
        "hard": 1 - o["alpha"] if o["hard_weight"] is None else o["hard_weight"],
    },
    "lwf_loss": lambda o: {"new": 1.0, "old": o["lambda_old"]},
    "decoupled_distillation_loss": lambda o: {
        "target": o["target_weight"], "others": o["others_weight"],
    },
    "relational_distillation_loss": lambda o: {
        "distance": o["distance_weight"], "angle": o["angle_weight"],
    },
    "dpo_loss": lambda o: {"preference": 1.0},
    "simpo_loss": lambda o: {"preference": 1.0},
    "kto_loss": lambda o: {"preference": 1.0},
    "orpo_loss": lambda o: {"nll": 1.0, "odds": o["odds_weight"]},
    "policy_loss": lambda o: {"policy": 1.0},
    "dice_ce_loss": lambda o: {"dice": o["dice_weight"], "cross_entropy": o["ce_weight"]},
    "dice_focal_loss": lambda o: {"dice": o["dice_weight"], "focal": o["focal_weight"]},
    "dsnt_loss": lambda o: {"distance": 1.0, "regularizer": o["regularizer_weight"]},
    "detection_loss": lambda o: {
        "class": o["class_gain"], "box": o["box_gain"], "dfl": o["dfl_gain"],
    },
    "detr_loss": lambda o: {"class": o["class_gain"], "l1": o["l1_gain"], "box": o["box_gain"]},
    "complex_stft_loss": lambda o: {
        "magnitude": 1 - o["complex_weight"], "complex": o["complex_weight"],
    },
    "stft_loss": lambda o: {
        name: o[f"{name}_weight"] for name in ("log", "linear", "convergence")
    },
}  # fmt: skip
"""What each term weighs in the loss, by its options."""
TRIALS = [
    pytest.param(trial, id=f"{spec.name}, {trial.label}")
    for spec in SPECS.values()
    if spec.function.__name__ in ADDED
    for trial in spec.trials()
    if trial.label != "layers of a decoder"  # which the row has in another order
]


@pytest.mark.parametrize("trial", TRIALS)
def test_the_terms_take_every_option_that_the_loss_takes(trial):
    inputs = trial.inputs()
    for reduction in ("mean", "sum"):
        loss_fn = trial.module(reduction=reduction)
        terms = loss_fn.terms(**inputs)
        weights = ADDED[trial.spec.function.__name__](loss_fn.options())
        total = sum(weight * terms[name] for name, weight in weights.items() if name in terms)
        torch.testing.assert_close(total, loss_fn(**inputs), rtol=1e-12, atol=1e-14)


def test_a_loss_of_one_term_says_so():
    with pytest.raises(TypeError, match="terms: FocalLoss has one term"):
        aptt.loss.FocalLoss().terms(torch.zeros(2, 3), torch.zeros(2, 3))
