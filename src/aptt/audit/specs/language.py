"""Rows of the losses with a teacher, with several heads, or with old tasks to remember."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

import aptt.loss
from aptt.audit.spec import Inputs, Maker, Options, Refused, Spec, case
from aptt.audit.specs.making import (
    BY_CHUNKS,
    HAS_A_UNIT,
    NOTHING_FROZEN,
    grid,
    indices,
    marked,
    normal,
    with_,
)
from aptt.loss import DistillationLoss, LwFLoss, distillation_loss, lwf_loss

__all__ = ["LANGUAGE"]

_C = 5
_K = 3  # classes that a teacher tells of, or that an old head has
_INF = float("inf")
_BY_TERM = {
    "counts_what_it_says": "each term has a total and a count of its own; its test file holds them"
}


def _hot(target: Tensor, dim: int = -1, *, classes: int = _C) -> Tensor:
    """One-hot, with no class for what is ignored."""
    hot = torch.nn.functional.one_hot(target.clamp_min(0), classes).double()
    return (hot * (target >= 0).unsqueeze(-1)).movedim(-1, dim)


# ------------------------------------------------------------------------------ distillation


def _taught(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, _C, scale=3), normal(g, n, _C, scale=3)
    target = torch.randperm(n, generator=g) % _C
    return {"student_logits": student, "teacher_logits": teacher, "hard_targets": target}


def _only_taught(g: Generator, n: int) -> Inputs:
    inputs = with_(_taught, "sample_weight", "hard_targets")(g, n)
    return {k: t for k, t in inputs.items() if k != "hard_targets"}


def _taught_some(g: Generator, n: int) -> Inputs:
    inputs = _only_taught(g, n)
    log_p = (inputs["teacher_logits"] / 2).log_softmax(1)
    chosen = torch.rand(n, _C, generator=g).argsort(1)[:, :_K]
    return {**inputs, "teacher_logits": log_p.gather(1, chosen), "teacher_indices": chosen}


def _taught_tokens(g: Generator, n: int) -> Inputs:
    """Rows of _C tokens: only ``class_dim`` says which axis holds the classes."""
    student, teacher = normal(g, n, _C, _C, scale=3), normal(g, n, _C, _C, scale=3)
    target = indices(g, _C, n, _C)
    return {"student_logits": student, "teacher_logits": teacher, "hard_targets": target}


def _taught_image(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, _C, 2, 3, scale=3), normal(g, n, _C, 2, 3, scale=3)
    target = indices(g, _C, n, 2, 3)
    return {"student_logits": student, "teacher_logits": teacher, "hard_targets": target}


def _hide_taught(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    if "sample_weight" in inputs:
        return {**inputs, "sample_weight": inputs["sample_weight"].masked_fill(~keep, 0)}
    ignored = options.get("ignore_index", -100)
    return {**inputs, "hard_targets": inputs["hard_targets"].masked_fill(~keep, ignored)}


def _count_taught(inputs: Inputs, options: Options) -> Tensor | float | dict[str, Tensor]:
    if "hard_targets" not in inputs:
        return inputs["sample_weight"].sum()
    kept = inputs["hard_targets"] != options.get("ignore_index", -100)
    return (kept * inputs.get("sample_weight", torch.ones(()))).sum()


def _perfectly_taught(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    """The teacher's own logits; with hard targets, those of a teacher that is right and sure."""
    teacher = inputs["teacher_logits"]
    if "teacher_indices" in inputs:
        p = teacher.exp()
        rest = ((1 - p.sum(1, keepdim=True)) / (_C - _K)).expand(-1, _C)
        whole = rest.scatter(1, inputs["teacher_indices"], p)
        return {**inputs, "student_logits": whole.log() * options["temperature"]}, None
    if "hard_targets" in inputs:
        teacher = 1000 * _hot(inputs["hard_targets"], options.get("class_dim", 1))
    return {**inputs, "student_logits": teacher.clone(), "teacher_logits": teacher}, 0.0


