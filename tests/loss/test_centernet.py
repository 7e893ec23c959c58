"""CenterNet: targets against a loop over boxes, there and back, and its known failures."""

import inspect
import math

import pytest
import torch
from torch.nn import functional as F

import aptt.loss
from aptt.audit.specs import points
from aptt.loss import (
    CenterNetLoss,
    centernet_decode,
    centernet_loss,
    centernet_targets,
    centernet_terms,
)

SIZE, STRIDE, CLASSES = (16, 24), 4, 3


def _batch(images=3, most=6, seed=0):
    """Boxes of float64 within the image, a different number on each."""
    g = torch.Generator().manual_seed(seed)
    limit = torch.tensor([SIZE[1] * STRIDE, SIZE[0] * STRIDE], dtype=torch.float64)
    boxes, labels = [], []
    for i in range(images):
        m = most - i
        lo = torch.rand(m, 2, generator=g, dtype=torch.float64) * limit * 0.8
        hi = torch.minimum(lo + 2 + 60 * torch.rand(m, 2, generator=g, dtype=torch.float64), limit)
        boxes.append(torch.cat((lo, hi), 1))
        labels.append(torch.randint(CLASSES, (m,), generator=g))
    return boxes, labels


def _targets(boxes, labels, **options):
    return centernet_targets(
        boxes, labels, num_classes=CLASSES, size=SIZE, stride=STRIDE, **options
    )


def _predictions(images=3, seed=1):
    g = torch.Generator().manual_seed(seed)
    shapes = {"hm": CLASSES, "wh": 2, "reg": 2}
    return {
        k: torch.randn(images, c, *SIZE, generator=g, dtype=torch.float64)
        for k, c in shapes.items()
    }


def _perfect(targets):
    """Predictions that hold what the targets say."""
    n, _, height, width = targets["hm"].shape
    made = {"hm": targets["hm"].clamp(1e-9, 1 - 1e-9).logit()}
    for key in ("wh", "reg"):
        maps = torch.zeros(n, 2, height * width, dtype=targets["hm"].dtype)
        for i in range(n):
            for j in range(targets["ind"].shape[1]):
                if targets["mask"][i, j]:
                    maps[i, :, targets["ind"][i, j]] = targets[key][i, j]
        made[key] = maps.view(n, 2, height, width)
    return made


def _radius(height, width, m):
    """The smallest positive root of CornerNet's three equations, by its quadratic formula."""
    roots = []
    for a, b, c in (
        (1, height + width, width * height * (1 - m) / (1 + m)),
        (4, 2 * (height + width), (1 - m) * width * height),
        (4 * m, -2 * m * (height + width), (m - 1) * width * height),
    ):
        root = math.sqrt(b * b - 4 * a * c)
        roots.append(min(r for r in ((b - root) / (2 * a), (b + root) / (2 * a)) if r > 0))
    return min(roots)


def test_the_samples_of_the_brief_and_of_the_issue():
    loss_fn = CenterNetLoss(hm_weight=1.0, wh_weight=0.1, reg_weight=1.0)
    predictions, targets = _predictions(), _targets(*_batch())
    loss = loss_fn(predictions, targets)
    terms = centernet_terms(predictions, targets)
    assert list(terms) == ["hm", "wh", "reg"]
    torch.testing.assert_close(loss, terms["hm"] + 0.1 * terms["wh"] + terms["reg"])


@pytest.mark.parametrize("overlap", [0.3, 0.7])
def test_targets_agree_with_a_loop_over_boxes(overlap):
    boxes, labels = _batch()
    made = _targets(boxes, labels, min_overlap=overlap)
    hm = torch.zeros(3, CLASSES, *SIZE, dtype=torch.float64)
    for i in range(3):
        for j, (box, label) in enumerate(zip(boxes[i].tolist(), labels[i].tolist(), strict=True)):
            x, y = (box[0] + box[2]) / 2 / STRIDE, (box[1] + box[3]) / 2 / STRIDE
            w, h = (box[2] - box[0]) / STRIDE, (box[3] - box[1]) / STRIDE
            cx, cy = int(x), int(y)
            r = max(0, int(_radius(math.ceil(h), math.ceil(w), overlap)))
            sigma = (2 * r + 1) / 6
            for v in range(max(cy - r, 0), min(cy + r + 1, SIZE[0])):
                for u in range(max(cx - r, 0), min(cx + r + 1, SIZE[1])):
                    value = math.exp(-((u - cx) ** 2 + (v - cy) ** 2) / (2 * sigma**2))
                    hm[i, label, v, u] = max(hm[i, label, v, u].item(), value)
            assert made["wh"][i, j].tolist() == pytest.approx([w, h])
            assert made["reg"][i, j].tolist() == pytest.approx([x - cx, y - cy], abs=1e-12)
            assert made["ind"][i, j] == cy * SIZE[1] + cx
    torch.testing.assert_close(made["hm"], hm, rtol=1e-12, atol=0)
    assert made["mask"].sum(1).tolist() == [6, 5, 4]


