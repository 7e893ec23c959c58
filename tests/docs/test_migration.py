"""Every row of the migration page is run: their call and ours, value and gradient."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aptt.loss

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # benchmarks are no part of the package
TEXT = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
ROWS = [
    (library, *row)
    for library, part in re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    for row in re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", part, re.MULTILINE)
]


def inputs():
    g = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=g).requires_grad_()

    def among(n, *shape):
        return torch.randint(n, shape, generator=g)

    labels = among(3, 4, 8, 8)
    low = 60 * torch.rand(16, 2, dtype=torch.float64, generator=g)
    boxes = torch.cat((low, low + 20), 1)
    shake = 4 * torch.rand(16, 4, dtype=torch.float64, generator=g)
    return {
        "logits": normal(16, 5),
        "target": among(5, 16),
        "soft": normal(16, 5).detach().softmax(1),
        "weight": torch.rand(5, dtype=torch.float64, generator=g) + 0.5,
        "answers": normal(16, 3),
        "bits": among(2, 16, 3).double(),
        "maps": normal(4, 3, 8, 8),
        "labels": labels,
        "masks": F.one_hot(labels, 3).movedim(-1, 1).double(),
        "x": normal(64).detach().abs().requires_grad_(),
        "y": normal(64).detach().abs(),
        "boxes": boxes,
        "pred": (boxes + shake).requires_grad_(),
    }


def library(name):
    if name == "segmentation-models-pytorch":
        return {"smp": importlib.import_module("benchmarks.peers").smp_losses()}
    return {name.lower(): importlib.import_module(f"{name.lower()}.losses")}


def outcome(call, names):
    value = eval(call, names)
    leaves = [t for t in names.values() if isinstance(t, torch.Tensor) and t.requires_grad]
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    (grad,) = [grad for grad in grads if grad is not None]
    return value.detach(), grad


@pytest.mark.parametrize(("name", "theirs", "ours"), ROWS, ids=[row[1] for row in ROWS])
def test_both_calls_give_the_same(name, theirs, ours):
    known = {"F": F, "nn": nn, "torch": torch}
    if name != "torch":
        try:
            known |= library(name)
        except ModuleNotFoundError as error:
            pytest.skip(f"{error}; it comes with aptt[bench]")
    losses = {each: getattr(aptt.loss, each) for each in aptt.loss.__all__}
    given = inputs()
    want, want_grad = outcome(theirs, {**known, **given})
    value, grad = outcome(ours, {**losses, **given})
    rtol = {"torch": 1e-12, "kornia": 2e-5}.get(name, 1e-4)
    scale = want_grad.abs().max().item()
    torch.testing.assert_close(value.double(), want.double(), rtol=rtol, atol=0)
    torch.testing.assert_close(grad, want_grad.double(), rtol=rtol, atol=5 * rtol * scale)


def test_the_page_has_rows_for_every_library_that_can_be_imported():
    named = {name for name, *_ in ROWS}
    assert named == {"torch", "kornia", "MONAI", "segmentation-models-pytorch"}
    assert len(ROWS) > 25