def _hopelessly_taught(inputs: Inputs, options: Options) -> Inputs:
    """The teacher's first choice, which is right too, is the student's last, by 30."""
    dim = options.get("class_dim", 1)
    inputs = dict(inputs)
    if "teacher_indices" in inputs:
        best = inputs["teacher_indices"].gather(1, inputs["teacher_logits"].argmax(1, True))
        first = best.squeeze(1)
    else:
        first = inputs["teacher_logits"].argmax(dim)
    if "hard_targets" in inputs:
        inputs["hard_targets"] = torch.where(first == options.get("ignore_index", -100), 0, first)
    low = inputs["student_logits"] / 10 - 30 * _hot(first, dim)
    return {**inputs, "student_logits": low}


def _taught_extremes() -> Inputs:
    rows = grid(
        [6e4, -6e4, 0, 0, 0],
        [-6e4, -6e4, -6e4, -6e4, 6e4],
        [6e4, 6e4, 6e4, 6e4, 6e4],
        [0, 0, 0, 0, 0],
        [30, 0, 0, 0, 0],
        [200, 100, 0, -100, -200],
        [1e-6, -1e-6, 0, 1e-6, 0],
        [6e4, 5.9e4, 5.8e4, 1, 0],
    )
    student, teacher = rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)
    masked = grid([0, -_INF, -_INF, 1, 0], [6e4, -_INF, -6e4, 3, -_INF], [2] + 4 * [-_INF])
    student = torch.cat((student[:-6], masked, masked))  # both sides mask, or one
    teacher = torch.cat((teacher[:-6], masked, masked.roll(1, 0)))
    target = torch.arange(len(student)) % _C
    target = torch.where(student.gather(1, target.unsqueeze(1)).squeeze(1) > -_INF, target, 0)
    return {"student_logits": student, "teacher_logits": teacher, "hard_targets": target}


_OWN = {"perfect_is_minimal": "its own inputs; the optimum is that of the matrix form"}
_FADES = {
    "hopeless_keeps_a_gradient": "bounded by definition: its gradient fades where the two models "
    "share no likely class; the hard term, if there is one, does not"
}


_IN_TWO = {
    "perfect_is_minimal": "smoothed targets and a teacher have no common optimum",
    "counts_what_it_says": "it is two losses with a count each, which have rows of their own",
    "streamed_equals_plain": "it is two losses, which have rows of their own",
}
_DETACHED = {"detach_teacher": "it decides about the teacher's gradient alone"}