def test_the_loss_agrees_with_the_published_sums():
    predictions, targets = _predictions(), _targets(*_batch())
    p, y = predictions["hm"].sigmoid(), targets["hm"]
    peak = y == 1
    hm = (
        -torch.where(peak, (1 - p) ** 2 * p.log(), (1 - y) ** 4 * p**2 * (1 - p).log()).sum()
        / peak.sum()
    )
    terms = centernet_terms(predictions, targets)
    torch.testing.assert_close(terms["hm"], hm)
    for key in ("wh", "reg"):
        total, n = 0.0, 0
        for i, j in targets["mask"].nonzero().tolist():
            row, column = divmod(targets["ind"][i, j].item(), SIZE[1])
            found = predictions[key][i, :, row, column]
            total, n = total + (found - targets[key][i, j]).abs().sum().item(), n + 1
        assert terms[key].item() == pytest.approx(total / (2 * n))
        # the published code divides by the mask of both coordinates, the paper by the objects
        by_object = centernet_terms(predictions, targets, normalize="objects")[key]
        assert by_object.item() == pytest.approx(total / n)


def test_what_is_rendered_is_decoded_exactly():
    boxes, labels = _batch()
    made = _targets(boxes, labels)
    assert len({(i, c) for i in range(3) for c in made["ind"][i][made["mask"][i]].tolist()}) == 15
    found = centernet_decode(_perfect(made), topk=6, stride=STRIDE, kernel=1)
    for i in range(3):
        m = len(boxes[i])
        order = found["boxes"][i, :m, 0].argsort()
        expected = boxes[i][:, 0].argsort()
        torch.testing.assert_close(found["boxes"][i, :m][order], boxes[i][expected])
        assert torch.equal(found["labels"][i, :m][order], labels[i][expected])
        assert (found["scores"][i, :m] > 0.999).all()
        assert (found["scores"][i, m:] < 0.999).all()


def test_without_sizes_and_offsets_a_centre_is_found_within_its_cell():
    boxes, labels = _batch(1)
    made = _targets(boxes, labels)
    blind = _perfect(made) | {"reg": torch.full((1, 2, *SIZE), 0.5, dtype=torch.float64)}
    found = centernet_decode(blind, topk=6, stride=STRIDE, kernel=1)["boxes"][0]
    centres = (found[:, :2] + found[:, 2:]) / 2
    truth = (boxes[0][:, :2] + boxes[0][:, 2:]) / 2
    off = (centres[:, None] - truth).abs().amax(2).amin(0)
    assert (off <= STRIDE / 2).all()


def test_only_the_highest_of_neighbours_is_a_box():
    hm = torch.full((1, 1, 5, 5), -4.0)
    hm[0, 0, 2, 1:4] = torch.tensor([1.0, 2.0, 1.5])
    maps = {"hm": hm, "wh": torch.ones(1, 2, 5, 5), "reg": torch.zeros(1, 2, 5, 5)}
    scores = centernet_decode(maps, topk=3)["scores"][0]
    assert scores[0].item() == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert scores[1] < 0.02
    assert centernet_decode(maps, topk=99)["boxes"].shape == (1, 25, 4)


