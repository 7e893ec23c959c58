import pytest
import torch

from aptt.loss import render_heatmaps, simcc_targets
from aptt.recipes import RECIPES, open_recipe
from aptt.recipes.keypoints import Answer, _OnMaps, _to_cells, _to_pixels, extreme_points
from aptt.recipes.training import fit
from aptt.recipes.trilobites import Trilobites, _drawn, read_tps


@pytest.fixture(scope="module")
def recipe():
    return open_recipe("keypoints")


class Knows:
    """A model that is right about the test images, by any head, up to an offset."""

    def __init__(self, recipe, answers, off=0.0):
        self.rest = iter((recipe.test.points + off).split(100))
        self.answers, self.size = answers, (recipe.size // 2, recipe.size // 2)

    def __call__(self, images):
        points = next(self.rest)
        maps = render_heatmaps(_to_cells(points), self.size, sigma=1.0).clamp_min(1e-30).log()
        bins = simcc_targets(points, (80, 80), sigma=2.0)
        return Answer(maps, points, points, *(bar.clamp_min(1e-30).log() for bar in bins))


def test_the_extreme_points_of_a_drawing():
    ink = torch.zeros(1, 6, 7)
    ink[0, 1, 2:5] = 1  # flat on top: its middle
    ink[0, 1:5, 3] = 0.6
    ink[0, 3, 5] = 0.5
    ink[0, 5, 0] = 0.4  # too faint
    top, bottom, left, right = extreme_points(ink)[0].tolist()
    assert top == [3, 1]
    assert bottom == [3, 4]
    assert left == [2, 1]
    assert right == [5, 3]


def test_points_move_with_their_digits(recipe):
    generator = torch.Generator().manual_seed(0)
    some = recipe.train.some(slice(20))
    placed = recipe.placed(some, generator)
    assert placed.images.shape == (20, 1, 40, 40)
    torch.testing.assert_close(extreme_points(placed.images[:, 0]), placed.points)
    torch.testing.assert_close(placed.images.sum((1, 2, 3)), some.images.sum((1, 2, 3)))
    assert len({tuple(p) for p in (placed.points - some.points)[:, 0].tolist()}) > 10


def test_train_and_test_do_not_share_a_digit(recipe):
    assert len(recipe.train.images) == 4500
    test = {image.sum().item() for image in recipe.test.images}
    assert len(recipe.test.images) == 500
    kept = [image for image in recipe.train.images if round(image.sum().item(), 3) in test]
    assert not kept


@pytest.mark.parametrize("head", ["maps", "points", "bins"])
def test_who_knows_scores_one(recipe, head):
    scores = recipe.evaluate(Knows(recipe, head))
    assert scores["PCK 5%"] == 1
    assert scores["minus error"] == pytest.approx(0, abs=1e-2)


def test_who_is_a_little_off_scores_by_how_much(recipe):
    off = torch.tensor([1.2, 0.0])
    scores = recipe.evaluate(Knows(recipe, "points", off))
    limit = 1.2 / recipe.test.length
    assert scores["PCK 5%"] == pytest.approx((limit < 0.05).double().mean().item())
    assert scores["PCK 10%"] == pytest.approx((limit < 0.1).double().mean().item())
    assert scores["minus error"] == pytest.approx(-1.2, rel=1e-4)


def test_cells_and_pixels_have_the_same_centre():
    points = torch.tensor([[0.5, 0.5], [39.0, 0.0]])
    assert _to_cells(points)[0].tolist() == [0, 0]
    torch.testing.assert_close(_to_pixels(_to_cells(points)), points)


def test_it_learns(recipe):
    for loss, head in (("focal", "maps"), ("rle", "points"), ("simcc", "bins")):
        run = fit(recipe, loss, steps=40)
        assert run.after["minus error"] > run.before["minus error"] + 3
        assert run.model.answers == head


def test_each_model_is_shown_and_each_loss_is_finite(recipe):
    generator = torch.Generator().manual_seed(0)
    models = {}
    for name, choice in recipe.losses.items():
        models[name] = recipe.model()
        loss = recipe.step(models[name], choice.make(recipe), recipe.batch(generator))
        loss.backward()
        assert loss.isfinite()
        models[name].eval()
    with torch.inference_mode():
        (gallery,) = recipe.galleries(models)
    assert [picture.title for picture in gallery.pictures] == list(models)
    assert all(f"found with {p.title}" in p.alt for p in gallery.pictures)


TPS = """LM=3
0 0
10 -5
nan nan
CURVES=1
POINTS=3
0 0
5 0
10 -5
ID=one
LM=3
0 0
1 1
2 0
CURVES=1
POINTS=2
0 0
2 0
ID=two"""


def test_missing_landmarks_are_read_drawn_around_and_hidden():
    specimens = read_tps(TPS)
    assert [landmarks.shape for landmarks, _ in specimens] == [(3, 2), (3, 2)]
    made = _drawn(specimens, 48)
    assert made.visibility.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert made.points[0, :2].tolist() == [[4, 23.5], [43, 43]]  # y points down
    assert made.images[0, 0, 24, 4] == 1
    assert made.images[0, 0, 10, 10] == 0
    assert made.images.isfinite().all()


def test_a_missing_landmark_is_of_no_account_to_any_loss(recipe):
    made = _drawn(read_tps(TPS), 48)
    net = recipe.model().__class__(3, 48).eval()
    answer = net(made.images)
    for choice in recipe.losses.values():
        criterion = choice.make(Trilobites)
        want = criterion(answer, made._replace(points=made.points.nan_to_num(7.0)))
        got = criterion(answer, made)
        torch.testing.assert_close(got, want)
        assert got.isfinite()
        assert isinstance(criterion, _OnMaps) or got > 0


@pytest.mark.skipif("trilobites" not in RECIPES, reason="ktch, with their data, is not installed")
def test_the_trilobites_learn_too():
    recipe = open_recipe("trilobites")
    assert recipe.train.images.shape == (240, 1, 48, 48)
    missing = (recipe.train.visibility == 0).sum() + (recipe.test.visibility == 0).sum()
    assert missing == 34
    run = fit(recipe, "oks", steps=20)
    assert run.after["minus error"] > run.before["minus error"] + 3
