"""The fuzzer on the losses as they are, and on losses that are wrong: it must find those."""

import math
import sys
import zlib
from pathlib import Path
from types import FunctionType

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # tests are no part of the package

import aptt.loss  # noqa: E402
from tests.fuzz import check as checking  # noqa: E402
from tests.fuzz.draws import LOSSES  # noqa: E402
from tests.fuzz.fuzz import fuzz, had, make, options  # noqa: E402

NO_LOSS = {
    "assign": "gives whole numbers: tests/loss/test_matching.py has every permutation beside it",
    "best_permutation": "an order, without a gradient",
    "centernet_decode": "reads boxes out of maps",
    "centernet_targets": "makes targets of boxes, without a gradient",
    "class_balanced_weights": "makes numbers of counts, without a gradient",
    "ldam_margins": "makes numbers of counts, without a gradient",
    "decode_heatmaps": "reads points out of maps",
    "denoising_matches": "gives whole numbers, each of which tests/loss/test_matching.py names",
    "group_advantages": "makes advantages of rewards, without a gradient",
    "mel_filterbank": "takes no tensor",
    "merge_unlabelled": "makes logits of logits: tests/loss/test_partial.py has its numbers",
    "simcc_decode": "reads points out of logits",
    "simcc_targets": "makes labels; tests/loss/test_poses.py has their formula beside them",
    "ordinal_decode": "gives ranks, without a gradient",
    "ordinal_probabilities": "is torch's sigmoid, and its product over levels",
    "soft_skeleton": "is within cl_dice_loss",
    "signed_distance": "makes maps of targets, without a gradient",
    "sequence_scores": "gives numbers of tokens beside sums, which have no gradient",
    "union_matches": "gives whole numbers, each of which tests/loss/test_matching.py names",
}
CALLS = 8  # of each loss


def test_nothing_is_found():
    seed = str(_of_the_source())
    report = fuzz(seed, math.inf, list(LOSSES), stop=1, calls=CALLS * len(LOSSES))
    found = "\n\n".join(map(str, report.finds))
    assert not report.finds, f"python -m tests.fuzz --seed {seed}\n{found}"
    assert report.calls.keys() == LOSSES.keys()


def _of_the_source():
    """A seed that is new with every change of the package, and the same on every machine."""
    files = sorted((ROOT / "src" / "aptt").rglob("*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


def test_every_public_function_is_drawn():
    names = {*aptt.loss.__all__, *(n for n in dir(aptt.loss) if n.endswith("_terms"))}
    public = {name for name in names if isinstance(getattr(aptt.loss, name), FunctionType)}
    assert public - NO_LOSS.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
def test_every_option_is_drawn(name):
    left = options(name)
    for i in range(300):
        call = make(name, f"all/{i}")
        left -= had(name, call.args) if not call.wrong else set()
        if not left:
            break
    assert not left


def test_a_draw_is_its_seed():
    one, two = (make("cross_entropy", "seed") for _ in range(2))
    assert one.chosen == two.chosen
    assert torch.equal(one.args["target"], two.args["target"])


# ------------------------------------------------------------------------------- planted bugs


def planted(monkeypatch, name, make_wrong):
    """What the fuzzer finds in ten seconds at most, of a loss that is made wrong."""
    right = getattr(aptt.loss, name)
    wrong = make_wrong(right)
    wrong.__signature__ = checking.inspect.signature(right)
    wrong.__annotations__ = checking.inspect.get_annotations(right, eval_str=False)
    wrong.__module__ = right.__module__
    monkeypatch.setattr(checking, "function", lambda _: right)
    monkeypatch.setattr(
        checking, "ours", lambda call, was=checking.ours: _with(monkeypatch, wrong, was, call)
    )
    return fuzz("planted", 10, [name], stop=1).finds


def _with(monkeypatch, wrong, was, call):
    with monkeypatch.context() as m:
        m.setattr(checking, "function", lambda _: wrong)
        return was(call)


class _Steeper(torch.autograd.Function):
    """The same value, and a gradient that is 1 % off."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, up):
        return up * 1.01


def _constant(right):
    def wrong(**args):
        return right(**args) * (1 + 1e-3)

    return wrong


def _steeper(right):
    def wrong(**args):
        first = next(k for k in ("logits", "pred_boxes", "estimate", "prediction") if k in args)
        return right(**args | {first: _Steeper.apply(args[first])})

    return wrong


def _leaking(right):
    """What is removed takes part after all, if only as 0 times what it holds."""

    def wrong(**args):
        first = next(k for k in ("logits", "pred_boxes", "estimate", "prediction") if k in args)
        return right(**args) + 0 * args[first].sum().to(right(**args).dtype)

    return wrong


def _forgetful(right):
    """Counts what is ignored."""

    def wrong(**args):
        if "weight" in args and args.get("reduction", "mean") == "mean" and args["weight"].ndim:
            return right(**args | {"reduction": "sum"}) / max(args["weight"].numel(), 1)
        return right(**args)

    return wrong


def _careless(right):
    """Takes whatever the name of a reduction is for a sum."""

    def wrong(**args):
        if args.get("reduction") == "nonsense":
            args["reduction"] = "sum"
        return right(**args)

    return wrong


@pytest.mark.parametrize("name", ["cross_entropy", "giou_loss", "si_sdr_loss", "rmse_loss"])
@pytest.mark.parametrize("bug", [_constant, _steeper, _leaking])
def test_a_planted_bug_is_found(monkeypatch, name, bug):
    finds = planted(monkeypatch, name, bug)
    assert finds
    assert finds[0].failure.kind.startswith(("value of loss", "gradient of"))
    assert f"from aptt.loss import {name}" in str(finds[0])


@pytest.mark.parametrize("bug", [_forgetful, _careless])
def test_a_wrong_count_and_a_missing_check_are_found(monkeypatch, bug):
    assert planted(monkeypatch, "binary_cross_entropy", bug)


def test_a_find_is_shrunk_and_runs(monkeypatch):
    """A wrong constant is seen with next to nothing, and the snippet is a program."""
    (find,) = planted(monkeypatch, "cross_entropy", _constant)
    assert find.call.args["logits"].numel() <= 6
    monkeypatch.undo()
    exec(compile(str(find), "snippet", "exec"), {})


@pytest.mark.parametrize(
    "name",
    ["quality_focal_loss", "cross_entropy", "focal_loss", "dice_loss", "mcc_loss", "keypoint_loss"],
)
def test_no_floor_hides_a_small_loss(monkeypatch, name):
    """Nor what an input's rounding is allowed to move: what is near 0 has its own digits."""

    def absolute(right):
        def wrong(**args):
            return (right(**args) + 1) - 1  # off by a rounding of 1

        return wrong

    finds = planted(monkeypatch, name, absolute)
    assert finds[0].failure.kind.startswith("value of")
