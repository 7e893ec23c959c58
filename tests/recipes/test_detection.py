import json

import pytest
import torch
from matplotlib.figure import Figure
from torch import Generator

from aptt.cli import main
from aptt.recipes import detection
from aptt.recipes.detection import Found, _by_cell, _distinct, _precision, _trimmed
from aptt.recipes.training import fit


@pytest.fixture(scope="module")
def recipe():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "_SCENES", 6)
        yield detection.Detection()


@pytest.fixture(scope="module")
def maps():
    """What the model would answer for one digit 7 with corners 10, 22, 30 and 52."""
    maps = {
        "classes": torch.full((1, 10, 24, 24), -12.0),
        "sides": torch.full((1, 4, 12, 24, 24), -30.0),
        "wh": torch.zeros(1, 2, 24, 24),
        "reg": torch.zeros(1, 2, 24, 24),
    }
    row, column = 9, 5  # the cell of the centre (20, 37), whose middle is (22, 38)
    maps["classes"][0, 7, row, column] = 6.0
    for side, distance in enumerate((12 / 4, 16 / 4, 8 / 4, 14 / 4)):
        low = int(distance)
        share = torch.tensor([1 - (distance - low), max(distance - low, 1e-12)])
        maps["sides"][0, side, low : low + 2, row, column] = share.log()
    maps["sides"] = maps["sides"].flatten(1, 2)
    maps["wh"][0, :, row, column] = torch.tensor([20 / 4, 30 / 4])
    maps["reg"][0, :, row, column] = torch.tensor([20 / 4 - 5, 37 / 4 - 9])
    return maps


def truth(recipe):
    """Everything there is, found."""
    pairs = zip(recipe.boxes, recipe.labels, strict=True)
    return [Found(b[k >= 0], torch.ones(int((k >= 0).sum())), k[k >= 0]) for b, k in pairs]


def test_scenes_have_digits_inside_that_do_not_meet(recipe):
    images, boxes, labels = recipe.training.draw(20, Generator().manual_seed(1))
    assert images.shape == (20, 3, 96, 96)
    assert images.min() >= 0
    assert images.max() <= 1
    for of_image, there in zip(boxes, labels >= 0, strict=True):
        assert 1 <= there.sum() <= 4
        assert (of_image[there] >= 0).all()
        assert (of_image[there] <= 96).all()
        sides = of_image[there, 2:] - of_image[there, :2]
        assert sides.amax(-1).min() >= 18
        assert sides.amax(-1).max() <= 40
        assert (of_image[~there] == 0).all()
        for k in range(int(there.sum())):
            assert not detection._meet(of_image[k], of_image[:k]).any()


def test_a_box_is_tight(recipe):
    drawing = torch.zeros(28, 28)
    drawing[5:20, 8:12] = 1
    assert _trimmed(drawing).shape == (15, 4)
    images, boxes, labels = recipe.training.draw(10, Generator().manual_seed(2))
    for image, of_image, there in zip(images, boxes.int().tolist(), labels >= 0, strict=True):
        for x, y, right, bottom in (b for b, k in zip(of_image, there, strict=True) if k):
            ink = image[:, y:bottom, x:right].amin(0) > 0.6  # brighter than any photograph
            assert ink.any()


def test_neither_drawings_nor_places_are_trained_on(recipe):
    assert len(recipe.training.drawings) == 4000
    assert recipe.training.digits.bincount().tolist() == [400] * 10
    assert [photo.shape[-1] for photo in recipe.training.photos] == [426, 426]


def test_a_perfect_finder_scores_one(recipe):
    found = truth(recipe)
    assert _precision(found, recipe.boxes, recipe.labels) == {"AP50": 1.0, "AP50:95": 1.0}


