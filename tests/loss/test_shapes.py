"""A tensor of another shape than the others want is refused, and named."""

import re

import pytest
import torch

from tests.loss.test_errors import FUNCTIONS, NUMBERS, _changed, _drawn, _leaf, _tensors

CHANGES = {
    "a row more": lambda t: torch.cat((t, t[:1])),
    "an axis more": lambda t: t.unsqueeze(-1).expand(*t.shape, 7),
    "no axis": lambda t: t.flatten()[0],
}
ALONE = {  # of any number of rows, or with no other tensor to fit
    ("assign", "cost"), ("class_balanced_weights", "counts"), ("contrastive_loss", "candidates"),
    ("decode_heatmaps", "heatmaps"), ("denoising_matches", "target_mask"),
    ("detection_loss", "ignore_regions"), ("detection_terms", "ignore_regions"),
    ("detr_loss", "ignore_regions"), ("detr_terms", "ignore_regions"),
    ("ensemble_crps_loss", "prediction"), ("expected_value", "logits"), ("generator_loss", "fake"),
    ("generator_terms", "fake"), ("kto_loss", "mismatched"), ("kto_terms", "mismatched"),
    ("ldam_margins", "counts"), ("linear_multi_token_loss", "weight"),
    ("linear_token_stats", "weight"), ("margin_loss", "weight"),
    ("mask_match_cost", "target_masks"), ("merge_unlabelled", "logits"),
    ("ordinal_decode", "logits"), ("ordinal_probabilities", "logits"),
    ("point_mask_terms", "target_masks"), ("render_heatmaps", "points"),
    ("siglip_loss", "candidates"), ("signed_distance", "target"), ("soft_skeleton", "mask"),
    ("union_matches", "matches"),
}  # fmt: skip

MAY_BE_A_NUMBER = {
    ("binary_cross_entropy", "pos_weight"), ("boundary_loss", "spacing"), ("focal_loss", "alpha"),
    ("hausdorff_loss", "spacing"), ("keypoint_loss", "sigmas"), ("quantile_loss", "weight"),
    ("render_heatmaps", "sigma"), ("signed_distance", "spacing"),
}  # fmt: skip


def _has_rows(t):
    return t.ndim > 0 and t.numel() > 0


@pytest.mark.parametrize(
    ("name", "key", "change"),
    [
        (name, key, change)
        for name in FUNCTIONS
        for key in _tensors(name)
        for change in CHANGES
        if (name, key) not in ALONE | (MAY_BE_A_NUMBER if change == "no axis" else set()) | NUMBERS
    ],
)
def test_a_tensor_that_does_not_fit_is_named(name, key, change):
    calls = _drawn(name, key, _has_rows)
    assert calls
    for args in calls:
        wrong = _changed(args[key], _leaf(args[key]), CHANGES[change])
        with pytest.raises((TypeError, ValueError)) as raised:
            FUNCTIONS[name](**args | {key: wrong})
        assert re.match(r"[\w.]+(\[\S+\])*: ", str(raised.value)), raised.value
