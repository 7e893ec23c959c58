"""Promises about names, options, errors, and the module form."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aptt.audit.figures import about, exact, require, same
from aptt.audit.promise import promise, promise_of_row
from aptt.audit.spec import Inputs, Options, Refused, Spec, Trial
from aptt.audit.ways import plainly

__all__ = [
    "bad_input_is_refused",
    "copies",
    "every_option_is_exercised",
    "follows_to_dtype_and_device",
    "leaves_inputs_alone",
    "twin_agrees",
]


@promise()
def leaves_inputs_alone(trial: Trial) -> None:
    """Neither inputs nor options nor the module's own state are changed, forward or backward."""
    inputs, options = trial.inputs(), trial.options()
    calls: list[Callable[..., Tensor]] = [lambda **given: trial.spec.function(**given, **options)]
    module = None if trial.spec.module is None else trial.module()
    calls += [] if module is None else [module]
    given = {**inputs, **{k: v for k, v in options.items() if isinstance(v, Tensor)}}
    before = {k: (t.clone(), t._version) for k, t in given.items()}
    said = repr(module)
    x = inputs[trial.prediction(inputs)].requires_grad_()
    for call in calls:
        call(**inputs).sum().backward()
    for name, t in given.items():
        values, version = before[name]
        exact(t, values, f"{name} afterwards")
        require(t._version == version, f"{name} was written to, if with its own values")
    require(repr(module) == said, f"the module became {module!r}, from {said}")
    require(x.grad is not None, "no gradient")


@promise_of_row("module")
def twin_agrees(spec: Spec) -> None:
    """The module has the function's options and defaults, passes all on, and reprs as its call."""
    function = inspect.signature(spec.function).parameters
    assert spec.module is not None
    made = inspect.signature(spec.module).parameters
    forward = inspect.signature(_forward(spec)).parameters
    tensors = [p.name for p in function.values() if p.default is p.empty]
    named = [p.name for p in forward.values() if p.default is p.empty]
    require(tensors == named, f"the function takes {tensors}, the module's call {named}")
    options = {p.name: p for p in function.values() if p.default is not p.empty}
    loose = [p.name for p in options.values() if p.kind is not p.KEYWORD_ONLY]
    require(not loose, f"options of the function that need no keyword: {loose}")
    both = {p.name: p.default for p in made.values()}
    both |= {p.name: p.default for p in forward.values() if p.default is not p.empty}
    wanted = {name: p.default for name, p in options.items()}
    require(set(both) == set(wanted), f"options of one alone: {sorted(set(both) ^ set(wanted))}")
    order = [name for name in wanted if name in made]
    require(list(made) == order, f"the module has its options in the order {list(made)}")
    for name, default in wanted.items():
        agree = type(both[name]) is type(default) and both[name] == default
        require(agree, f"{name}: the default is {default!r}, of the module {both[name]!r}")
    for trial in spec.trials():
        if "twin_agrees" not in trial.case.exempt:
            with about(trial.label):
                _same_twins(trial)


def _forward(spec: Spec) -> Callable[..., Any]:
    module = spec.trials()[0].module()
    return module.forward


def _same_twins(trial: Trial) -> None:
    inputs, module = trial.inputs(), trial.module()
    exact(module(**inputs), trial.loss(inputs), "module against function")
    said = repr(module)
    home = type(module).__module__  # what its defaults are made of, in its file or its package
    known = {**vars(sys.modules.get(home.rpartition(".")[0], torch)), **vars(sys.modules[home])}
    known |= {type(module).__name__: trial.spec.module, "torch": torch}
    known |= {_name(v): v if hasattr(v, "__qualname__") else type(v) for v in _callables(trial)}
    try:
        again = eval(said, known)
    except Exception as error:
        raise AssertionError(f"repr is not a call that works: {said}: {error}") from error
    require(repr(again) == said, f"repr of what {said} makes is {again!r}")
    exact(again(**inputs), module(**inputs), f"the module made again from {said}")


def _callables(trial: Trial) -> list[Any]:
    return [v for v in trial.options().values() if callable(v)]


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__name__)