@pytest.mark.parametrize(("rest", "low", "high"), [(-9.0, 20.0, 40.0), (-300.0, -250.0, -200.0)])
def test_peaks_are_told_apart_where_their_probabilities_are_equal(rest, low, high):
    hm = torch.full((1, 1, 1, 12), rest)
    hm[..., ::2] -= 1  # so that not every cell is a peak
    hm[..., 2], hm[..., 9] = low, high
    maps = {"hm": hm, "wh": torch.zeros(1, 2, 1, 12), "reg": torch.zeros(1, 2, 1, 12)}
    found = centernet_decode(maps, topk=12, stride=1)
    assert found["boxes"][0, :2, 0].tolist() == [9, 2]
    peaks = int((hm >= F.max_pool2d(hm, 3, 1, 1)).sum())
    assert peaks < 12
    assert (found["scores"][0, peaks:] == 0).all()
    assert torch.equal(found["scores"], found["scores"].sort(descending=True).values)


@pytest.mark.parametrize(
    "options",
    [{"topk": 2.5}, {"topk": True}, {"topk": 0}, {"kernel": 3.0}, {"kernel": 4}, {"kernel": -1}],
)
def test_numbers_of_cells_are_whole(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got"):
        centernet_decode(_predictions(), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_confident_wrong_pixel_has_a_gradient_of_one_where_centernet_has_none(dtype):
    made = {k: t.float() if t.is_floating_point() else t for k, t in _targets(*_batch(1)).items()}
    row, column = divmod(made["ind"][0, 0].item(), SIZE[1])
    label = _batch(1)[1][0][0].item()
    hm = torch.full((1, CLASSES, *SIZE), -20.0, dtype=dtype)
    hm[made["hm"] == 1] = 20.0
    empty = (made["hm"] == 0).nonzero()[0].tolist()
    hm[tuple(empty)], hm[0, label, row, column] = 12.0, -12.0
    hm.requires_grad_()
    maps = {k: torch.zeros(1, 2, *SIZE, dtype=dtype) for k in ("wh", "reg")}
    terms = centernet_terms({"hm": hm, **maps}, made, reduction="sum")
    terms["hm"].backward()
    assert hm.grad[tuple(empty)].item() == pytest.approx(1, abs=4e-3)
    assert hm.grad[0, label, row, column].item() == pytest.approx(-1, abs=4e-3)


@pytest.mark.parametrize("how", ["resized", "blurred"])
def test_a_heat_map_without_an_exact_peak_is_refused_or_marked_where_centernet_learns_nothing(how):
    made = _targets(*_batch())
    peaks = made["hm"] == 1
    if how == "resized":
        large = F.interpolate(made["hm"], scale_factor=2, mode="bilinear")
        made["hm"] = F.avg_pool2d(F.avg_pool2d(large, 3, 1, 1), 2)
    else:
        made["hm"] = F.avg_pool2d(made["hm"], 3, 1, 1)
    assert made["hm"].max() < 1
    predictions = _predictions()
    with pytest.raises(ValueError, match=r"hm: the mask has objects.*positive"):
        centernet_loss(predictions, made)
    predictions["hm"].requires_grad_()
    centernet_loss(predictions, {**made, "positive": peaks}).backward()
    assert (predictions["hm"].grad[peaks] < 0).all()
    assert (predictions["hm"].grad[~peaks] > 0).all()


@pytest.mark.parametrize("empty", ["lists", "padding"])
def test_without_a_box_only_the_heat_map_is_penalised_and_all_have_a_gradient(empty):
    if empty == "lists":
        boxes, labels = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.long)] * 2
    else:
        boxes, labels = torch.full((2, 3, 4), torch.nan), torch.full((2, 3), -1)
    made = _targets(boxes, labels)
    predictions = {k: t.float().requires_grad_() for k, t in _predictions(2).items()}
    terms = centernet_terms(predictions, made)
    assert terms["wh"].item() == terms["reg"].item() == 0
    p = predictions["hm"].detach().sigmoid()
    published = -(p**2 * (1 - p).log()).sum()  # not divided: there is no peak
    torch.testing.assert_close(terms["hm"].detach(), published)
    centernet_loss(predictions, made).backward()
    assert (predictions["hm"].grad > 0).all()
    for key in ("wh", "reg"):
        assert torch.equal(predictions[key].grad, torch.zeros(2, 2, *SIZE))


def test_no_image_is_zero_with_a_graph():
    made = _targets(torch.zeros(0, 2, 4), torch.zeros(0, 2))
    predictions = {k: t[:0].float().requires_grad_() for k, t in _predictions().items()}
    loss = centernet_loss(predictions, made)
    loss.backward()
    assert loss.item() == 0


