"""What no loss takes for a tensor: complex numbers, text, arrays of objects; each by its name."""

import functools
import inspect
import itertools
import re
import types
import typing
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

import aptt.loss
from aptt.core.checks import Array
from tests.fuzz.draw import Draw
from tests.fuzz.draws import LOSSES

FUNCTIONS = {
    name: value
    for name, value in vars(aptt.loss).items()
    if name in aptt.loss.__all__ and inspect.isfunction(value)
}
MAPS = {"hm": torch.zeros(1, 1, 2, 2), "wh": torch.ones(1, 2, 2, 2), "reg": torch.zeros(1, 2, 2, 2)}
SOURCES = torch.eye(2, 3).unsqueeze(0)
BOX, LABEL = torch.tensor([[[0.0, 0.0, 2.0, 2.0]]]), torch.tensor([[0]])
THERE = torch.ones(1, 1, dtype=torch.bool)
UNDRAWN = {
    "best_permutation": {
        "estimate": SOURCES, "target": SOURCES, "lengths": torch.tensor([3]),
        "active": torch.ones(1, 2, dtype=torch.bool),
    },
    "centernet_decode": {"predictions": MAPS},
    "class_balanced_weights": {"counts": torch.tensor([9.0, 1.0])},
    "centernet_targets": {"boxes": BOX, "labels": LABEL, "num_classes": 1, "size": (2, 2)},
    "decode_heatmaps": {"heatmaps": MAPS["hm"]},
    "denoising_matches": {"target_mask": THERE, "groups": 1},
    "assign": {"cost": torch.eye(2), "target_mask": torch.ones(2, dtype=torch.bool)},
    "group_advantages": {"reward": torch.arange(2.0), "group_ids": torch.tensor([0, 0])},
    "ldam_margins": {"counts": torch.tensor([9.0, 1.0])},
    "match_cost": {
        "class_logits": torch.zeros(1, 1, 2), "pred_boxes": BOX / 4, "target_boxes": BOX / 4,
        "target_labels": LABEL, "target_mask": THERE,
    },
    "merge_unlabelled": {
        "logits": torch.zeros(1, 2), "annotated": torch.ones(1, 2, dtype=torch.bool),
    },
    "ordinal_decode": {"logits": torch.zeros(1, 2)},
    "ordinal_probabilities": {"logits": torch.zeros(1, 2)},
    "sequence_scores": {
        "log_prob": torch.zeros(2), "mask": torch.ones(2, dtype=torch.bool),
        "sequence_ids": torch.tensor([0, 1]), "num_sequences": 2,
    },
    "simcc_decode": {"logits_list": [torch.zeros(1, 1, 4), torch.zeros(1, 1, 3)]},
    "simcc_targets": {
        "points": torch.ones(1, 1, 2), "bins": (4, 3), "visibility": torch.ones(1, 1),
    },
    "soft_skeleton": {"mask": torch.rand(1, 1, 4, 4)},
    "signed_distance": {
        "target": torch.ones(1, 2, 2).long(), "num_classes": 2, "spacing": torch.ones(2),
    },
    "union_matches": {"matches": torch.tensor([[0, -1]])},
}  # fmt: skip
"""Calls of what the fuzzer does not draw."""

SPOILED = {
    "complex": lambda t: t.to(torch.complex64),
    "text": lambda t: "nonsense",
    "objects": lambda t: np.full(tuple(getattr(t, "shape", (1,))), None),
}


def _tensors(name):
    """The arguments that are tensors, or sequences or mappings of them."""

    def holds(hint):
        several = typing.get_origin(hint) in (Sequence, Mapping)
        return hint is Tensor or (several and Tensor in typing.get_args(hint))

    hints = typing.get_type_hints(FUNCTIONS[name])
    del hints["return"]
    unions = (typing.Union, types.UnionType)
    parts = {
        key: typing.get_args(hint) if typing.get_origin(hint) in unions else (hint,)
        for key, hint in hints.items()
    }
    return [key for key, hints in parts.items() if any(map(holds, hints))]


def _leaf(value):
    """The path to the first tensor of an argument, None where it has none."""
    if isinstance(value, Tensor):
        return ()
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list | tuple) else items
    return next(((key, *path) for key, v in items if (path := _leaf(v)) is not None), None)


