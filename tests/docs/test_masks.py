"""Each program of the page on masks runs, and computes what its paper writes."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

TEXT = (Path(__file__).parents[2] / "docs" / "masks.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", TEXT, re.DOTALL))


def _dice(p, t, axes):
    return 1 - 2 * (p * t).sum(axes) / (p + t).sum(axes)


def _hot(target, classes):
    return F.one_hot(target, classes).movedim(-1, 1).float()


def _skeleton(x, iterations=3):
    """Shit et al. 2021, algorithm 1."""

    def eroded(x):
        across = -F.max_pool2d(-x, (3, 1), 1, (1, 0)), -F.max_pool2d(-x, (1, 3), 1, (0, 1))
        return torch.minimum(*across)

    found = torch.zeros_like(x)
    for _ in range(iterations + 1):
        new = F.relu(x - F.max_pool2d(eroded(x), 3, 1, 1))
        found, x = found + F.relu(new - found * new), eroded(x)
    return found


def _skeleton_recall(s):
    p = s["model"](s["volume"]).softmax(1)
    axes = (0, 2, 3, 4)
    line = torch.zeros_like(p[:, 1:])
    line[:, 0, 1:6, 1:6], line[:, 1, 10:15, :, 10:15] = 1, 1  # five of seven voxels across
    inner = (..., slice(2, -2), slice(2, -2))  # the ends of a tube are eroded, too
    torch.testing.assert_close(s["skeleton"][:, 1:][inner], line[inner])
    line = s["skeleton"][:, 1:]
    recall = ((p[:, 1:] * line).sum(axes) / line.sum(axes)).mean()
    dice = _dice(p, _hot(s["target"], 3), axes).mean()
    return dice + F.cross_entropy(s["logits"], s["target"]) + 1 - recall


def _cl_ce(s):
    logits, vessel = s["model"](s["image"]), s["target"].float().unsqueeze(1)
    each = F.cross_entropy(logits, s["target"], reduction="none")
    lines = _skeleton(vessel) + _skeleton(logits.softmax(1)[:, 1:])
    return (each * lines.squeeze(1)).mean()


def _u_net(s):
    at = torch.cartesian_prod(torch.arange(24.0), torch.arange(24.0))
    far = torch.stack([torch.cdist(at, at[m.flatten() == 1]).amin(1) for m in s["cells"][0]])
    near = far.sort(0).values[:2].sum(0).view(1, 24, 24)
    t = s["target"]
    balance = torch.where(t == 1, 1 / t.float().mean(), 1 / (1 - t).float().mean())
    weight = balance + (t == 0) * 10 * (-near.square() / 50).exp()
    each = F.cross_entropy(s["model"](s["image"]), t, reduction="none")
    return (weight * each).sum() / weight.sum()


def _boundary(s):
    p, t, phi = s["model"](s["image"]).softmax(1), _hot(s["target"], 2), s["phi"]
    assert s["epoch"] == 2  # 0.01 and twice as much more
    return _dice(p, t, (0, 2, 3)).mean() + 0.03 * (phi * (p - t)).mean()


def _exponential(s):
    p, t = s["model"](s["image"]).softmax(1), _hot(s["target"], 4)
    share = t.mean((0, 2, 3))
    region = (-(1 - _dice(p, t, (0, 2, 3))).log()).pow(0.3).mean()
    pixel = (t * (1 / share).sqrt().view(1, 4, 1, 1) * (-p.log()).pow(0.3)).sum(1).mean()
    return 0.8 * region + 0.2 * pixel


def _unified(s):
    p, t = s["model"](s["image"]).softmax(1), _hot(s["target"], 2)
    nll = -t * p.log()
    pixel = 0.4 * (1 - p[:, 0]).sqrt() * nll[:, 0] + 0.6 * nll[:, 1]
    hit, extra, missed = ((a * b).sum((2, 3)) for a, b in ((p, t), (p, 1 - t), (1 - p, t)))
    region = 1 - hit / (hit + 0.4 * extra + 0.6 * missed)
    return 0.5 * pixel.mean() + 0.5 * (region[:, 0] + region[:, 1].sqrt()).mean() / 2


def _combo(s):
    p, t = s["model"](s["image"]).sigmoid(), s["target"]
    dice = _dice(p, t, (0, 1, 2, 3))
    torch.testing.assert_close(s["bent"], ((dice.exp() + (-dice).exp()) / 2).log())
    pixel = -(0.7 * t * p.log() + 0.3 * (1 - t) * (1 - p).log()).mean()
    return 0.5 * pixel - 0.5 * (1 - dice)


def _boxes(s):
    p, total = s["model"](s["image"]).sigmoid(), 0.0
    for axis in (2, 3):
        a, b = p.amax(axis), s["box"].amax(axis)
        total = total + 1 - (2 * (a * b).sum(-1) / (a**2 + b**2).sum(-1)).mean()
    return total


def _partial(s):
    p = s["model"](s["image"]).softmax(1)
    first = torch.stack((p[0, 0] + p[0, 2], p[0, 1], torch.zeros_like(p[0, 0])))
    known = s["target"] >= 0
    p, t = torch.stack((first, p[1])), _hot(s["target"].clamp(min=0), 3)
    dice = _dice(p * known.unsqueeze(1), t * known.unsqueeze(1), (0, 2, 3)).mean()
    return dice - (t * p).sum(1)[known].log().mean()


def _hardest(s):
    logits = s["model"](s["image"])
    dice = _dice(logits.softmax(1), _hot(s["target"], 3), (2, 3))[:, 1:].mean()
    each = F.cross_entropy(logits, s["target"], reduction="none").flatten()
    return dice + each.topk(116).values.mean()  # of 1152, a tenth is 115.2


FORMULAS = {
    "Skeleton recall": _skeleton_recall, "Centre lines": _cl_ce, "Borders": _u_net,
    "A boundary loss": _boundary, "Rare classes": _exponential, "What is rare": _unified,
    "Dice that bends": _combo, "Masks from boxes": _boxes, "Data sets": _partial,
    "The hardest": _hardest,
}  # fmt: skip


def test_each_program_has_its_formula():
    assert len(PROGRAMS) == len(FORMULAS) == TEXT.count("```python") == 10


@pytest.mark.parametrize("title", FORMULAS)
def test_a_recipe_is_its_formula(title):
    (program,) = (text for name, text in PROGRAMS.items() if name.startswith(title))
    assert 10 <= len([line for line in program.splitlines() if line.strip()]) <= 25
    with torch.random.fork_rng():
        exec(program, scope := {"__name__": "masks"})
    assert scope["loss"].requires_grad
    assert scope["model"].weight.grad.isfinite().all()
    torch.testing.assert_close(scope["loss"], FORMULAS[title](scope), rtol=1e-5, atol=1e-6)
