"""From plain data to a loss and back; a typo is said, and nothing from a file is run."""

import json

import pytest
import torch
from torch import nn

import aptt.loss
from aptt.compose import CombinedLoss, GradShare, Ramp, Steps, Uncertainty, build

CONFIG = {
    "terms": {
        "cls": {"loss": {"use": "FocalLoss", "gamma": 1.5}, "weight": 1.0, "inputs": ["x", "t"]},
        "box": {
            "loss": {"use": "GIoULoss"},
            "weight": {"use": "Ramp", "start": 0.5, "stop": 5.0, "over": 10, "begin": 0},
            "inputs": ["pred", "boxes"],
        },
        "ce": {
            "loss": {"use": "CrossEntropyLoss", "weight": [1.0, 2.0, 4.0]},
            "weight": {"use": "Steps", "values": {0: 1.0, 5: 0.5}},
            "inputs": {"logits": "z", "target": "c"},
        },
    },
    "balance": {"use": "GradShare", "decay": 0.9},
    "on_nonfinite": "dump",
    "dump_to": "runs",
}


def test_it_makes_what_the_constructors_make():
    loss = build(CONFIG, aptt.loss)
    by_hand = CombinedLoss(
        {
            "cls": aptt.loss.FocalLoss(gamma=1.5),
            "box": aptt.loss.GIoULoss(),
            "ce": aptt.loss.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0])),
        },
        weights={"box": Ramp(0.5, 5.0, over=10), "ce": Steps({0: 1.0, 5: 0.5})},
        inputs={"cls": ("x", "t"), "box": ("pred", "boxes"), "ce": {"logits": "z", "target": "c"}},
        balance=GradShare(decay=0.9),
        on_nonfinite="dump",
        dump_to="runs",
    )
    assert repr(loss) == repr(by_hand)
    assert loss.config() == by_hand.config() == CONFIG


def test_it_goes_through_json():
    text = json.dumps(build(CONFIG, aptt.loss).config())
    assert build(json.loads(text), aptt.loss).config() == CONFIG


def test_the_config_gives_the_same_numbers():
    config = {
        "terms": {
            "ce": {"loss": {"use": "CrossEntropyLoss", "label_smoothing": 0.1}},
            "margin": {"loss": {"use": "MultiMarginLoss", "p": 2}, "weight": 0.3},
        },
        "balance": "Uncertainty",
    }
    loss = build(config, nn)
    again = build(loss.config(), nn)
    x, y = torch.randn(5, 4, requires_grad=True), torch.randint(4, (5,))
    assert loss(x, y).item() == again(x, y).item()
    plain = nn.CrossEntropyLoss(label_smoothing=0.1)(x, y) + 0.3 * nn.MultiMarginLoss(p=2)(x, y)
    assert loss(x, y).item() == pytest.approx(plain.item() / 2)


@pytest.mark.parametrize("name", ["GIoULoss", "giou"])
def test_short_names(name):
    loss = build({"terms": {"box": {"loss": name}}}, aptt.loss)
    assert type(loss.terms["box"]) is aptt.loss.GIoULoss


def test_one_s_own_losses_come_first():
    def mine(power):
        return nn.MSELoss() if power == 2 else nn.L1Loss()

    config = {"terms": {"a": {"loss": {"use": "giou", "power": 2}}, "b": {"loss": "focal"}}}
    loss = build(config, [{"giou": mine}, aptt.loss])
    assert type(loss.terms["a"]) is nn.MSELoss
    assert type(loss.terms["b"]) is aptt.loss.FocalLoss


def changed(path, value):
    config = json.loads(json.dumps(CONFIG))
    *folders, key = path
    place = config
    for folder in folders:
        place = place[folder]
    place[key] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["balanc"], None, "unknown key 'balanc'; did you mean 'balance'"),
        (["terms", "cls", "wieght"], 1.0, "term 'cls': key 'wieght'; did you mean 'weight'"),
        (
            ["terms", "cls", "loss"],
            "FocalLos",
            "term 'cls': loss 'FocalLos'; did you mean 'FocalLoss'",
        ),
        (["terms", "cls", "loss", "gama"], 2.0, "option 'gama'; did you mean 'gamma'"),
        (["terms", "box", "weight", "use"], "ramps", "weight 'ramps'; did you mean 'Ramp'"),
        (["terms", "box", "weight", "stopp"], 1.0, "option 'stopp'; did you mean 'stop'"),
        (["balance"], "gradshar", "balance 'gradshar'; did you mean 'GradShare'"),
        (
            ["terms", "cls", "loss"],
            {"_target_": "os.system"},
            "that is Hydra's key; here it is 'use'",
        ),
        (["terms", "cls"], {"weight": 1.0}, "term 'cls': no 'loss'"),
        (["terms", "box", "inputs"], None, "inputs"),
    ],
)
def test_typos_are_said(path, value, said):
    with pytest.raises((ValueError, TypeError), match=said):
        build(changed(path, value), aptt.loss)