def _changed(value, path, change):
    """The argument with the tensor at the end of the path changed."""
    if not path:
        return change(value)
    key, *rest = path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    made = {k: _changed(v, rest, change) if k == key else v for k, v in items}
    if isinstance(value, dict):
        return made
    return type(value)(*made.values()) if hasattr(value, "_fields") else list(made.values())


@functools.cache
def _drawn(name, key, fits=lambda t: True):
    """Some calls that have a tensor there, and one that fits."""
    if name in UNDRAWN:
        return [UNDRAWN[name]]
    loss = LOSSES[name if name in LOSSES else name.replace("_terms", "_loss")]
    calls = (loss.draw(Draw(f"{name}/{seed}")).args for seed in range(300))
    having = (args for args in calls if _leaf(args.get(key)) is not None)
    those = (args for args in having if fits(_first(args[key])))
    taken = inspect.signature(FUNCTIONS[name]).parameters
    return [{k: v for k, v in args.items() if k in taken} for args in itertools.islice(those, 4)]


@pytest.mark.parametrize("given", SPOILED)
@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in FUNCTIONS for key in _tensors(name)]
)
def test_what_is_no_tensor_of_real_numbers_is_refused_by_name(name, key, given):
    calls = _drawn(name, key)
    assert calls
    for args in calls:
        path = _leaf(args[key])
        names = "|".join({key, *(f"(target_)?{k}" for k in path if isinstance(k, str))})
        for at in {path, path if given == "complex" else ()}:
            with pytest.raises((TypeError, ValueError)) as raised:
                FUNCTIONS[name](**args | {key: _changed(args[key], at, SPOILED[given])})
            assert re.match(rf"({names})\b", str(raised.value)), raised.value


MODULES = {n: o for n in aptt.loss.__all__ if inspect.isclass(o := getattr(aptt.loss, n))}


@pytest.mark.parametrize(
    ("option", "wrong"), [("class_dim", 1.5), ("ignore_index", 1.5), ("reduction", "most")]
)
def test_a_module_refuses_when_it_is_made_what_a_call_would(option, wrong):
    made = 0
    for module in MODULES.values():
        options = inspect.signature(module).parameters
        if option not in options or "float" in str(options[option].annotation):
            continue
        needed = {"data_range": 1.0} if "data_range" in options else {}
        with pytest.raises((TypeError, ValueError), match=f"^{option}: got {wrong!r}"):
            module(**needed, **{option: wrong})
        made += 1
    assert made > 9


HELD_TO_A_CALL = {("LwFLoss", "task"), ("LwFLoss", "old_classes")}  # to the heads that it has
CONSTRUCTED = [
    (form, key)
    for name, form in MODULES.items()
    if not hasattr(form, "_fields")
    for key in inspect.signature(form).parameters
    if (name, key) not in HELD_TO_A_CALL
]
NEEDED = {
    "SSIMLoss": {"data_range": 1.0},
    "MSSSIMLoss": {"data_range": 1.0},
    "MelLoss": {"sample_rate": 8000},
}


@pytest.mark.parametrize(
    ("form", "key"), [pytest.param(f, k, id=f"{f.__name__}-{k}") for f, k in CONSTRUCTED]
)
def test_no_constructor_takes_a_word_that_no_option_has(form, key):
    needed = {} if key == "preset" else NEEDED.get(form.__name__, {})
    with pytest.raises((TypeError, ValueError), match=rf"^{key}: "):
        form(**needed | {key: "nonsense"})


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in FUNCTIONS for key in _tensors(name)]
)
def test_another_dtype_serves_or_is_named(name, key):
    args = _drawn(name, key)[0]
    path = _leaf(args[key])
    for dtype in (torch.int16, torch.bool, torch.uint16):
        other = _changed(args[key], path, functools.partial(_whole, dtype=dtype))
        try:
            FUNCTIONS[name](**args | {key: other})
        except (TypeError, ValueError) as error:
            said = str(error)
        else:
            continue
        assert re.match(r"[\w.]+(\[\S+\])?: ", said), said