@promise_of_row()
def every_option_is_exercised(spec: Spec) -> None:
    """Every option is set away from its default in some case, and makes a difference there."""
    trials = spec.trials()
    for name, default in spec.defaults().items():
        away = [
            t
            for t in trials
            if _differs(t.options().get(name, default), default) or _given(t, name)
        ]
        # where a call without it is no call at all, that is the effect; elsewhere the result is
        without = [_matters(t, name) for t in away]
        asked = bool(away) and all(other is None for other in without)
        effect = (
            asked
            or any(without)
            or any(
                refused.exercises and name in refused.options and _decides(trials[0], refused, name)
                for refused in spec.refused
            )
        )
        require(away or effect, f"{name}: no case sets it away from {default!r}")
        if name in spec.neutral:
            same_result = not any(_matters(t, name, rtol=1e-12) for t in away)
            require(same_result, f"{name}: changes the result, though {spec.neutral[name]}")
            continue
        require(effect, f"{name}: set in {[t.label for t in away]}, without any effect")


def _given(trial: Trial, name: str) -> bool:
    return name in trial.inputs(2)


def _differs(value: object, default: object) -> bool:
    return type(value) is not type(default) or bool(value != default)


def _matters(trial: Trial, name: str, *, rtol: float = 0.0) -> bool | None:
    """Whether the result is another one without an option; None if there is none."""
    inputs = trial.inputs()
    options = trial.options()
    value, grad = trial.gradient(inputs)
    bare = {k: t for k, t in inputs.items() if k != name}
    options.pop(name, None)
    x = bare[trial.prediction(bare)].detach().requires_grad_()
    try:
        without = trial.spec.function(**{**bare, trial.prediction(bare): x}, **options)
    except (ValueError, TypeError):
        return None
    if without.shape != value.shape:
        return True
    pairs = (without.detach(), value), (torch.autograd.grad(without.sum(), x)[0], grad)
    return any(bool((a - b).abs().amax() > rtol * b.abs().amax()) for a, b in pairs)


def _decides(trial: Trial, refused: Refused, name: str) -> bool:
    """Whether an option is what has a call refused."""
    others = {k: v for k, v in refused.options.items() if k != name}
    try:
        trial.spec.function(**refused.change(trial.inputs()), **trial.options(**others))
    except (ValueError, TypeError):
        return False
    return True


@promise_of_row()
def bad_input_is_refused(spec: Spec) -> None:
    """Wrong shapes, dtypes, options and values raise an error that names the argument.

    Limits: of a loss with conventions of its own, any error is taken for a refusal; its weights,
    and ``alpha``, are tried at -1 and at 3: as its inputs have them, else as numbers or by class.
    """
    trial = spec.trials()[0]
    broken: dict[str, list[str]] = {}
    for refused in (*_always_refused(trial), *spec.refused):
        calls = {"function": lambda i, o: spec.function(**i, **{**trial.options(), **o})}
        if spec.module is not None:
            calls["module"] = lambda i, o: _made(spec, {**trial.options(), **o})(**i)
        for which, call in calls.items():
            with plainly():
                said = _refuses(call, trial, refused)
            if said:
                broken.setdefault(f"{refused.about}: {said}", []).append(which)
    ways = 1 if spec.module is None else 2
    found = [
        said if len(which) == ways else f"{said}, by the {which[0]}"
        for said, which in broken.items()
    ]
    found += _weighed(trial) if spec.stranger else []
    require(not found, "; ".join(found))


def _weighed(trial: Trial) -> list[str]:
    """What a stranger makes of weights below 0, which leave a loss no least value, and above 1."""
    inputs, found = trial.inputs(), []
    name = trial.prediction(inputs)
    classes = inputs[name].shape[1:2] if inputs[name].ndim > 1 else ()

    def tried(key: str, weight: Any) -> float | None:
        given = {**inputs, key: weight} if key in inputs else inputs
        options = {} if key in inputs else {key: weight}
        try:
            values = trial.spec.function(**given, **{**trial.options(), **options}, **unreduced)
            return float(values.min()) if isinstance(values, Tensor) else None
        except Exception:
            return None

    unreduced = {"reduction": "none"}
    plain = float(trial.spec.function(**inputs, **trial.options(), **unreduced).min())
    for key in _weights_of(trial):
        forms: list[Callable[[float], Any]] = [float]
        if key in inputs:
            forms = [partial(torch.full_like, inputs[key])]
        elif classes:
            forms += [partial(inputs[name].new_full, classes), lambda v: [v] * classes[0]]
        taken = next((form for form in forms if tried(key, form(0.5)) is not None), None)
        if taken is None or plain < 0:
            continue
        below, above = tried(key, taken(-1.0)), tried(key, taken(3.0))
        if below is not None:
            found.append(f"{key} of -1: let through, as {below:.6g}")
        if above is not None and not above >= 0:
            found.append(f"{key} of 3: a value of {above:.6g}, below 0")
    return found