def test_nothing_found_scores_zero(recipe):
    none = Found(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert _precision([none] * 6, recipe.boxes, recipe.labels) == {"AP50": 0.0, "AP50:95": 0.0}


def test_boxes_of_half_the_thresholds_score_half():
    """An IoU of 0.72 is above 0.5, 0.55, 0.6, 0.65 and 0.7, and below the five others."""
    boxes, labels = torch.tensor([[[0.0, 0, 50, 20]]]), torch.tensor([[3]])
    found = [Found(torch.tensor([[0.0, 0, 36, 20]]), torch.ones(1), torch.tensor([3]))]
    assert _precision(found, boxes, labels) == pytest.approx({"AP50": 1.0, "AP50:95": 0.5})
    other = [found[0]._replace(labels=torch.tensor([4]))]
    assert _precision(other, boxes, labels) == {"AP50": 0.0, "AP50:95": 0.0}


@pytest.mark.parametrize("name", ["giou", "centernet"])
def test_both_ways_read_the_same_box_from_perfect_maps(recipe, maps, name):
    (found,) = recipe.losses[name].make(recipe).read(maps)
    assert found.labels.tolist() == [7]
    assert found.scores.item() == pytest.approx(torch.tensor(6.0).sigmoid().item())
    assert found.boxes[0].tolist() == pytest.approx([10, 22, 30, 52], abs=1e-3)


def test_a_set_is_read_as_it_is(recipe):
    box = torch.tensor([20.0, 37.0, 20.0, 30.0]) / 96
    logits = torch.full((1, 3, 10), -12.0)
    logits[0, :2, 7] = torch.tensor([4.0, 6.0])
    maps = {"query_logits": logits, "query_boxes": box.expand(1, 3, 4)}
    (found,) = recipe.losses["detr"].make(recipe).read(maps)
    assert found.labels.tolist() == [7, 7]  # the surest first, and nothing is thinned out
    assert found.scores.tolist() == pytest.approx(torch.tensor([6.0, 4.0]).sigmoid().tolist())
    assert found.boxes[0].tolist() == pytest.approx([10, 22, 30, 52], abs=1e-4)


def test_a_box_that_says_the_same_again_is_dropped():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [40, 0, 50, 10]])
    found = Found(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([1, 1, 2, 1]))
    assert _distinct(found) == [0, 2, 3]


@pytest.mark.parametrize("name", ["giou", "diou", "ciou", "centernet", "detr"])
def test_the_terms_make_the_loss(recipe, name):
    images, boxes, labels = recipe.batch(Generator().manual_seed(3))
    model, loss = recipe.model(), recipe.losses[name].make(recipe)
    model.asks = name == "detr"
    maps = model(images)
    terms = loss.terms(maps, boxes, labels)
    gains = {"class": 1.0, "box": 1.0, "dfl": 0.25, "hm": 1.0, "wh": 0.5, "reg": 1.0}
    if name == "detr":
        gains = {"class": 2.0, "l1": 5.0, "box": 2.0}
    total = sum(gains[term] * value for term, value in terms.items())
    torch.testing.assert_close(loss(maps, boxes, labels), total)
    assert len(terms) == 3


def test_cells_are_in_the_order_of_their_points(recipe, maps):
    logits, sides = _by_cell(maps)
    places = detection._places()
    at = logits[0, :, 7].argmax()
    assert places["anchors"][at].tolist() == [22, 38]
    assert sides[0, at].argmax(-1).tolist()[:3] == [3, 4, 2]


@pytest.mark.parametrize("name", ["ciou", "centernet", "detr"])
def test_a_few_steps_lower_the_loss(recipe, name):
    run = fit(recipe, name, steps=6)
    assert run.finished
    assert run.values[-1] < run.values[0]
    assert set(run.after) == {"AP50", "AP50:95"}
    with torch.inference_mode():
        found, terms = recipe.galleries({name: run.model})
    assert [picture.title for picture in found.pictures] == ["truth", name]
    assert [picture.title for picture in terms.pictures] == [
        f"{name}: {what}" for what in ("values", "weights", "gradient shares")
    ]
    for picture in (*found.pictures, *terms.pictures):
        picture.draw(Figure().subplots())


@pytest.mark.parametrize("name", ["ciou", "centernet"])
def test_what_the_terms_did_is_noted_from_time_to_time(recipe, name, monkeypatch):
    monkeypatch.setattr(detection, "_EVERY", 2)
    run = fit(recipe, name, steps=5)
    history = run.model.history
    for lines in (history.values, history.weights, history.shares):
        assert len(lines) == 3
        assert all([step for step, _ in line] == [0, 2, 4] for line in lines.values())
    for shares in zip(*history.shares.values(), strict=True):
        assert sum(share for _, share in shares) == pytest.approx(1)
    total = sum(
        weight * value
        for (_, weight), (_, value) in zip(
            (line[0] for line in history.weights.values()),
            (line[0] for line in history.values.values()),
            strict=True,
        )
    )
    assert total == pytest.approx(run.values[0], rel=1e-5)


def test_box_losses_are_compared_by_name(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(detection, "_SCENES", 2)
    argv = ["compare", "detection", "--loss", "giou", "--loss", "diou", "--loss", "ciou"]
    assert main([*argv, "--seeds", "2", "--steps", "1", "--json", "--out", str(tmp_path)]) == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert [run["loss"] for run in study["runs"]] == ["giou", "diou", "ciou"] * 2
    assert (tmp_path / "report.html").exists()
