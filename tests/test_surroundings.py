"""No mode, default device or default dtype around a loss changes what it gives, there or later."""

import inspect
import traceback
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from aptt.audit import SPECS
from aptt.compose import CombinedLoss, GradShare, Ramp, Uncertainty
from aptt.core import transform
from aptt.core.checks import tensors
from aptt.loss import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    DetectionLoss,
    DiceLoss,
    FocalLoss,
    MelLoss,
    binary_cross_entropy,
    engine,
    focal_loss,
)

ROWS = [pytest.param(spec, id=name) for name, spec in SPECS.items()]


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def emptied():
    """What accelerate's ``init_empty_weights(include_buffers=True)`` did before it was a device."""
    names = ("empty", "zeros", "ones", "full")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(torch, name, _elsewhere(getattr(torch, name)))
        for kind in ("buffer", "parameter"):
            patch.setattr(nn.Module, f"register_{kind}", _moving(kind))
        yield


def _elsewhere(make):
    return lambda *args, **kwargs: make(*args, **{**kwargs, "device": "meta"})


def _moving(kind):
    register = getattr(nn.Module, f"register_{kind}")

    def moving(module, name, tensor, *args, **kwargs):
        register(module, name, tensor, *args, **kwargs)
        held = getattr(module, f"_{kind}s")
        if held[name] is not None:
            moved = held[name].to("meta")
            held[name] = nn.Parameter(moved) if kind == "parameter" else moved

    return moving


AROUND = {
    "device meta": lambda: torch.device("meta"),
    "default device meta": lambda: default_device("meta"),
    "emptied": emptied,
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "inference": torch.inference_mode,
}


@pytest.fixture(autouse=True)
def nothing_held():
    transform._held.cache_clear()
    yield
    transform._held.cache_clear()


def _module(trial):
    """The module of a case, but of one whose options come with the call."""
    made = trial.spec.module
    known = made is not None and trial.options().keys() <= inspect.signature(made).parameters.keys()
    return trial.module() if known else None


def _alike(got: Tensor, want: Tensor, rtol: float = 0) -> None:
    torch.testing.assert_close(got, want, rtol=rtol, atol=0)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("spec", ROWS)
def test_it_is_made_and_called_as_anywhere_else(spec, around):
    for trial in spec.trials():
        inputs = trial.inputs(dtype=torch.float32)
        value, wants = trial.loss(inputs), trial.gradient(inputs)
        transform._held.cache_clear()
        with AROUND[around]():
            made = _module(trial)
            # without autograd, what is evaluated whole takes shorter forms, rounded otherwise
            _alike(trial.loss(inputs), value, 2e-7 if around == "inference" else 0)
            if around != "inference":
                _alike(trial.gradient(inputs)[1], wants[1])
        for got, want in zip(trial.gradient(inputs), wants, strict=True):
            _alike(got, want)
        if made is not None:
            _alike(made(**inputs), value)


class Named(Tensor):
    """A class that adds to torch's tensors, as MONAI's and torchvision's do."""


@pytest.mark.parametrize("spec", ROWS)
def test_a_class_that_adds_to_tensors_changes_nothing(spec):
    trial = next(iter(spec.trials()))
    inputs = trial.inputs(dtype=torch.float32)
    value, grad = trial.gradient(inputs)
    named = {name: t.clone().as_subclass(Named) for name, t in inputs.items()}
    x = named[trial.prediction(inputs)].requires_grad_()
    got = trial.loss(named)
    got.sum().backward()
    _alike(got.detach().as_subclass(Tensor), value)
    _alike(x.grad.as_subclass(Tensor), grad)


@pytest.mark.parametrize("spec", ROWS)
def test_what_a_teacher_says_under_inference_mode_serves(spec):
    trial = next(iter(spec.trials()))
    inputs = trial.inputs(dtype=torch.float32)
    name = trial.prediction(inputs)
    value, grad = trial.gradient(inputs)
    with torch.inference_mode():
        given = {key: t.clone() for key, t in inputs.items()}
    _alike(trial.loss(given), trial.loss(inputs))
    for got, want in zip(trial.gradient(given | {name: inputs[name]}), (value, grad), strict=True):
        _alike(got, want)


@pytest.mark.parametrize("spec", ROWS)
def test_fake_tensors_leave_nothing_behind(spec):
    for trial in spec.trials():
        inputs = trial.inputs(dtype=torch.float32)
        value, wants = trial.loss(inputs), trial.gradient(inputs)
        transform._held.cache_clear()
        with FakeTensorMode() as mode:
            fakes = {name: mode.from_tensor(t) for name, t in inputs.items()}
            options = {
                name: mode.from_tensor(option)
                for name, option in trial.options().items()
                if isinstance(option, Tensor)
            }
            got = trial.gradient(fakes, **options)
            made = _module(trial)
        for fake, want in zip(got, wants, strict=True):
            assert (fake.shape, fake.dtype, fake.device) == (want.shape, want.dtype, want.device)
        for real, want in zip(trial.gradient(inputs), wants, strict=True):
            _alike(real, want)
        if made is not None:
            _alike(made(**inputs), value)