def _distillation() -> Spec:
    weighted = with_(_taught, "sample_weight", "hard_targets")
    return Spec(
        name="distillation_loss",
        function=distillation_loss,
        module=DistillationLoss,
        inputs=_taught,
        neutral=_DETACHED,
        cases={
            "teacher and targets": case(),
            "teacher alone": case(_only_taught, alpha=1.0, temperature=1.0),
            "two counts": case(
                standardize=True,
                class_weight=torch.tensor([1.0, 2.0, 0.5, 0.25, 3.0]),
                label_smoothing=0.1,
                exempt=_IN_TWO,
            ),
            "reverse": case(
                weighted, divergence="reverse_kl", temperature=2.0, alpha=0.25, ignore_index=3
            ),
            "reverse, teacher alone": case(_only_taught, divergence="reverse_kl", hard_weight=0.0),
            "mixture": case(
                divergence="jsd", beta=0.3, soft_weight=2.0, hard_weight=0.25, reduction="sum"
            ),
            "mixture, teacher alone": case(
                _only_taught, divergence="jsd", hard_weight=0.0, temperature=2.0, exempt=_FADES
            ),
            "some classes": case(_taught_some, alpha=1.0, temperature=2.0),
            "some classes, reverse": case(
                _taught_some,
                alpha=1.0,
                temperature=2.0,
                divergence="reverse_kl",
                detach_teacher=False,
            ),
            "some classes, mixture": case(
                _taught_some,
                alpha=1.0,
                temperature=2.0,
                divergence="jsd",
                beta=0.7,
                exempt=_FADES,
            ),
            "tokens": case(
                marked(_taught_tokens, 1, "hard_targets"),
                class_dim=-1,
                features=-1,
                ignore_index=1,
                reduction="none",
            ),
            "image": case(_taught_image, soft_weight=0.5, exempt=_OWN),
        },
        features=1,
        hide=_hide_taught,
        count=_count_taught,
        perfect=_perfectly_taught,
        hopeless=_hopelessly_taught,
        extremes=_taught_extremes,
        refused=(
            Refused("temperature 0", "temperature", {"temperature": 0.0}),
            Refused("a negative temperature", "temperature", {"temperature": -1.0}),
            Refused("a share above 1", "alpha", {"alpha": 1.5}),
            Refused("a negative weight", "soft_weight", {"soft_weight": -1.0}),
            Refused("a negative weight of the targets", "hard_weight", {"hard_weight": -1.0}),
            Refused("an unknown divergence", "divergence", {"divergence": "kl"}),
            Refused("a mixture of one", "beta", {"divergence": "jsd", "beta": 1.0}),
            Refused("beta without a mixture", "beta", {"beta": 0.3}),
            Refused("no targets for the hard term", "hard_targets", change=_untargeted),
            Refused("a single logit", "student_logits", change=_single),
            Refused("a class out of range", "hard_targets", change=_beyond),
            Refused(
                "floats for class indices",
                "hard_targets",
                change=lambda i: {**i, "hard_targets": i["hard_targets"].double()},
                error=TypeError,
            ),
            Refused(
                "ignore_index with nothing to look in",
                "ignore_index",
                {"ignore_index": 0, "alpha": 1.0},
                _untargeted,
            ),
            Refused(
                "another vocabulary",
                "teacher_logits: got (11, 4)",
                change=lambda i: {**i, "teacher_logits": i["teacher_logits"][:, 1:]},
            ),
            Refused(
                "logits where log-probabilities are due",
                "teacher_logits",
                change=lambda i: {**i, "teacher_indices": torch.arange(_C).expand(11, _C)},
            ),
            Refused(
                "classes that are none",
                "teacher_indices",
                change=lambda i: {
                    **i,
                    "teacher_logits": i["teacher_logits"].log_softmax(1),
                    "teacher_indices": torch.arange(_C).expand(11, _C) + 1,
                },
            ),
            Refused("a class axis that is none", "class_dim", {"class_dim": 2}),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _single(inputs: Inputs) -> Inputs:
    logits = {name: inputs[name][:, :1] for name in ("student_logits", "teacher_logits")}
    return {**inputs, **logits, "hard_targets": torch.zeros_like(inputs["hard_targets"])}


def _untargeted(inputs: Inputs) -> Inputs:
    return {k: t for k, t in inputs.items() if k != "hard_targets"}


def _beyond(inputs: Inputs) -> Inputs:
    return {**inputs, "hard_targets": inputs["hard_targets"] + 1}


# -------------------------------------------------------------------- multi-token prediction


class MTPLoss(aptt.loss.MTPLoss):
    """The module, with its heads side by side in one tensor, ``(N, heads, T, V)``."""

    def forward(  # type: ignore[override] # the audit has one prediction
        self, logits: Tensor, target: Tensor, **options: Any
    ) -> Tensor:
        """The loss of the heads."""
        return super().forward(logits.unbind(1), target, **options)


def multi_token_loss(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The function, with its heads side by side in one tensor, ``(N, heads, T, V)``."""
    return aptt.loss.multi_token_loss(logits.unbind(1), target, **options)


_RENAMED = {
    "logits_list": "logits",
    "hidden_list": "hidden",
}
_FILLED_IN = (
    "weight",
    "teacher_weight",
    "bias",
    "teacher_bias",
    "teacher_logits",
    "teacher_indices",
)


def _sign(own: Any, theirs: Any) -> None:
    """Give a function the signature of another, but for predictions, and heads it fills in."""
    signature = inspect.signature(theirs)
    head = "hidden_list" in signature.parameters or "hidden" in signature.parameters
    parameters = [
        p.replace(name=_RENAMED.get(p.name, p.name))
        for p in signature.parameters.values()
        if not (head and p.name in _FILLED_IN)
    ]
    own.__signature__ = signature.replace(parameters=parameters)


_sign(multi_token_loss, aptt.loss.multi_token_loss)
_sign(MTPLoss.forward, aptt.loss.MTPLoss.forward)

_DEPTH, _T, _V = 2, 3, 3


def _heads(g: Generator, n: int) -> Inputs:
    logits = normal(g, n, 1 + _DEPTH, _T, _V, scale=3)
    return {"logits": logits, "target": indices(g, _V, n, _T)}


def _documents(g: Generator, n: int) -> Inputs:
    """Two documents to a sequence, the second from the last token on."""
    document = torch.tensor([0, 0, 1]).expand(n, _T).contiguous()
    return {**_heads(g, n), "document_ids": document}


_FURTHER = dict.fromkeys(
    ("ignoring_is_removing", "nothing_left_is_zero", "split_invariance"),
    "its targets reach further than its positions; the test file of the loss splits it",
)


def _shard(g: Generator, n: int) -> Inputs:
    """Targets that go on behind the positions of the heads."""
    return {**_heads(g, n), "target": indices(g, _V, n, _T + _DEPTH)}


def _at_step(g: Generator, n: int) -> Inputs:
    return with_(_heads, "sample_weight", "target")(g, n)


def _falling(step: float) -> float:
    return 0.3 if step < 10 else 0.1


_CALLED = dict.fromkeys(
    ("twin_agrees", "leaves_inputs_alone", "copies", "follows_to_dtype_and_device"),
    "it comes with the call of the module, which the test file of the loss makes",
)


def _hide_tokens(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    ignored = options.get("ignore_index", -100)
    return {**inputs, "target": inputs["target"].masked_fill(~keep[:, 0], ignored)}


def _ahead(inputs: Inputs, options: Options) -> Tensor:
    """One-hot, what each head is to say at each position; 0 where there is nothing to say."""
    target = inputs["target"].masked_fill(inputs["target"] == options.get("ignore_index", -100), -1)
    first = 1 if options.get("labels") == "raw" else 0
    padded = torch.nn.functional.pad(target, (0, 1 + _DEPTH), value=-1)
    return torch.stack(
        [_hot(padded[:, first + k :][:, :_T], classes=_V) for k in range(1 + _DEPTH)], 1
    )


def _perfect_heads(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    return {**inputs, "logits": 1000 * _ahead(inputs, options)}, 0.0


def _hopeless_heads(inputs: Inputs, options: Options) -> Inputs:
    """Every sequence has something to say."""
    target = inputs["target"]
    target = torch.where(target == options.get("ignore_index", -100), 0, target)
    inputs = {**inputs, "target": target}
    return {**inputs, "logits": inputs["logits"] / 10 - 30 * _ahead(inputs, options)}


def _head_extremes() -> Inputs:
    rows = grid(
        [6e4, -6e4, 0],
        [-6e4, -6e4, 6e4],
        [6e4, 6e4, 6e4],
        [30, 0, 0],
        [1e-6, -1e-6, 0],
        [6e4, 5.9e4, 1],
        [0, 3, -_INF],
    )
    n = len(rows)
    picks = torch.arange(n * (1 + _DEPTH) * _T) % n
    target = (torch.arange(n * _T) % 2).view(n, _T)  # a class that is masked is never asked for
    return {"logits": rows[picks].view(n, 1 + _DEPTH, _T, _V), "target": target}


def _multi_token() -> Spec:
    smoothed = {"perfect_is_minimal": "smoothing, softcap and z-loss move the optimum"}
    return Spec(
        name="multi_token_loss",
        function=multi_token_loss,
        module=MTPLoss,
        inputs=_heads,
        cases={
            "aligned": case(),
            "raw, packed": case(_documents, labels="raw", ignore_index=2, mtp_lambda=1.0),
            "own counts": case(
                marked(_heads, 2), normalize="valid", ignore_index=2, mtp_depth=_DEPTH
            ),
            "scheduled": case(
                _at_step, mtp_lambda=_falling, step=20, reduction="sum", exempt=_CALLED
            ),
            "a shard": case(_shard, right_context=_DEPTH, exempt={**_CALLED, **_FURTHER}),
            "with the options of cross-entropy": case(
                class_weight=torch.tensor([0.5, 2.0, 1.0]),
                label_smoothing=0.1,
                z_loss=0.01,
                softcap=9.0,
                exempt=smoothed,
            ),
        },
        features=-1,
        joint=True,
        terms=1 + _DEPTH,
        reductions=("mean", "sum"),
        hide=_hide_tokens,
        perfect=_perfect_heads,
        hopeless=_hopeless_heads,
        extremes=_head_extremes,
        refused=(
            Refused("values one by one", "reduction", {"reduction": "none"}),
            Refused("more heads than there are", "logits_list", {"mtp_depth": 3}, exercises=True),
            Refused("fewer heads than there are", "mtp_depth", {"mtp_depth": 1}),
            Refused("a negative lambda", "mtp_lambda", {"mtp_lambda": -0.1}),
            Refused("a schedule without its step", "step", {"mtp_lambda": _falling}),
            Refused("an unknown normalize", "normalize", {"normalize": "all"}),
            Refused("unknown labels", "labels", {"labels": "shifted"}),
            Refused("a class out of range", "target", change=_next_class),
            Refused(
                "targets shifted before",
                "shifted",
                change=lambda i: {**i, "target": i["target"][:, 1:]},
            ),
            Refused(
                "documents of another length",
                "document_ids",
                change=lambda i: {**i, "document_ids": i["target"][:, 1:]},
            ),
        ),
        exempt={
            **HAS_A_UNIT,
            **NOTHING_FROZEN,
            **_BY_TERM,
            "none_sums_to_sum": "heads of different lengths have no common shape of values",
        },
    )


def _next_class(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] + 1}


# --------------------------------------------------------------- learning without forgetting


def _grown(g: Generator, n: int) -> Inputs:
    """Old classes first, and targets among those that are new."""
    return {
        "new_logits": normal(g, n, _C, scale=3),
        "target": _K + torch.randperm(n, generator=g) % (_C - _K),
        "old_logits": normal(g, n, _K, scale=3),
    }


def _grown_tokens(g: Generator, n: int) -> Inputs:
    return {
        "new_logits": normal(g, n, _C, _C, scale=3),
        "target": _K + indices(g, _C - _K, n, _C),
        "old_logits": normal(g, n, _C, _K, scale=3),
    }


def _hide_grown(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    ignored = options.get("ignore_index", -100)
    return {**inputs, "target": inputs["target"].masked_fill(~keep, ignored)}


def _well_grown(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    """What the old head said, and the new class far above it."""
    index = torch.tensor(options.get("old_classes") or list(range(_K)))
    old = inputs["old_logits"]
    logits = torch.zeros_like(inputs["new_logits"]).index_copy(-1, index, old)
    return {**inputs, "new_logits": logits + 1000 * _hot(inputs["target"])}, None


def _badly_grown(inputs: Inputs, options: Options) -> Inputs:
    targets = inputs["target"]
    targets = torch.where(targets == options.get("ignore_index", -100), _C - 1, targets)
    low = inputs["new_logits"] / 10 - 30 * _hot(targets)
    return {**inputs, "target": targets, "new_logits": low}


def _grown_extremes() -> Inputs:
    rows = grid(
        [6e4, -6e4, 0, 0, 0],
        [-6e4, -6e4, -6e4, -6e4, 6e4],
        [6e4, 6e4, 6e4, 6e4, 6e4],
        [30, 0, 0, 0, 0],
        [200, 100, 0, -100, -200],
        [1e-6, -1e-6, 0, 1e-6, 0],
        [6e4, 5.9e4, 5.8e4, 1, 0],
    )
    new, old = rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)[:, :_K]
    targets = _K + torch.arange(len(new)) % 2
    masked = grid([0, 1, 2, 1, -_INF])
    return {
        "new_logits": torch.cat((new, masked)),
        "target": torch.cat((targets, torch.tensor([3]))),
        "old_logits": torch.cat((old, masked[:, :_K])),
    }


def _lwf() -> Spec:
    weighted = with_(_grown, "sample_weight", "target")
    return Spec(
        name="lwf_loss",
        function=lwf_loss,
        module=LwFLoss,
        inputs=_grown,
        cases={
            "one more task": case(),
            "some old classes": case(
                old_classes=[2, 0, 1], temperature=3.0, lambda_old=0.5, ignore_index=3
            ),
            "weighted": case(weighted, lambda_old=2.0, detach_teacher=False, reduction="sum"),
            "tokens": case(_grown_tokens, class_dim=-1, features=-1, reduction="none"),
        },
        features=1,
        terms=2,
        neutral=_DETACHED,
        hide=_hide_grown,
        perfect=_well_grown,
        hopeless=_badly_grown,
        extremes=_grown_extremes,
        refused=(
            Refused("temperature 0", "temperature", {"temperature": 0.0}),
            Refused("a negative weight", "lambda_old", {"lambda_old": -1.0}),
            Refused("a task, of one head", "task", {"task": "birds"}, exercises=True),
            Refused("a class out of range", "target", change=_next_new_class),
            Refused(
                "an old head that is wider",
                "old_logits",
                change=lambda i: {**i, "old_logits": i["new_logits"].repeat(1, 2)},
            ),
            Refused("an old class that is none", "old_classes", {"old_classes": [0, 1, 5]}),
            Refused("an old class twice", "old_classes", {"old_classes": [0, 1, 1]}),
            Refused("an old class too few", "old_classes", {"old_classes": [0, 1]}),
            Refused(
                "floats for class indices",
                "target",
                change=lambda i: {**i, "target": i["target"].double()},
                error=TypeError,
            ),
            Refused("a class axis that is none", "class_dim", {"class_dim": 2}),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN, **_BY_TERM},
    )


def _next_new_class(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] + 1}


# --------------------------------------------------------- from hidden states, as in heads.py

_NEUTRAL = {
    "chunk": "it says how much is multiplied at once",
    "drop_ignored": "it says whether what is ignored is multiplied",
}
_HEAD = {
    "streamed_equals_plain": "it walks on its own; its tests compare every chunk size",
    "autocast": "autocast decides what the head multiplies in, as it does for F.linear",
}


def _eye(t: Tensor) -> Tensor:
    """A weight that gives the hidden states back as logits."""
    return torch.eye(t.shape[-1], dtype=t.dtype, device=t.device)


def linear_distillation_loss(hidden: Tensor, teacher_hidden: Tensor, **options: Any) -> Tensor:
    """The function, with both heads filled in."""
    s, t = hidden, teacher_hidden
    return aptt.loss.linear_distillation_loss(s, _eye(s), t, _eye(t), **options)


class LinearDistillationLoss(aptt.loss.LinearDistillationLoss):
    """The module, with both heads filled in."""

    def forward(  # type: ignore[override] # the audit has no heads
        self, hidden: Tensor, teacher_hidden: Tensor, **options: Any
    ) -> Tensor:
        """The loss of the student against the teacher."""
        s, t = hidden, teacher_hidden
        return super().forward(s, _eye(s), t, _eye(t), **options)


def linear_multi_token_loss(hidden: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The function, with its depths side by side, and the head filled in."""
    return aptt.loss.linear_multi_token_loss(hidden.unbind(1), _eye(hidden), target, **options)


class LinearMTPLoss(aptt.loss.LinearMTPLoss):
    """The module, with its depths side by side, and the head filled in."""

    def forward(  # type: ignore[override] # the audit has one prediction
        self, hidden: Tensor, target: Tensor, **options: Any
    ) -> Tensor:
        """The loss of the depths."""
        return super().forward(hidden.unbind(1), _eye(hidden), target, **options)


_sign(linear_distillation_loss, aptt.loss.linear_distillation_loss)
_sign(LinearDistillationLoss.forward, aptt.loss.LinearDistillationLoss.forward)
_sign(linear_multi_token_loss, aptt.loss.linear_multi_token_loss)
_sign(LinearMTPLoss.forward, aptt.loss.LinearMTPLoss.forward)


def _only_finite(make: Callable[[], Inputs]) -> Callable[[], Inputs]:
    """Without masked classes, which a head masks by its bias."""

    def made() -> Inputs:
        inputs = make()
        keep = torch.stack(
            [t.isfinite().flatten(1).all(1) for t in inputs.values() if t.is_floating_point()]
        ).all(0)
        return {name: t[keep] for name, t in inputs.items()}

    return made


def _finite_heads() -> Inputs:
    inputs = _head_extremes()
    return {**inputs, "logits": inputs["logits"].clamp_min(-6e4)}


def _renamed(row: Spec, names: dict[str, str]) -> Spec:
    """A row whose inputs have other names."""
    back = {b: a for a, b in names.items()}

    def put(inputs: Inputs) -> Inputs:
        return {names.get(k, k): t for k, t in inputs.items()}

    def taken(inputs: Inputs) -> Inputs:
        return {back.get(k, k): t for k, t in inputs.items()}

    def made(make: Maker) -> Maker:
        return lambda g, n: put(make(g, n))

    assert row.perfect is not None
    assert row.hopeless is not None
    assert row.hide is not None
    assert row.extremes is not None
    perfect, hopeless, hide, count = row.perfect, row.hopeless, row.hide, row.count
    extremes = row.extremes

    def best(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
        found, value = perfect(taken(inputs), options)
        return put(found), value

    def changed(r: Refused) -> Refused:
        return replace(
            r, naming=names.get(r.naming, r.naming), change=lambda i: put(r.change(taken(i)))
        )

    return replace(
        row,
        inputs=made(row.inputs),
        cases={
            label: replace(c, inputs=c.inputs and made(c.inputs)) for label, c in row.cases.items()
        },
        perfect=best,
        hopeless=lambda inputs, options: put(hopeless(taken(inputs), options)),
        hide=lambda inputs, options, keep: put(hide(taken(inputs), options, keep)),
        count=count and (lambda inputs, options: count(taken(inputs), options)),
        extremes=lambda: put(extremes()),
        refused=[changed(r) for r in row.refused],
    )


def _linear_distillation() -> Spec:
    own = _distillation()
    without = {"teacher_indices", "class_dim"}
    names = ("teacher and targets", "teacher alone", "reverse", "mixture")
    cases = {name: own.cases[name] for name in names}
    cases["teacher and targets"] = case(chunk=4, drop_ignored=False, detach_teacher=False)
    cases["bent"] = case(
        softcap=40.0,
        teacher_softcap=50.0,
        scale=0.5,
        teacher_scale=0.5,
        **own.cases["two counts"].options,
        exempt=_IN_TWO,
    )
    return replace(
        own,
        name="linear_distillation_loss",
        function=linear_distillation_loss,
        module=LinearDistillationLoss,
        cases=cases,
        extremes=_only_finite(_taught_extremes),
        refused=[
            r
            for r in own.refused
            if not without & {r.naming, *r.options}
            and "teacher_" not in r.naming + r.about
            and "log-prob" not in r.about
            and r.change is not _single
        ],
        neutral={**_NEUTRAL, **_DETACHED},
        asks=BY_CHUNKS,
        exempt={**own.exempt, **_HEAD},
    )


def _linear_multi_token() -> Spec:
    own = _multi_token()
    cases = dict(own.cases)
    cases["aligned"] = case(chunk=5, drop_ignored=False)
    cases["own counts"] = replace(
        cases["own counts"], options={**cases["own counts"].options, "scale": 2.0}
    )
    return replace(
        own,
        name="linear_multi_token_loss",
        function=linear_multi_token_loss,
        module=LinearMTPLoss,
        cases=cases,
        extremes=_finite_heads,
        refused=[
            replace(r, naming="hidden_list") if r.naming == "logits_list" else r
            for r in own.refused
        ],
        neutral=_NEUTRAL,
        asks=BY_CHUNKS,
        exempt={**own.exempt, **_HEAD},
    )


LANGUAGE = (
    _distillation(),
    _renamed(
        _linear_distillation(), {"student_logits": "hidden", "teacher_logits": "teacher_hidden"}
    ),
    _multi_token(),
    _renamed(_linear_multi_token(), {"logits": "hidden"}),
    _lwf(),
)