def test_each_term_is_handed_on_with_its_own_count():
    predictions, made = _predictions(), _targets(*_batch())
    seen = {}

    def note(total, count, *, term):
        seen[term] = total.item(), count.item()
        return total / count

    loss = centernet_loss(predictions, made, reduction=note)
    torch.testing.assert_close(loss, centernet_loss(predictions, made))
    sums = centernet_terms(predictions, made, reduction="sum")
    assert {term: total for term, (total, _) in seen.items()} == pytest.approx(
        {term: total.item() for term, total in sums.items()}
    )
    assert [count for _, count in seen.values()] == [int((made["hm"] == 1).sum()), 30, 30]


def test_a_mask_of_numbers_weighs_objects_and_padding_may_hold_nan():
    predictions, made = _predictions(), _targets(*_batch())
    weights = torch.where(made["mask"], 0.5, 0.0)
    weights[0, 0] = 2.0
    for key in ("wh", "reg"):
        made[key][~made["mask"]] = torch.nan
    made["ind"][~made["mask"]] = -5
    found = centernet_terms(predictions, {**made, "mask": weights}, normalize="objects")
    every = centernet_terms(predictions, made, reduction="sum")
    first = centernet_terms(predictions, {**made, "mask": weights == 2}, reduction="sum")
    for key in ("wh", "reg"):
        torch.testing.assert_close(found[key], (0.5 * every[key] + 1.5 * first[key]) / 9)


def test_a_cell_out_of_range_is_refused_where_values_cannot_be_read():
    """As under compile and on CUDA: an index from the end is no cell."""
    predictions, made = _predictions(), _targets(*_batch())
    made["ind"][0, 0] = -3
    with pytest.raises((RuntimeError, IndexError), match="index -3 is out of bounds"):
        torch.func.grad(lambda wh: centernet_terms({**predictions, "wh": wh}, made)["wh"])(
            predictions["wh"]
        )


def test_cells_of_small_integers_are_cells_and_no_mask():
    g = torch.Generator().manual_seed(0)
    predictions = {k: torch.randn(2, 2, 4, 5, generator=g) for k in ("hm", "wh", "reg")}
    boxes = torch.tensor([[[0.0, 0, 8, 8], [4, 4, 16, 12]]]).expand(2, -1, -1)
    labels = torch.tensor([[1, 0], [0, 0]], dtype=torch.uint8)
    made = centernet_targets(boxes, labels, num_classes=2, size=(4, 5))
    want = centernet_terms(predictions, made)
    for dtype in (torch.uint8, torch.int8, torch.int32):
        assert centernet_terms(predictions, {**made, "ind": made["ind"].to(dtype)}) == want


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        ("ind", torch.float32),
        ("ind", torch.bool),
        ("ind", torch.complex64),
        ("mask", torch.complex64),
        ("wh", torch.complex64),
        ("reg", torch.complex64),
    ],
)
def test_targets_of_a_wrong_type_are_named(key, dtype):
    made = _targets(*_batch())
    with pytest.raises(TypeError, match=f"{key}: got {dtype}"):
        centernet_terms(_predictions(), {**made, key: made[key].to(dtype)})


def test_one_image_without_its_peaks_is_named():
    made = _targets(*_batch())
    made["hm"][1] *= 0.9
    with pytest.raises(ValueError, match=r"objects in image 1, .* is 0\.9;"):
        centernet_loss(_predictions(), made)
    made["mask"][1] = False
    assert centernet_loss(_predictions(), made).isfinite()
    made["hm"][0, 0, 0, 0] = math.nan  # ignored, it hides no peak
    weight = torch.ones_like(made["hm"])
    weight[0, 0, 0, 0] = 0
    assert centernet_loss(_predictions(), {**made, "weight": weight}).isfinite()


def test_regions_can_be_ignored():
    predictions, made = _predictions(), _targets(*_batch())
    away = torch.ones_like(made["hm"])
    away[:, :, :4] = 0
    whole = centernet_terms(predictions, {**made, "weight": away}, reduction="sum")["hm"]
    part = {k: {**d, "hm": d["hm"][:, :, 4:]} for k, d in (("p", predictions), ("t", made))}
    expected = aptt.loss.heatmap_loss(
        part["p"]["hm"], part["t"]["hm"], kind="focal", reduction="sum"
    )
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize("size", [12, (4,), (1, 2, 3), (0, 4), (12.5, 14), (True, 4)])
def test_a_size_is_two_whole_numbers_above_0(size):
    boxes, labels = torch.ones(1, 1, 4), torch.zeros(1, 1).long()
    with pytest.raises(ValueError, match=r"size: got .*, wanted height and width, .* at least 1"):
        centernet_targets(boxes, labels, num_classes=1, size=size)