class _NoHalves(TorchDispatchMode):
    """Refuses an operator that gives bfloat16, where nothing was."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.dtype == torch.bfloat16:
                ours = [f for f in traceback.extract_stack() if "/aptt/" in f.filename]
                raise AssertionError(f"{func} at {ours[-1].filename}:{ours[-1].lineno}")
        return out


@pytest.mark.parametrize("spec", ROWS)
def test_no_number_is_made_in_the_default_dtype(spec):
    for trial in spec.trials():
        inputs = trial.inputs()
        for reduction in ("mean", lambda total, count, *, term: total / count):
            with default_dtype(torch.bfloat16), _NoHalves():
                trial.loss(inputs, reduction=reduction)
                trial.gradient(inputs, reduction=reduction)
                with engine("plain"):
                    trial.gradient(inputs, reduction=reduction)


LISTED = {
    "cross_entropy": lambda: CrossEntropyLoss(
        weight=[0.1, 0.2, 0.7], logit_adjustment=[0.3, 0.0, -0.3]
    ),
    "focal": lambda: FocalLoss(alpha=[0.1, 0.2, 0.7]),
    "dice": lambda: DiceLoss(class_weight=[0.1, 0.2, 0.7]),
}
MODES = {**AROUND, "fake": FakeTensorMode}


@pytest.mark.parametrize("around", MODES)
@pytest.mark.parametrize("name", LISTED)
def test_numbers_per_class_keep_their_values(name, around):
    shape = (5, 3, 4) if name == "dice" else (5, 3)
    logits, target = torch.linspace(-2, 2, shape[0] * 3 * (4 if name == "dice" else 1)), None
    logits = logits.view(shape).requires_grad_()
    target = torch.arange(logits[:, 0].numel()).remainder(3).view(logits[:, 0].shape)
    want = LISTED[name]()(logits, target)
    with MODES[around]():
        loss_fn = LISTED[name]()
    got = loss_fn(logits, target)
    _alike(got, want)
    got.backward()  # refused of a buffer that inference mode has made


@pytest.mark.parametrize("around", MODES)
def test_an_empty_filter_is_refused_wherever_it_is_made(around):
    with MODES[around](), pytest.raises(ValueError, match="mel filters are empty"):
        MelLoss(sample_rate=16000, n_fft=256, n_mels=128)


def test_numbers_per_class_go_where_a_model_is_made(monkeypatch):
    monkeypatch.setattr(tensors, "real_device", lambda: "meta")  # stands for an accelerator
    assert DetectionLoss(class_weight=[1.0, 2.0]).class_weight.device == torch.device("meta")


def test_a_factor_of_integers_keeps_its_digits():
    x, t = torch.tensor([0.5, -1.0]), torch.tensor([1, 0])
    with default_dtype(torch.bfloat16):
        got = binary_cross_entropy(x, t, pos_weight=3.3)
        held = BinaryCrossEntropyLoss(pos_weight=torch.tensor(3.3, dtype=torch.float64))(x, t)
        rows = focal_loss(x.view(1, 2), torch.tensor([1]), alpha=0.3, reduction="sum")
    p = x.double().sigmoid()
    want = -(3.3 * p[0].log() + (1 - p[1]).log()) / 2
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(held.double(), want, rtol=1e-6, atol=0)
    p = x.double().softmax(0)[1]
    torch.testing.assert_close(rows.double(), -0.3 * (1 - p) ** 2 * p.log(), rtol=1e-6, atol=0)


def test_a_count_that_is_a_float_keeps_its_digits():
    from aptt.core.reduction import on_device

    with default_dtype(torch.bfloat16):
        assert on_device(1000.5, torch.zeros((), dtype=torch.bfloat16)).item() == 1000.5
        assert on_device(2**24 + 1, torch.zeros(())).item() == 2**24 + 1


@pytest.mark.parametrize("around", [name for name in MODES if name not in ("float64", "emptied")])
@pytest.mark.parametrize("balance", [None, GradShare, Uncertainty])
def test_a_sum_of_losses_is_made_anywhere(around, balance):
    def made():
        return CombinedLoss(
            {"a": nn.L1Loss(), "b": nn.MSELoss()},
            {"a": 0.3, "b": Ramp(0.1, 0.7, over=3)},
            balance=balance and balance(),
        )

    x, y = torch.linspace(0, 2, 5, requires_grad=True), torch.ones(5)
    at = {"at": x} if balance is GradShare else {}
    want = made()(x, y, **at)
    with MODES[around]():
        criterion = made()
    _alike(criterion(x, y, **at), want)
    assert criterion.log()["a/weight"] > 0