@pytest.mark.parametrize("name", ["os.system", "torch.nn.MSELoss", "__class__", "focal_loss", "nn"])
def test_a_file_runs_nothing_that_is_not_offered(name):
    with pytest.raises(ValueError, match="unknown term 'a': loss"):
        build({"terms": {"a": {"loss": name}}}, aptt.loss)


class Private(nn.MSELoss):
    def __init__(self, scale=1.0):
        super().__init__()
        self._scale = scale


class Keywords(nn.MSELoss):
    def __init__(self, **options):
        super().__init__()
        self.options = options


class Sharper(aptt.loss.FocalLoss):
    def __init__(self, **options):
        super().__init__(**options)


@pytest.mark.parametrize(
    ("offer", "use", "options"),
    [
        ({"Mine": aptt.loss.FocalLoss}, "Mine", {"gamma": 5.0}),  # written down as FocalLoss
        ({"Sharper": Sharper}, "Sharper", {"gamma": 5.0}),
        (nn, "CrossEntropyLoss", {"label_smoothing": 0.1}),  # size_average and reduce are gone
    ],
)
def test_what_is_written_down_can_be_read(offer, use, options):
    loss = build({"terms": {"a": {"loss": {"use": use, **options}}}}, offer)
    config = loss.config()
    assert config["terms"]["a"]["loss"].items() >= options.items()
    assert repr(build(config, offer)) == repr(loss)
    assert build(config, offer).config() == config


def test_what_is_not_plain_cannot_be_written_down():
    for terms, weights in (
        ({"a": lambda x, y: x}, {}),
        ({"a": nn.MSELoss()}, {"a": lambda t: 1.0}),
        ({"a": aptt.loss.FocalLoss(reduction=lambda t, c, *, term: t)}, {}),
        ({"a": Private(scale=3.0)}, {}),
        ({"a": Keywords(scale=3.0)}, {}),
        ({"a": nn.CrossEntropyLoss(weight=torch.ones(2))}, {}),  # which takes no list
    ):
        with pytest.raises(ValueError, match=r"(term|weight of) 'a': .* plain data"):
            CombinedLoss(terms, weights).config()
    with pytest.raises(ValueError, match=r"balance: .* plain data \(pool\)"):
        CombinedLoss({"a": nn.MSELoss()}, balance=Uncertainty(pool=lambda t: t)).config()
    assert CombinedLoss({"a": nn.MSELoss()}, balance=Uncertainty(pool=None)).config()


def test_hydra_makes_one_from_targets():
    hydra = pytest.importorskip("hydra.utils")
    loss = hydra.instantiate(
        {
            "_target_": "aptt.compose.CombinedLoss",
            "terms": {
                "cls": {"_target_": "aptt.loss.FocalLoss", "gamma": 1.5},
                "box": {"_target_": "aptt.loss.L1Loss"},
            },
            "weights": {
                "cls": 2,
                "box": {"_target_": "aptt.compose.Piecewise", "points": {0: 0.0, 4: 1.0}},
            },
            "inputs": {"cls": ["x", "t"], "box": {"input": "p", "target": "q"}},
            "balance": {"_target_": "aptt.compose.Uncertainty", "bounds": [-3.0, 3.0]},
        }
    )
    by_hand = {
        "terms": {
            "cls": {"loss": {"use": "FocalLoss", "gamma": 1.5}, "weight": 2, "inputs": ["x", "t"]},
            "box": {
                "loss": {"use": "L1Loss"},
                "weight": {"use": "Piecewise", "points": {0: 0.0, 4: 1.0}},
                "inputs": {"input": "p", "target": "q"},
            },
        },
        "balance": {"use": "Uncertainty", "bounds": [-3.0, 3.0]},
    }
    assert loss.config() == by_hand
    assert repr(build(by_hand, [aptt.loss, nn])) == repr(loss)