MAY_LIE_ELSEWHERE = {"ignore_regions"}  # a list of images, which is moved
NUMBERS = {  # drawn as tensors of no axis, which may lie on the CPU
    *((name, "scale") for name in FUNCTIONS), ("siglip_loss", "bias"),
    ("discriminator_loss", "real"), ("discriminator_loss", "fake"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name in FUNCTIONS
        for key in (_tensors(name) if len(_tensors(name)) > 1 else ())
        if key not in MAY_LIE_ELSEWHERE and (name, key) not in NUMBERS
    ],
)
def test_a_tensor_on_another_device_is_named(name, key):
    moves = 0
    for args in _drawn(name, key):
        held = [v for k in _tensors(name) if (v := args.get(k)) is not None]
        tensors = [_first(v) for v in held if _leaf(v) is not None]
        if len(tensors) > 1 and all(t.ndim for t in tensors):
            moved = _changed(args[key], _leaf(args[key]), lambda t: t.to("meta"))
            with pytest.raises(ValueError, match=r"^[\w.]+(\[\S+\])?: got a tensor on (meta|cpu)"):
                FUNCTIONS[name](**args | {key: moved})
            moves += 1
    assert moves


MAY_BE_WHOLE = {
    "anchors", "bias", "boxes", "class_weight", "ignore_regions", "layer_weight", "match_scores",
    "points", "strides", "target", "target_boxes", "target_masks", "targets", "teacher_bias",
    "weight",
}  # fmt: skip


def _learns(name):
    """The arguments of which no list is taken, nor whole numbers: predictions, a teacher's too."""
    hints = typing.get_type_hints(FUNCTIONS[name])
    tensors = [key for key in _tensors(name) if Array not in typing.get_args(hints[key])]
    return [key for key in tensors if key not in MAY_BE_WHOLE]


def _first(value):
    """The first tensor of an argument."""
    for key in _leaf(value):
        value = value[key]
    return value


def _floats(args, key):
    return _first(args[key]).is_floating_point()


@pytest.mark.parametrize(("name", "key"), [(n, key) for n in FUNCTIONS for key in _learns(n)])
def test_a_prediction_in_whole_numbers_is_refused_by_name(name, key):
    for args in _drawn(name, key):
        if _floats(args, key):
            path = _leaf(args[key])
            whole = _changed(args[key], path, functools.partial(_whole, dtype=torch.int64))
            with pytest.raises(TypeError, match=r"int64, wanted a floating dtype"):
                FUNCTIONS[name](**args | {key: whole})


OF_FUNCTION = {
    named[1]: module
    for module in MODULES.values()
    if (named := re.match(r"Module form of :func:`(\w+)`", module.__doc__ or ""))
}


@pytest.mark.parametrize("name", OF_FUNCTION)
def test_a_module_has_no_values_where_its_function_has_none(name):
    args, module = _drawn(name, _tensors(name)[0])[0], OF_FUNCTION[name]
    said = _refusal(FUNCTIONS[name], **args | {"reduction": "none"})
    assert said in ("", "reduction: got 'none'")
    assert _refusal(module, **NEEDED.get(module.__name__, {}), reduction="none") == said


def _refusal(call, **given):
    """What an error says of what it got; empty if there is none."""
    try:
        call(**given)
    except ValueError as error:
        return str(error).partition(",")[0]
    return ""


def _listed(value):
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _listed(v) for key, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_listed, value))
    return [_listed(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if _learns(name)])
def test_where_all_are_lists_a_prediction_is_named(name):
    for key in _tensors(name):
        for args in _drawn(name, key):
            with pytest.raises((TypeError, ValueError)) as raised:
                FUNCTIONS[name](**{k: _listed(v) for k, v in args.items()})
            assert re.match(r"[\w.]+(\[\S+\])?: got ", str(raised.value)), raised.value


def _serves(name):
    hints = typing.get_type_hints(FUNCTIONS[name])
    return [key for key in _tensors(name) if Array in typing.get_args(hints[key])]


@pytest.mark.parametrize(("name", "key"), [(n, key) for n in FUNCTIONS for key in _serves(n)])
def test_a_list_of_numbers_serves(name, key):
    close = {"rtol": 1e-4, "atol": 1e-6, "equal_nan": True, "check_dtype": False}
    for args in _drawn(name, key):
        if isinstance(args[key], Tensor) and args[key].numel():
            found, wanted = (
                FUNCTIONS[name](**args | {key: value}) for value in (args[key].tolist(), args[key])
            )
            torch.testing.assert_close(found, wanted, **close)


def _whole(t, dtype):
    return torch.as_tensor(t).nan_to_num(0, 0, 0).to(dtype)
