"""Each program of the methods page runs, and computes what its paper writes."""

import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import distillation_loss

TEXT = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
PROGRAMS = dict(
    re.findall(r"## ([^\n:]+)[^\n]*\n(?:(?!\n## ).)*?```python\n(.*?)```", TEXT, re.DOTALL)
)


def _ran(title):
    (program,) = (text for name, text in PROGRAMS.items() if name.startswith(title))
    assert 10 <= len([line for line in program.splitlines() if line.strip()]) <= 25
    with torch.random.fork_rng():
        exec(program, scope := {"__name__": "methods"})
    return scope


def _der(s):
    stored = s["model"](s["stored_images"])[:, :4]
    return (
        F.cross_entropy(s["model"](s["images"]), s["labels"])
        + 0.3 * (stored - s["stored_logits"]).square().mean()
        + 0.5 * F.cross_entropy(s["model"](s["more_images"]), s["more_labels"])
    )


def _lwf_mc(s):
    g, q = s["model"](s["images"]).sigmoid(), s["before"](s["images"]).sigmoid()
    total = 0.0
    for c in range(6):
        t = q[:, c] if c < 4 else (s["labels"] == c).float()
        total = total - (t * g[:, c].log() + (1 - t) * (1 - g[:, c]).log()).mean()
    return total


def _cpo(s):
    log_p = s["model"](s["inputs"]).log_softmax(-1)
    mask = s["target"] != -100
    mine = log_p.gather(-1, s["target"].clamp(min=0)[..., None])[..., 0] * mask
    score = mine.sum(1)
    nll = -mine[:4].sum() / mask[:4].sum()
    return -(0.1 * (score[:4] - score[4:])).sigmoid().log().mean() + nll


def _gkd(s):
    q, p = (s[who](s["tokens"][:, :-1]).softmax(-1)[:, 2:] for who in ("student", "teacher"))
    m = (p + q) / 2
    return ((p * (p / m).log() + q * (q / m).log()).sum(-1) / 2).mean()


def _grad_cache(s):
    a, b = (F.normalize(s["encoder"](s[side])) for side in ("queries", "documents"))
    loss = F.cross_entropy(20 * a @ b.T, torch.arange(32))
    whole = torch.autograd.grad(loss, s["encoder"].parameters(), retain_graph=True)
    for got, want in zip(s["encoder"].parameters(), whole, strict=True):
        assert (got.grad - want).norm() < 2e-5 * want.norm()
    return loss


def _mixed(s):
    logits, w = s["student"](s["images"]), s["class_weight"]
    q, p = (z.div(3).softmax(1) for z in (logits, s["taught"]))
    soft = 9 * (p * (p / q).log()).sum(1).mean()
    smooth = 0.9 * s["target"] + 0.1 / 5
    hard = -(w * smooth * logits.log_softmax(1)).sum() / (w * s["target"]).sum()
    return 0.1 * soft + 0.9 * hard


def _standard(s):
    logits, taught = s["student"](s["images"]), s["teacher"](s["images"])
    p, q = (((z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True, correction=0) / 2).softmax(1)
            for z in (taught, logits))  # fmt: skip
    soft = 4 * (p * (p / q).log()).sum(1).mean()
    return 0.9 * soft + 0.1 * F.cross_entropy(logits, s["labels"])


def _several(s):
    total = 0.0
    for name, head in s["heads"].items():
        logits = head(s["body"](s["images"]))
        said = (s["before"][1][name](s["before"][0](s["images"])) / 2).softmax(1)
        total = total + F.cross_entropy(logits, s["labels"][name])
        total = total - (said * (logits / 2).log_softmax(1)).sum(1).mean()
    return total


FORMULAS = {
    "DER++": _der, "LwF-MC": _lwf_mc, "CPO": _cpo, "GKD": _gkd, "GradCache": _grad_cache,
    "A teacher beside mixed": _mixed, "Logits of one size": _standard, "Several tasks": _several,
}  # fmt: skip


def test_each_program_has_its_formula():
    assert len(PROGRAMS) == len(FORMULAS) + 1 == TEXT.count("```python") == 9


@pytest.mark.parametrize("title", FORMULAS)
def test_a_method_is_its_formula(title):
    scope = _ran(title)
    assert scope["loss"].requires_grad
    torch.testing.assert_close(scope["loss"], FORMULAS[title](scope), rtol=1e-5, atol=1e-6)


def test_the_divergence_class_by_class():
    s = _ran("Which classes")
    loss = distillation_loss(s["logits"], s["taught"], alpha=1.0, temperature=2.0)
    torch.testing.assert_close(s["by_class"].sum(), loss)
    assert s["terms"].min() > -1e-6  # rounding
    torchs = 4 * F.kl_div(s["log_q"], s["log_p"], log_target=True, reduction="none")
    torch.testing.assert_close(torchs.sum(1), s["rows"])
    assert torchs.min() < 0
    for c in range(5):
        torch.testing.assert_close(s["by_label"][c], s["rows"][s["labels"] == c].mean())


def test_weighed_by_class_its_terms_are_least_where_both_agree():
    """Of p log(p / q) alone, a class that weighs more is to be likelier than the teacher says."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    weight = torch.tensor([3.0, 1.0, 1.0], dtype=torch.float64)
    x = p.log().requires_grad_()
    q = x.softmax(0)
    (ours,) = torch.autograd.grad(
        (weight * (p * (p / q).log() - p + q)).sum(), x, retain_graph=True
    )
    (torchs,) = torch.autograd.grad((weight * p * (p / q).log()).sum(), x)
    torch.testing.assert_close(ours, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(torchs, -torch.tensor([0.5, -0.3, -0.2], dtype=torch.float64))
