"""One vocabulary: every public signature of ``aptt.loss`` keeps to ``docs/vocabulary.md``."""

import inspect
import re
from pathlib import Path

import pytest
from torch import nn

import aptt.loss

PAGE = Path(__file__).parents[2] / "docs" / "vocabulary.md"
OURS = {name: getattr(aptt.loss, name) for name in aptt.loss.__all__}
MODULES = {n: o for n, o in OURS.items() if inspect.isclass(o) and issubclass(o, nn.Module)}
FUNCTIONS = {n: o for n, o in OURS.items() if inspect.isfunction(o)}
TERM_WEIGHTS = {
    "mtp_lambda", "step", "lambda_old", "alpha", "soft_weight", "hard_weight", "z_loss",
}  # fmt: skip


def _rows(heading):
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row] for row in rows]


CALL = {row[0][0] for row in _rows("Given in each call")}
OPTIONS = [row[0][0] for row in _rows("Chosen once")]
OWN = {word for row in _rows("Words of one loss") for word in row[0]}
INSTEAD = {
    wrong: row[0][0]
    for heading in ("Given in each call", "Chosen once")
    for row in _rows(heading)
    for wrong in (row[2] if len(row) > 2 else [])
}
MADE = re.compile(
    r"(?P<term>\w+)_(weight|gain)|(teacher|student|target|pred|detach)_\w+|\w+_loss"
    rf"|({'|'.join(sorted(CALL))})(_list|s)"
)


def wrong_word(word, *, own=OWN):
    """What is wrong with a word, and which to use; None where nothing is."""
    if word in CALL or word in OPTIONS or word in own:
        return None
    if word in INSTEAD:
        return f"{word}: the word for it is '{INSTEAD[word]}'"
    if MADE.fullmatch(word):
        return None
    return (
        f"{word}: not in docs/vocabulary.md; use the word that is there for it, or add it there "
        "under 'Words of one loss', with what it means"
    )


def wrong_order(options):
    """Where a constructor's options leave the order of the table; None where they keep it."""
    shared = [name for name in options if name in OPTIONS[OPTIONS.index("mode") :]]
    wanted = sorted(shared, key=OPTIONS.index)
    if shared != wanted:
        return (
            f"got {', '.join(shared)}, wanted {', '.join(wanted)}, as docs/vocabulary.md has them"
        )
    if "reduction" in options and options[-1] != "reduction":
        return f"got {options[-1]} last, wanted reduction"
    return None


def _parameters(function, *, bound=False):
    return list(inspect.signature(function).parameters.values())[bound:]


def _names(parameters):
    return [p.name for p in parameters]


def _signatures(ours):
    if inspect.isclass(ours) and issubclass(ours, nn.Module):
        return _parameters(ours) + _parameters(ours.forward, bound=True)
    if inspect.isclass(ours):  # an assigner, or numbers with names
        called = ours.__call__ if "__call__" in vars(ours) else None
        return _parameters(ours) + (_parameters(called, bound=True) if called else [])
    return _parameters(ours)


@pytest.mark.parametrize("name", [n for n in OURS if not issubclass(type(OURS[n]), type(tuple))
                                  or not issubclass(OURS[n], tuple)])  # fmt: skip
def test_every_word_is_in_the_table(name):
    assert not [w for p in _names(_signatures(OURS[name])) if (w := wrong_word(p))]


@pytest.mark.parametrize("name", MODULES)
def test_a_constructor_keeps_the_order_and_takes_what_is_chosen_once(name):
    options = _names(_parameters(MODULES[name]))
    assert wrong_order(options) is None
    known = {"weight"} if "CrossEntropy" in name else {"bias"} if name == "SigLIPLoss" else set()
    per_call = (CALL & set(options)) - known
    assert not per_call, f"{per_call} belong to the call of {name}"


def _function_of(module):
    found = re.search(r":func:`\.?([\w.]+)`", module.__doc__)
    assert found, f"{module.__name__}: its docstring names no function: 'Module form of :func:`x`'"
    return OURS[found.group(1).split(".")[-1]]


@pytest.mark.parametrize("name", MODULES)
def test_a_function_takes_what_its_module_is_called_and_constructed_with(name):
    module = MODULES[name]
    called, constructed = _parameters(module.forward, bound=True), _parameters(module)
    function = _function_of(module)
    names = _names(called) + _names(constructed)
    assert _names(_parameters(function)) == names
    defaults = {p.name: p.default for p in called + constructed}
    assert {p.name: p.default for p in _parameters(function)} == defaults
    for p in called:
        kind = inspect.signature(function).parameters[p.name].kind
        assert kind is p.kind, f"{p.name}: {p.kind.description} in forward, not in the function"
    terms = module.terms_function
    if terms is not None:
        taken = _names(_parameters(terms))
        assert taken == [word for word in names if word in taken]
        left_out = set(names) - set(taken) - TERM_WEIGHTS
        assert not [w for w in left_out if not re.fullmatch(r"\w+_(weight|gain)", w)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_prediction_and_target_go_by_position(name):
    for p in _parameters(FUNCTIONS[name]):
        if p.kind is not p.KEYWORD_ONLY:
            assert p.default is p.empty, f"{name}({p.name}=): an option, and so for keywords alone"
        elif p.name in OPTIONS:
            assert p.default is not p.empty or p.name in ("size",)
        assert p.name != "lengths" or p.kind is p.KEYWORD_ONLY


@pytest.mark.parametrize("name", MODULES)
def test_a_loss_is_called_a_loss(name):
    of_torch = {"cross_entropy", "binary_cross_entropy", "linear_cross_entropy"}
    function = _function_of(MODULES[name]).__name__
    assert function.endswith("_loss") or function in of_torch
    assert name.endswith("Loss")


@pytest.mark.parametrize("name", MODULES)
def test_ignore_index_none_ignores_nothing(name):
    given = inspect.signature(MODULES[name]).parameters.get("ignore_index")
    if given is not None:
        assert given.default in (-100, "auto", None)
        assert given.annotation == "IgnoreIndex" or given.annotation.endswith("| None")


def test_a_wrong_word_is_told_the_right_one():
    assert wrong_word("pixel_weight") == "pixel_weight: the word for it is 'weight'"
    assert wrong_word("class_weights") == "class_weights: the word for it is 'class_weight'"
    assert "not in docs/vocabulary.md" in wrong_word("frobnication")
    assert "wanted pool, reduction" in wrong_order(["reduction", "pool"])
    assert "reduction" in wrong_order(["reduction", "epsilon"])
    assert not [word for word in CALL | set(OPTIONS) | OWN if word in INSTEAD]
