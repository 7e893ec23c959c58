"""Deep supervision: weights, targets at other sizes, heads that are not used."""

import pytest
import torch
from torch.nn import functional as F

from aptt.compose import DeepSupervisionLoss, deep_supervision_loss, deep_supervision_terms
from aptt.compose.depth import level_weights, resized
from aptt.loss import BoundaryLoss, DiceCELoss, cross_entropy, dice_loss
from aptt.parallel import count_mean


def _random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _classes(*shape, seed=1, classes=3):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def _outputs(*sizes, classes=3):
    return [_random(2, classes, n, n, seed=n).requires_grad_() for n in sizes]


def test_the_weights_of_nnu_net():
    five = level_weights("halving", 5, drop_last=True)
    assert five == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15, 0])
    kept = level_weights("halving", 5, drop_last=False)
    assert kept == pytest.approx([v / 31 for v in (16, 8, 4, 2, 1)])
    assert level_weights("halving", 2, drop_last=False) == pytest.approx([2 / 3, 1 / 3])
    assert level_weights("halving", 1, drop_last=True) == [1]
    assert level_weights("equal", 3, drop_last=True) == [0.5, 0.5, 0]
    assert level_weights((1.0, 0.4), 2, drop_last=True) == [1.0, 0.4]


def test_it_is_the_weighted_sum_of_its_levels():
    outputs, target = _outputs(8, 4, 2), _classes(2, 8, 8)
    terms = deep_supervision_terms(outputs, target, loss=cross_entropy)
    by_hand = []
    for out, n in zip(outputs, (8, 4, 2), strict=True):
        small = F.interpolate(target[:, None].float(), n, mode="nearest-exact")
        by_hand.append(F.cross_entropy(out, small[:, 0].long()))
    for got, want in zip(terms.values(), by_hand, strict=True):
        torch.testing.assert_close(got, want)
    assert list(terms) == ["level0", "level1", "level2"]
    loss = deep_supervision_loss(outputs, target, loss=cross_entropy, weights=(1.0, 0.5, 0.25))
    torch.testing.assert_close(loss, by_hand[0] + by_hand[1] / 2 + by_hand[2] / 4)


def test_constant_logits_of_two_levels_weigh_two_thirds_and_one():
    outputs = [torch.zeros(1, 2, 4, 4), torch.full((1, 2, 2, 2), 0.0)]
    outputs[1][:, 0] = 100.0
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    loss = deep_supervision_loss(outputs, target, loss=F.cross_entropy, drop_last=False)
    assert loss.item() == pytest.approx(2 / 3 * torch.tensor(2.0).log().item())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.half])
def test_nearest_takes_the_middle_of_a_cell_in_any_dtype(dtype):
    row = torch.arange(6).to(dtype).view(1, 6)
    at = [1, 3, 5]
    got, _ = resized(row, None, torch.zeros(1, 2, 3), "nearest", None)
    assert got.dtype == dtype
    assert torch.equal(got, row[:, at])
    odd, _ = resized(torch.arange(5).view(1, 5), None, torch.zeros(1, 2, 2), "nearest", None)
    assert odd.tolist() == [[1, 3]]


def test_where_monai_raises_on_class_indices_of_an_integer_dtype():
    target = _classes(1, 4, 4)
    with pytest.raises(NotImplementedError):
        F.interpolate(target[:, None], size=(2, 2), mode="nearest-exact")
    loss = deep_supervision_loss(_outputs(4, 2)[:2], target.expand(2, 4, 4), loss=cross_entropy)
    assert loss.isfinite()


def test_area_makes_shares_of_classes():
    target = torch.tensor([[1, 0, 0, 0]])
    shares, part = resized(target, None, torch.zeros(1, 2, 2), "area", -100)
    assert shares[0, 1].tolist() == [0.5, 0]
    assert part.tolist() == [[1, 1]]
    near, _ = resized(target, None, torch.zeros(1, 2, 2), "nearest", None)
    assert near.tolist() == [[0, 0]]  # which loses it


def test_area_leaves_out_what_is_ignored():
    target = torch.tensor([[1, 255, 255, 255, 0, 1]])
    shares, part = resized(target, None, torch.zeros(1, 2, 3), "area", 255)
    assert shares[0, 1].tolist() == [1, 0, 0.5]
    assert part.tolist() == [[0.5, 0, 1]]
    weight = torch.tensor([[2.0, 7.0, 7.0, 7.0, 3.0, 1.0]])
    shares, part = resized(target, weight, torch.zeros(1, 2, 3), "area", 255)
    assert shares[0, 1].tolist() == [1, 0, 0.25]
    assert part.tolist() == [[1, 0, 2]]
    outputs = [_random(1, 2, 6).requires_grad_(), _random(1, 2, 3, seed=1).requires_grad_()]
    loss = deep_supervision_loss(
        outputs,
        target,
        loss=lambda x, t, **k: dice_loss(x, t, ignore_index=255 if t.ndim == 2 else None, **k),
        resize="area",
        ignore_index=255,
        drop_last=False,
    )
    slope = torch.autograd.grad(loss, outputs[1])[0]
    assert not slope[..., 1].any()
    assert slope[..., 0].any()