def test_two_objects_in_one_cell_share_a_peak_and_keep_both_sizes():
    # mmdetection keeps the last one's size
    boxes = [torch.tensor([[8.0, 8.0, 24.0, 24.0], [12.0, 12.0, 20.0, 20.0]])]
    made = _targets(boxes, [torch.tensor([1, 1])])
    assert (made["hm"] == 1).sum() == 1
    assert made["ind"].unique().numel() == 1
    assert made["wh"][0].tolist() == [[4, 4], [2, 2]]


def test_padded_listed_and_formatted_boxes_give_the_same_targets():
    boxes, labels = _batch()
    made = _targets(boxes, labels)
    padded = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True, padding_value=torch.nan)
    marks = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-1)
    more = _targets(padded, marks, max_objects=9)
    assert more["wh"].shape == (3, 9, 2)
    sized = [torch.cat((b[:, :2], b[:, 2:] - b[:, :2]), 1) for b in boxes]
    for other in (more, _targets(sized, labels, box_format="xywh")):
        torch.testing.assert_close(other["hm"], made["hm"])
        for key in ("wh", "reg", "ind", "mask"):
            torch.testing.assert_close(other[key][:, :6], made[key])


def test_lists_of_several_dtypes_are_boxes_of_the_widest():
    box = [1 / 3, 1 / 3, 50 / 3, 50 / 3]
    first = torch.tensor([[2, 2, 8, 8]])
    for dtype in (torch.int64, torch.float16, torch.float32):
        boxes = [first.to(dtype), torch.tensor([box], dtype=torch.float64)]
        made = _targets(boxes, [torch.tensor([0], dtype=torch.uint8), torch.tensor([2])])
        assert made["wh"][1, 0].tolist() == [(box[2] - box[0]) / STRIDE] * 2
        assert made["hm"][1].amax((1, 2)).tolist() == [0, 0, 1]
    whole = _targets(first.unsqueeze(0), torch.tensor([[0]]))  # boxes of integers are boxes too
    assert whole["wh"].tolist() == [[[1.5, 1.5]]]


def test_no_images_and_no_objects_have_targets_too():
    none = {"hm": (0, CLASSES, *SIZE), "wh": (0, 5, 2), "reg": (0, 5, 2), "ind": (0, 5)}
    made = _targets([], [], max_objects=5)
    assert {k: tuple(t.shape) for k, t in made.items()} == {**none, "mask": (0, 5)}
    assert made["ind"].dtype == torch.int64
    assert _targets([], [])["wh"].shape == (0, 0, 2)
    empty = _targets([torch.zeros(0, 4)], [torch.tensor([])])
    assert empty["hm"].shape == (1, CLASSES, *SIZE)


def test_room_is_needed_for_objects_and_not_for_padding():
    boxes, labels = _batch(1, 2)
    made = _targets(boxes, labels)
    apart = torch.full((1, 5, 4), torch.nan, dtype=torch.float64)
    marks = torch.full((1, 5), -1)
    apart[0, 1::2], marks[0, 1::2] = boxes[0], labels[0]
    for key, t in _targets(apart, marks, max_objects=2).items():
        torch.testing.assert_close(t, made[key])
    with pytest.raises(ValueError, match="max_objects: got 1, wanted at least 2"):
        _targets(apart, marks, max_objects=1)