def _weights_of(trial: Trial) -> list[str]:
    """The arguments, by their names, that weigh."""
    names = [*trial.inputs(), *trial.spec.weighs]
    words = {"weight", "weights", "alpha"}
    return [name for name in names if words & set(name.lower().split("_"))]


def _made(spec: Spec, options: Options) -> nn.Module:
    assert spec.module is not None
    return spec.module(**options)


def _refuses(call: Callable[[Inputs, Any], Tensor], trial: Trial, refused: Refused) -> str:
    """How it did not; empty if it did."""
    inputs = refused.change(trial.inputs())
    try:
        got = call(inputs, refused.options)
    except (ValueError, TypeError) as error:
        said = f"raised {type(error).__name__}: {error}"
        if trial.spec.stranger:
            return ""
        if not isinstance(error, refused.error):
            return f"{said}; wanted {refused.error.__name__}"
        return (
            "" if refused.naming in str(error) else f"{said}; it does not name {refused.naming!r}"
        )
    except Exception as error:
        return "" if trial.spec.stranger else f"raised {type(error).__name__}: {error}"
    shown = f"{float(got):.6g}" if got.numel() == 1 else f"a tensor of shape {tuple(got.shape)}"
    return f"let through, as {shown}"


def _always_refused(trial: Trial) -> Sequence[Refused]:
    """What every loss refuses."""
    inputs = trial.inputs()
    prediction, target, *_ = inputs

    def one_sample(name: str) -> Callable[[Inputs], Inputs]:
        return lambda i: {**i, name: i[name].narrow(trial.case.axis, 0, 1)}

    def integers(i: Inputs) -> Inputs:
        return {**i, prediction: i[prediction].long()}

    def deeper(i: Inputs) -> Inputs:
        return {**i, target: i[target].unsqueeze(0)}

    unknown = ("average", "none") if trial.spec.composite else ("average",)
    return [
        *(Refused(f"{k} that would broadcast", k, change=one_sample(k)) for k in inputs),
        Refused(f"another axis on {target}", target, change=deeper),
        Refused(f"integer {prediction}", prediction, change=integers, error=TypeError),
        *(Refused(f"reduction {r!r}", "reduction", {"reduction": r}) for r in unknown),
        Refused("an unknown keyword", "colour", {"colour": 1}, error=TypeError),
    ]


@promise("module")
def copies(trial: Trial) -> None:
    """The module survives deepcopy, pickle and a state_dict, which holds its tensors."""
    inputs, module = trial.inputs(), trial.module()
    want = module(**inputs)
    exact(copy.deepcopy(module)(**inputs), want, "a deep copy")
    exact(pickle.loads(pickle.dumps(module))(**inputs), want, "a pickled copy")
    tensors = {k for k, v in trial.options().items() if isinstance(v, Tensor)}
    state = module.state_dict()
    as_options = set(state) == tensors or trial.spec.stranger
    require(as_options, f"the state_dict holds {sorted(state)}, wanted {sorted(tensors)}")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    blank = trial.module(**{k: torch.ones_like(trial.options()[k]) for k in tensors})
    blank.load_state_dict(torch.load(file, weights_only=True, map_location=trial.device))
    exact(blank(**inputs), want, "a module that loads the state_dict")


@promise("module")
def follows_to_dtype_and_device(trial: Trial) -> None:
    """``module.to(...)`` takes its tensors along, and inputs of any floating dtype are welcome."""
    inputs = trial.inputs()
    want = trial.loss(inputs)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        with about(str(dtype)):
            module = trial.module().to(dtype)
            wrong = [k for k, t in module.state_dict().items() if t.dtype != dtype]
            require(not wrong, f"{wrong} stayed behind")
            same(module(**inputs), want, "value", rtol=torch.finfo(dtype).eps * 8 + 1e-12)
            low = trial.cast(inputs, dtype)
            value = trial.module()(**low)
            wide = [torch.float32] if dtype != torch.float64 or trial.spec.rounds else []
            wide += [dtype] if dtype == torch.float64 else []
            require(value.dtype in wide, f"the loss of {dtype} inputs is {value.dtype}")
    meta = trial.module().to("meta")
    wrong = [k for k, t in meta.state_dict().items() if t.device.type != "meta"]
    require(not wrong, f"{wrong} stayed behind, off the meta device")
    value = nn.Sequential(meta)[0](**{k: t.to("meta") for k, t in inputs.items()})
    require(value.device.type == "meta", f"on the meta device the loss is on {value.device}")