def test_an_ignored_quarter_has_no_gradient_at_any_level():
    target = _classes(2, 8, 8)
    target[:, :4, :4] = 255
    outputs = _outputs(8, 4, 2)
    loss = DeepSupervisionLoss(DiceCELoss(ignore_index=255), drop_last=False)
    loss(outputs, target).backward()
    for output in outputs:
        half = output.shape[-1] // 2
        assert not output.grad[:, :, :half, :half].any()
        assert output.grad[:, :, half:].any()


def test_a_head_of_weight_0_gets_zeros_and_not_none_even_if_it_is_not_finite():
    outputs = _outputs(4, 2)
    with torch.no_grad():
        outputs[1][0, 0, 0, 0] = torch.nan
    loss = deep_supervision_loss(outputs, _classes(2, 4, 4), loss=cross_entropy)
    loss.backward()
    assert loss.isfinite()
    assert outputs[1].grad is not None
    assert not outputs[1].grad.any()


def test_soft_targets_and_weights_are_resized_too():
    soft, weight = _random(2, 3, 4, 4, seed=3).softmax(1), _random(2, 4, 4, seed=4).abs()
    outputs = _outputs(4, 2)
    for how in ("nearest", "area"):
        terms = deep_supervision_terms(outputs, soft, loss=dice_loss, weight=weight, resize=how)
        t, w = resized(soft, weight, outputs[1], how, None)
        assert (t.shape, w.shape) == ((2, 3, 2, 2), (2, 2, 2))
        torch.testing.assert_close(terms["level1"], dice_loss(outputs[1], t, weight=w))
    ready = [soft, soft[..., ::2, ::2]]
    want = dice_loss(outputs[1], ready[1])
    torch.testing.assert_close(
        deep_supervision_terms(outputs, ready, loss=dice_loss)["level1"], want
    )


def test_a_normalizer_is_told_the_level():
    heard = {}

    def over(total, count, *, term):
        heard[term] = float(count)
        return total / count

    for loss in (DiceCELoss(), cross_entropy):
        deep_supervision_terms(_outputs(4, 2), _classes(2, 4, 4), loss=loss, reduction=over)
    assert heard == {
        "dice/level0": 3,
        "cross_entropy/level0": 32,
        "dice/level1": 3,
        "cross_entropy/level1": 8,
    }


def test_micro_batches_are_exact_by_counts_of_their_own_at_each_level():
    outputs, target = _outputs(4, 2), _classes(2, 4, 4)
    target[0, :2] = -100
    whole = deep_supervision_loss(outputs, target, loss=cross_entropy, drop_last=False)
    small = [resized(target, None, out, "nearest", None)[0] for out in outputs]
    kept = {f"cross_entropy/level{i}": (t != -100).sum() for i, t in enumerate(small)}
    parts = [
        deep_supervision_loss(
            [out[i : i + 1] for out in outputs],
            target[i : i + 1],
            loss=cross_entropy,
            drop_last=False,
            reduction=count_mean(kept),
        )
        for i in range(2)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_volumes_and_other_losses():
    outputs = [_random(1, 1, n, n, n).requires_grad_() for n in (4, 2)]
    loss = DeepSupervisionLoss(BoundaryLoss(mode="binary"), drop_last=False)
    assert loss(outputs, _classes(1, 4, 4, 4, classes=2)).isfinite()
    assert "halving" in repr(loss)
    assert list(loss.terms(outputs, _classes(1, 4, 4, 4, classes=2))) == ["level0", "level1"]


def test_it_compiles_in_one_graph():
    outputs, target = [o.detach() for o in _outputs(8, 4, 2)], _classes(2, 8, 8)
    torch.compiler.reset()
    loss = DeepSupervisionLoss(DiceCELoss())
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(outputs, target), loss(outputs, target))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": "thirds"}, "weights"),
        ({"weights": (1.0,)}, "weights: got 1 for 2 outputs"),
        ({"weights": (1.0, -1.0)}, "weights"),
        ({"resize": "bilinear"}, "resize"),
        ({"outputs": []}, "outputs: got none"),
        ({"target": [torch.zeros(2, 4, 4).long()]}, "target: got 1 for 2 outputs"),
        ({"target": torch.zeros(2, 4).long()}, "target: got shape"),
        ({"target": torch.zeros(2, 5, 5).long(), "resize": "area"}, "resize: got 'area' from 5"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, named):
    given = {"outputs": _outputs(4, 2), "target": _classes(2, 4, 4), "drop_last": False} | change
    with pytest.raises(ValueError, match=named):
        deep_supervision_loss(**given, loss=cross_entropy)