@pytest.mark.parametrize(
    ("label", "right", "said"),
    [(3, 9.0, "class 3"), (-2, 9.0, "class -2"), (0, math.nan, "image 0, box 0"), (0, -9.0, "box")],
)
def test_what_would_be_painted_wrongly_is_refused_on_any_device(label, right, said, monkeypatch):
    """Where values are not free to read, as on CUDA, they are read all the same."""
    monkeypatch.setattr("aptt.core.checks.values.is_readable", lambda t: False)
    box = torch.tensor([[[1.0, 1.0, right, 9.0]]])
    with pytest.raises(ValueError, match=said):
        _targets(box, torch.tensor([[label]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_labels_are_integers(dtype):
    box, label = torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([1])
    for boxes, labels in (
        ([box, box], [label, label.to(dtype)]), (box[None], label[None].to(dtype))
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"labels(\[1\])?: got {dtype}"):
            _targets(boxes, labels)


def test_boxes_off_the_map_are_left_out_and_points_are_kept():
    boxes = [torch.tensor([[-20.0, -20.0, 10.0, 10.0], [90.0, 10.0, 110.0, 20.0], [5.0] * 4])]
    made = _targets(boxes, [torch.zeros(3, dtype=torch.long)])
    assert made["mask"].tolist() == [[False, False, True]]
    assert (made["hm"] > 0).sum() == 1
    assert made["hm"][0, 0, 1, 1] == 1


def test_the_original_radius_is_wider():
    boxes, labels = _batch()
    exact = _targets(boxes, labels)["hm"]
    assert (_targets(boxes, labels, radius="original")["hm"] >= exact).all()
    assert _targets(boxes, labels, radius="original")["hm"].sum() > 1.3 * exact.sum()


def test_the_row_of_the_audit_has_the_options_of_the_loss():
    for mine, theirs in (
        (points.centernet_loss, centernet_loss), (points.CenterNetLoss, CenterNetLoss)
    ):  # fmt: skip
        options = {
            name: (p.default, p.kind)
            for name, p in inspect.signature(mine).parameters.items()
            if p.default is not p.empty and name not in ("weight", "positive")
        }
        assert options == {
            name: (p.default, p.kind)
            for name, p in inspect.signature(theirs).parameters.items()
            if p.default is not p.empty
        }


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda p, t: ({**p, "hm": p["hm"][:, :2]}, t), "hm"),
        (lambda p, t: ({**p, "wh": p["wh"][:1]}, t), "wh"),
        (lambda p, t: ({k: p[k] for k in ("hm", "wh")}, t), "reg"),
        (lambda p, t: ({**p, "offset": p["reg"]}, t), "offset"),
        (lambda p, t: (p, {**t, "masks": t["mask"]}), "masks"),
        (lambda p, t: (p, {**t, "ind": t["ind"] + 999}), "ind"),
        (lambda p, t: (p, {**t, "reg": t["reg"][:, :2]}), "reg"),
    ],
)
def test_what_does_not_fit_is_named(change, name):
    predictions, targets = change(_predictions(), _targets(*_batch()))
    with pytest.raises(ValueError, match=name):
        centernet_loss(predictions, targets)


@pytest.mark.parametrize("name", ["predictions", "targets"])
def test_maps_without_their_names_are_refused(name):
    given = {"predictions": _predictions(), "targets": _targets(*_batch())}
    with pytest.raises(TypeError, match=f"^{name}: got list, wanted a mapping with"):
        centernet_loss(**given | {name: list(given[name].values())})


def test_terms_cannot_stay_unreduced():
    for call in (
        lambda: centernet_loss(_predictions(), _targets(*_batch()), reduction="none"),
        lambda: CenterNetLoss(reduction="none"),
    ):
        with pytest.raises(ValueError, match="reduction"):
            call()


@pytest.mark.parametrize(
    ("boxes", "labels", "options", "name"),
    [
        ([[9, 9, 1, 1]], [0], {}, "image 0, box 0"),
        ([[math.nan, 0, 1, 1]], [0], {}, "image 0, box 0"),
        ([[0, 0, 1, 1]], [3], {}, "class 3"),
        ([[0, 0, 1, 1]], [0, 0], {}, "labels"),
        ([[0, 0, 1, 1]] * 2, [0, 0], {"max_objects": 1}, "max_objects"),
        ([[0, 0, 1, 1]] * 2, [0, 0], {"max_objects": 2.5}, "max_objects"),
        ([[0, 0, 1, 1]], [0], {"radius": "wide"}, "radius"),
        ([[0, 0, 1, 1]], [0], {"min_overlap": 0.0}, "min_overlap"),
        ([[0, 0, 1, 1]], [0], {"box_format": "yxyx"}, "box_format"),
    ],
)
def test_boxes_that_cannot_be_rendered_are_named(boxes, labels, options, name):
    with pytest.raises(ValueError, match=name):
        _targets([torch.tensor(boxes).float()], [torch.tensor(labels)], **options)
