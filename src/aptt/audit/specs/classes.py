"""Rows of the losses over classes, and over independent yes-or-no questions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Options, Refused, Spec, case
from aptt.audit.specs.making import (
    HAS_A_UNIT,
    NOTHING_FROZEN,
    bits,
    grid,
    indices,
    marked,
    normal,
    uniform,
    with_,
)
from aptt.loss import (
    AsymmetricLoss,
    BinaryCrossEntropyLoss,
    CORALLoss,
    CORNLoss,
    CrossEntropyLoss,
    FocalLoss,
    GeneralizedCrossEntropyLoss,
    Poly1Loss,
    SymmetricCrossEntropyLoss,
    TopKCrossEntropyLoss,
    asymmetric_loss,
    binary_cross_entropy,
    coral_loss,
    corn_loss,
    cross_entropy,
    focal_loss,
    generalized_cross_entropy_loss,
    poly1_loss,
    symmetric_cross_entropy_loss,
    top_k_cross_entropy_loss,
)

__all__ = ["CLASSES"]

_C = 5
_PER_CLASS = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5])
_INF = float("inf")


def _classes(g: Generator, n: int) -> Inputs:
    """Every class appears, if there are as many samples."""
    return {"logits": normal(g, n, _C, scale=3), "target": torch.randperm(n, generator=g) % _C}


def _image(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, _C, 2, 3, scale=3), "target": indices(g, _C, n, 2, 3)}


def _square(g: Generator, n: int) -> Inputs:
    """Rows of _C tokens: only ``class_dim`` says which axis holds the classes."""
    return {"logits": normal(g, n, _C, _C, scale=3), "target": indices(g, _C, n, _C)}


def _soft(g: Generator, n: int) -> Inputs:
    target = normal(g, n, _C).softmax(1)
    return {"logits": normal(g, n, _C, scale=3), "target": target}


def _soft_image(g: Generator, n: int) -> Inputs:
    target = normal(g, n, _C, 3).softmax(1)
    return {"logits": normal(g, n, _C, 3, scale=3), "target": target}


def _class_extremes() -> Inputs:
    rows = grid(
        [6e4, -6e4, 0, 0, 0],
        [-6e4, -6e4, -6e4, -6e4, 6e4],
        [6e4, 6e4, 6e4, 6e4, 6e4],
        [-6e4, -6e4, -6e4, -6e4, -6e4],
        [0, 0, 0, 0, 0],
        [30, 0, 0, 0, 0],
        [200, 100, 0, -100, -200],
        [1e-6, -1e-6, 0, 1e-6, 0],
        [6e4, 5.9e4, 5.8e4, 1, 0],
    ).repeat_interleave(_C, 0)
    target = torch.arange(_C).repeat(len(rows) // _C)
    masked = grid([0, -_INF, -_INF, 1, 0], [6e4, -_INF, -6e4, -_INF, -_INF], [2] + 4 * [-_INF])
    return {
        "logits": torch.cat((rows, masked, masked)),
        "target": torch.cat((target, torch.tensor([0, 0, 0, 3, 2, 0]))),
    }


def _hide_classes(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    for name in ("sample_weight", "weight"):
        if name in inputs:
            return {**inputs, name: inputs[name].masked_fill(~keep, 0)}
    ignored = options.get("ignore_index")
    ignored = -100 if ignored is None else ignored
    return {**inputs, "target": inputs["target"].masked_fill(~keep, ignored)}


def _count_classes(inputs: Inputs, options: Options) -> Tensor:
    target = inputs["target"]
    weight = options.get("weight", torch.ones(_C)).double().to(target.device)
    if target.is_floating_point():
        dim = options.get("class_dim", 1)
        mass = target.movedim(dim, -1).double() @ weight
    else:
        ignored = target == options.get("ignore_index", -100)
        mass = torch.where(ignored, 0.0, weight[target.masked_fill(ignored, 0)])
    return (mass * inputs.get("sample_weight", torch.ones_like(mass))).sum()


def _mass(inputs: Inputs, options: Options) -> Tensor:
    """The weight of each class in each row of a (N, C) cross-entropy, which is best matched."""
    weight = options.get("weight", torch.ones(_C)).to(inputs["logits"])
    smoothing = options.get("label_smoothing", 0.0)
    return weight * ((1 - smoothing) * _hot(inputs, options) + smoothing / _C)


def _perfect_classes(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    # a softmax equal to the normalised mass, with logsumexp 0 so that the z-loss is 0 too
    mass = _mass(inputs, options)
    logits = (mass / mass.sum(1, keepdim=True)).log()
    if "logit_adjustment" in options:
        logits = logits - options["logit_adjustment"].to(logits)
    exactly = not inputs["target"].is_floating_point() and not options.get("label_smoothing")
    return {**inputs, "logits": logits}, 0.0 if exactly else None


def _hopeless_classes(inputs: Inputs, options: Options) -> Inputs:
    """Any class but the right one, by 30."""
    target, ignored = inputs["target"], options.get("ignore_index")
    inputs = {**inputs, "target": torch.where(target == ignored, 0, target) if ignored else target}
    return {**inputs, "logits": inputs["logits"] / 10 - 30 * _hot(inputs, options)}


def _hot(inputs: Inputs, options: Options) -> Tensor:
    target = inputs["target"]
    if target.is_floating_point():
        return target
    hot = torch.nn.functional.one_hot(target, _C).to(inputs["logits"])
    return hot.movedim(-1, options.get("class_dim", 1))


def _floating_target(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"].double()}


def _out_of_range(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"].add(1)}


_NO_OPTIMUM = {"perfect_is_minimal": "its own inputs; the optimum is that of the matrix form"}
_CAPPED = {"perfect_is_minimal": "softcap keeps the logits away from the optimum, as it says"}
_MATRIX = "the logits of soft targets are those of class indices"


def _cross_entropy() -> Spec:
    soft = with_(_soft, "sample_weight", "logits", features=1)
    soft_image = with_(_soft_image, "sample_weight", "logits", features=1)
    return Spec(
        name="cross_entropy",
        function=cross_entropy,
        module=CrossEntropyLoss,
        inputs=_classes,
        cases={
            "class indices": case(),
            "smoothed, weighted": case(weight=_PER_CLASS, label_smoothing=0.1),
            "z-loss": case(z_loss=0.01, weight=_PER_CLASS),
            "capped, adjusted": case(
                softcap=5.0, z_loss=0.01, logit_adjustment=_PER_CLASS.log(), exempt=_CAPPED
            ),
            "adjusted": case(logit_adjustment=_PER_CLASS.log(), ignore_index=2, exempt=_NO_OPTIMUM),
            "weighted samples": case(
                with_(_classes, "sample_weight", "target"),
                label_smoothing=0.2,
                ignore_index=3,
                reduction="sum",
            ),
            "image": case(_image, weight=_PER_CLASS, label_smoothing=0.1, exempt=_NO_OPTIMUM),
            "tokens": case(
                _square,
                class_dim=-1,
                z_loss=0.01,
                features=-1,
                reduction="none",
                exempt=_NO_OPTIMUM,
            ),
            "soft": case(soft),
            "soft, everything": case(
                soft_image,
                class_dim=1,
                weight=_PER_CLASS,
                label_smoothing=0.1,
                z_loss=0.01,
                softcap=9.0,
                logit_adjustment=_PER_CLASS.log(),
                exempt=_CAPPED,
            ),
        },
        features=1,
        hide=_hide_classes,
        count=_count_classes,
        perfect=_perfect_classes,
        hopeless=_hopeless_classes,
        extremes=_class_extremes,
        refused=(
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("floats for class indices", "target", change=_floating_target, error=TypeError),
            Refused("a weight per class too few", "weight", {"weight": torch.ones(_C - 1)}),
            Refused(
                "an adjustment of one", "logit_adjustment", {"logit_adjustment": torch.ones(1)}
            ),
            Refused("smoothing above 1", "label_smoothing", {"label_smoothing": 1.1}),
            Refused("a negative z-loss", "z_loss", {"z_loss": -1.0}),
            Refused("softcap 0", "softcap", {"softcap": 0.0}),
            Refused("an infinite softcap", "softcap", {"softcap": _INF}),
            Refused("a class axis that is none", "class_dim", {"class_dim": 2}),
            Refused("two axes that may hold the classes", "class_dim", change=_ambiguous),
            Refused(
                "soft targets whose class axis cannot be seen",
                "class_dim",
                change=lambda i: {
                    "logits": i["logits"].unsqueeze(2),
                    "target": i["logits"].softmax(1).unsqueeze(2),
                },
            ),
            Refused(
                "ignore_index with soft targets",
                "ignore_index",
                {"ignore_index": 0},
                lambda i: {**i, "target": i["logits"].softmax(1)},
            ),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _ambiguous(inputs: Inputs) -> Inputs:
    square = inputs["logits"][:_C].expand(2, _C, _C)
    return {"logits": square, "target": inputs["target"][:_C].expand(2, _C)}


def _answers(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, 3, scale=3), "target": bits(g, n, 3)}


def _maps(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, 3, 2, scale=3), "target": bits(g, n, 3, 2).bool()}


def _soft_answers(g: Generator, n: int) -> Inputs:
    return {"logits": normal(g, n, 3, scale=3), "target": uniform(g, n, 3)}


def _answer_extremes() -> Inputs:
    sizes = [6e4, 1e3, 120.0, 88.0, 60.0, 41.0, 39.0, 30.0, 17.0, 12.0, 1.0, 1e-3, 1e-6, 0.0]
    x = grid(sizes).T
    logits = torch.cat((x, -x)).expand(-1, 3).repeat(2, 1)
    target = torch.arange(2).repeat_interleave(2 * len(sizes)).unsqueeze(1).expand(-1, 3)
    return {"logits": logits, "target": target.contiguous()}


def _hide_answers(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    if "weight" in inputs:
        return {**inputs, "weight": inputs["weight"].masked_fill(~keep, 0)}
    ignored = options.get("ignore_index")
    if ignored is None:
        return {**inputs, "weight": keep}
    return {**inputs, "target": inputs["target"].masked_fill(~keep, ignored)}


def _count_answers(inputs: Inputs, options: Options) -> Tensor | float:
    if options.get("normalize") == "positives":
        return (inputs["target"] * inputs.get("weight", torch.ones(()))).sum()
    kept = inputs["target"] != options.get("ignore_index", -1)
    return (kept * inputs.get("weight", torch.ones(()))).sum()


def _perfect_answers(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    target, smoothing = inputs["target"], options.get("label_smoothing", 0.0)
    if not (target.is_floating_point() or smoothing):
        return {**inputs, "logits": (2.0 * target.double() - 1) * 1000}, 0.0
    t = target.double() * (1 - smoothing) + smoothing / 2
    p = options.get("pos_weight", torch.ones(()))
    p = p.to(t) if isinstance(p, Tensor) else p
    return {**inputs, "logits": (p * t / (1 - t)).log()}, None


def _hopeless_answers(inputs: Inputs, options: Options) -> Inputs:
    return {**inputs, "logits": inputs["logits"] / 10 + 30 * (1 - 2 * inputs["target"].double())}


def _binary() -> Spec:
    return Spec(
        name="binary_cross_entropy",
        function=binary_cross_entropy,
        module=BinaryCrossEntropyLoss,
        inputs=_answers,
        cases={
            "0 and 1": case(),
            "smoothed": case(
                with_(marked(_answers, 7), "weight", "logits"), label_smoothing=0.1, ignore_index=7
            ),
            "positives weigh more": case(
                marked(_answers, 7), pos_weight=3.0, ignore_index=7, reduction="none"
            ),
            "per class": case(
                _maps,
                pos_weight=_PER_CLASS[:3],
                class_dim=1,
                exempt={"perfect_is_minimal": "pos_weight runs along an axis in the middle"},
            ),
            "soft, per class": case(_soft_answers, pos_weight=_PER_CLASS[:3], reduction="sum"),
        },
        hide=_hide_answers,
        count=_count_answers,
        perfect=_perfect_answers,
        hopeless=_hopeless_answers,
        extremes=_answer_extremes,
        refused=(
            Refused("targets beyond 1", "target", change=_out_of_range),
            Refused("smoothing below 0", "label_smoothing", {"label_smoothing": -0.1}),
            Refused("a negative weight", "pos_weight", {"pos_weight": -1.0}),
            Refused("a weight of another size", "pos_weight", {"pos_weight": torch.ones(2)}),
            Refused(
                "three axes, any of which may be the classes",
                "class_dim",
                {"pos_weight": torch.ones(3)},
                lambda i: {k: t.unsqueeze(2) for k, t in i.items()},
            ),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _asymmetric() -> Spec:
    def hopeless(inputs: Inputs, options: Options) -> Inputs:
        """Less sure than others: by definition a negative that is surely wrong is let go."""
        return {**inputs, "logits": inputs["logits"] / 10 + 4 * (1 - 2 * inputs["target"].double())}

    return Spec(
        name="asymmetric_loss",
        function=asymmetric_loss,
        module=AsymmetricLoss,
        inputs=_answers,
        cases={
            "0 and 1": case(),
            "weighted": case(
                with_(marked(_answers, 7), "weight", "logits"),
                gamma_positive=1.0,
                margin=0.2,
                ignore_index=7,
            ),
            "soft, without a margin": case(
                _soft_answers,
                gamma_negative=1.5,
                margin=0.0,
                reduction="none",
                exempt={"perfect_is_minimal": "of shares, the best logit has no closed form"},
            ),
        },
        hide=_hide_answers,
        count=_count_answers,
        perfect=lambda i, o: ({**i, "logits": (2.0 * i["target"].double() - 1) * 1000}, 0.0),
        hopeless=hopeless,
        extremes=_answer_extremes,
        refused=(
            Refused("targets beyond 1", "target", change=_out_of_range),
            Refused("a negative exponent", "gamma_negative", {"gamma_negative": -1.0}),
            Refused("a negative exponent", "gamma_positive", {"gamma_positive": -1.0}),
            Refused("a margin of all", "margin", {"margin": 1.0}),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _sigmoid_focal() -> Spec:
    return Spec(
        name="focal_loss (sigmoid)",
        function=focal_loss,
        module=FocalLoss,
        inputs=_answers,
        cases={
            "0 and 1": case(),
            "gamma below 1": case(gamma=0.5, alpha=None, reduction="sum"),
            "gamma 0": case(marked(_answers, 9), gamma=0.0, ignore_index=9),
            "weighted": case(
                with_(marked(_answers, 9), "weight", "logits"), ignore_index=9, gamma=1.5
            ),
            "per positive": case(_maps, alpha=0.75, normalize="positives"),
            "per class": case(_maps, alpha=torch.tensor([0.1, 0.5, 0.9]), class_dim=1, gamma=3.0),
        },
        hide=_hide_answers,
        count=_count_answers,
        perfect=_perfect_answers,
        hopeless=_hopeless_answers,
        extremes=_answer_extremes,
        refused=(
            Refused("soft labels", "target", change=_soft_labels),
            Refused("a negative exponent", "gamma", {"gamma": -1.0}),
            Refused("alpha above 1", "alpha", {"alpha": 1.5}),
            Refused("alpha of another size", "alpha", {"alpha": torch.ones(2)}),
            Refused("an unknown count", "normalize", {"normalize": "boxes"}),
            Refused("shares of integers", "target", {"kind": "softmax"}, exercises=True),
            Refused("a form that is none", "kind", {"kind": "tanh"}),
            Refused(
                "smoothed answers", "label_smoothing", {"label_smoothing": 0.1}, exercises=True
            ),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _soft_labels(inputs: Inputs) -> Inputs:
    return {**inputs, "target": inputs["target"] * 0.5}


def _softmax_focal() -> Spec:
    """Options of the sigmoid form alone are exercised by its own row, which has the function."""
    return Spec(
        name="focal_loss (softmax)",
        function=focal_loss,
        module=FocalLoss,
        inputs=_classes,
        cases={
            "class indices": case(),
            "gamma below 1": case(gamma=0.5, alpha=None, reduction="none"),
            "per class": case(
                with_(_classes, "weight", "target"),
                alpha=_PER_CLASS / 2,
                gamma=1.0,
                ignore_index=4,
                reduction="sum",
            ),
            "image": case(_image, gamma=0.0, ignore_index=2),
            "tokens": case(_square, class_dim=-1, features=-1),
            "smoothed": case(
                label_smoothing=0.1,
                gamma=1.5,
                exempt={"perfect_is_minimal": "of shares, the best logit has no closed form"},
            ),
            "soft": case(
                with_(_soft, "weight", "logits", features=1),
                kind="softmax",
                alpha=_PER_CLASS,
                exempt={"perfect_is_minimal": "of shares, the best logit has no closed form"},
            ),
        },
        features=1,
        hide=_hide_classes,
        count=_count_focal,
        perfect=lambda i, o: ({**i, "logits": 1000 * _hot(i, o)}, 0.0),
        hopeless=_hopeless_classes,
        extremes=_class_extremes,
        refused=(
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("floats for class indices", "target", change=_floating_target, error=TypeError),
            Refused("alpha of another size", "alpha", {"alpha": torch.ones(2)}),
            Refused("two axes that may hold the classes", "class_dim", change=_ambiguous),
            Refused(
                "positives among classes", "normalize", {"normalize": "positives"}, exercises=True
            ),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _of_the_chance(function: Any, module: Any, refused: Refused, **options: Any) -> Spec:
    """A loss of the probability of the right class."""
    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_classes,
        cases={
            "class indices": case(),
            "weighted": case(
                with_(_classes, "weight", "target"),
                ignore_index=4,
                reduction="sum",
                exempt={"hopeless_keeps_a_gradient": "what is ignored has none, by definition"},
                **options,
            ),
            "tokens": case(_square, class_dim=-1, features=-1, reduction="none"),
        },
        features=1,
        hide=_hide_classes,
        count=_count_focal,
        perfect=lambda i, o: ({**i, "logits": 1000 * _hot(i, o)}, 0.0),
        hopeless=lambda i, o: {**i, "logits": i["logits"] / 10 - 6 * _hot(i, o)},
        extremes=_class_extremes,
        refused=(
            refused,
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("floats for class indices", "target", change=_floating_target, error=TypeError),
            Refused("two axes that may hold the classes", "class_dim", change=_ambiguous),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _ranks(g: Generator, n: int) -> Inputs:
    """Every rank appears, if there are as many samples: one more than levels."""
    return {
        "logits": normal(g, n, _C, scale=3),
        "target": torch.randperm(n, generator=g) % (_C + 1),
    }


def _ranked_tokens(g: Generator, n: int) -> Inputs:
    """Rows of as many tokens as there are levels."""
    return {"logits": normal(g, n, _C, _C, scale=3), "target": indices(g, _C + 1, n, _C)}


def _rank_extremes() -> Inputs:
    sizes = [6e4, 1e3, 120.0, 88.0, 41.0, 39.0, 17.0, 1.0, 1e-3, 0.0]
    x = grid(sizes).T
    logits = torch.cat((x, -x)).expand(-1, _C).repeat_interleave(3, 0)
    return {
        "logits": logits.contiguous(),
        "target": torch.tensor([0, 2, _C]).repeat(2 * len(sizes)),
    }


def _above(inputs: Inputs) -> Tensor:
    """1 at each level below the rank, -1 at the others."""
    level = torch.arange(_C, device=inputs["target"].device)
    return 2 * (inputs["target"].unsqueeze(-1) > level).double() - 1


def _of_levels(function: Any, module: Any) -> Spec:
    """A loss of ranks, by a yes-or-no question a level."""

    def count(inputs: Inputs, options: Options) -> Tensor:
        target = inputs["target"]
        asked = target.clamp(max=_C - 1) + 1 if function is corn_loss else torch.ones_like(target)
        kept = target != options.get("ignore_index", -100)
        return (asked * kept * inputs.get("weight", torch.ones(()))).sum()

    return Spec(
        name=function.__name__,
        function=function,
        module=module,
        inputs=_ranks,
        cases={
            "ranks": case(),
            "weighted": case(
                with_(_ranks, "weight", "target"),
                level_weight=_PER_CLASS,
                ignore_index=4,
                reduction="sum",
                exempt={"hopeless_keeps_a_gradient": "what is ignored has none, by definition"},
            ),
            "tokens": case(_ranked_tokens, class_dim=-1, features=-1, reduction="none"),
        },
        features=1,
        hide=_hide_classes,
        count=count,
        perfect=lambda i, o: ({**i, "logits": 1000 * _above(i)}, 0.0),
        hopeless=lambda i, o: {**i, "logits": i["logits"] / 10 - 30 * _above(i)},
        extremes=_rank_extremes,
        refused=(
            Refused("a rank out of range", "target", change=_out_of_range),
            Refused("floats for ranks", "target", change=_floating_target, error=TypeError),
            Refused("a weight too few", "level_weight", {"level_weight": torch.ones(_C - 1)}),
            Refused("a class axis that is none", "class_dim", {"class_dim": 2}),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


def _count_focal(inputs: Inputs, options: Options) -> Tensor:
    if inputs["target"].is_floating_point():
        return (inputs["target"].sum(1) * inputs["weight"]).sum()
    kept = inputs["target"] != (options.get("ignore_index") or -100)
    return (kept * inputs.get("weight", torch.ones(()))).sum()


def _count_hardest(inputs: Inputs, options: Options) -> Tensor:
    """The weights of the hardest, where none are tied."""
    fraction, x, y = options.get("fraction", 0.1), inputs["logits"].double(), inputs["target"]
    weight = options.get("class_weight", torch.ones(_C)).double().to(y.device)
    by_class = (1, -1) + (1,) * (x.ndim - 2)
    if "softcap" in options:
        x = options["softcap"] * torch.tanh(x / options["softcap"])
    if "logit_adjustment" in options:
        x = x + options["logit_adjustment"].to(x).reshape(by_class)
    losses = torch.nn.functional.cross_entropy(
        x,
        y,
        weight,
        ignore_index=options.get("ignore_index", -100),
        label_smoothing=options.get("label_smoothing", 0.0),
        reduction="none",
    )
    known = y != options.get("ignore_index", -100)
    each = torch.where(known, weight[y.clamp(min=0)], 0.0)
    losses = losses + options.get("z_loss", 0.0) * each * x.logsumexp(1).square()
    if "sample_weight" in inputs:
        of_each = inputs["sample_weight"].double()
        known, losses, each = known & (of_each != 0), losses * of_each, each * of_each
    total = torch.zeros((), dtype=torch.float64, device=weight.device)
    rows = [slice(None)]
    if options.get("pool") == "sample":
        rows = [slice(i, i + 1) for i in range(len(losses))]
    for row in rows:
        here = known[row]
        values, weights = losses[row][here], each[row][here]
        least = -math.log(options.get("threshold", 1.0)) if "threshold" in options else torch.inf
        k = max(math.ceil(fraction * len(values) - 1e-9), int((values > least).sum()))
        k = max(k, 1) if len(values) else 0
        total = total + weights[values.argsort(descending=True)[:k]].sum()
    return total


def _top_k() -> Spec:
    batch = {
        "split_invariance": "the hardest of a batch are not those of its parts",
        "samples_stand_alone": "the hardest of the whole batch, by its option 'pool'",
        "size_changes_nothing": "how many are the hardest is rounded up",
    }
    return Spec(
        name="top_k_cross_entropy_loss",
        function=top_k_cross_entropy_loss,
        module=TopKCrossEntropyLoss,
        inputs=_classes,
        cases={
            "rows": case(with_(_classes, "sample_weight", "target"), fraction=0.5, exempt=batch),
            "weighted": case(
                _image,
                class_weight=_PER_CLASS,
                logit_adjustment=-_PER_CLASS,
                ignore_index=2,
                fraction=0.3,
                exempt={**batch, "perfect_is_minimal": "its own inputs; an adjustment moves it"},
            ),
            "images": case(
                _square,
                fraction=0.4,
                threshold=0.02,
                pool="sample",
                label_smoothing=0.1,
                z_loss=1e-3,
                softcap=40.0,
                class_dim=1,
                reduction="none",
                exempt={"perfect_is_minimal": "its own inputs; smoothing moves the optimum"},
            ),
        },
        features=1,
        joint=True,
        walks=False,
        hide=_hide_classes,
        count=_count_hardest,
        perfect=lambda i, o: ({**i, "logits": 2000 * _hot(i, {"class_dim": 1})}, 0.0),
        hopeless=None,
        extremes=_class_extremes,
        refused=(
            Refused("a share beyond 1", "fraction", {"fraction": 1.5}),
            Refused("a probability beyond 1", "threshold", {"threshold": 1.5}),
            Refused("an unknown pool", "pool", {"pool": "image"}),
            Refused("a class out of range", "target", change=_out_of_range),
            Refused("too few class weights", "class_weight", {"class_weight": torch.ones(_C - 1)}),
            Refused("smoothing beyond 1", "label_smoothing", {"label_smoothing": 1.5}),
        ),
        exempt={
            **HAS_A_UNIT,
            **NOTHING_FROZEN,
            "streamed_equals_plain": "it walks twice: to find the hardest, and over them",
            "hopeless_keeps_a_gradient": "only the hardest have a gradient, as it says",
        },
    )


CLASSES = (
    _cross_entropy(),
    _top_k(),
    _binary(),
    _asymmetric(),
    _sigmoid_focal(),
    _softmax_focal(),
    _of_the_chance(
        poly1_loss, Poly1Loss, Refused("too far below", "epsilon", {"epsilon": -2.0}), epsilon=-0.5
    ),
    _of_the_chance(
        generalized_cross_entropy_loss,
        GeneralizedCrossEntropyLoss,
        Refused("an exponent of 0", "q", {"q": 0.0}),
        q=0.3,
    ),
    _of_the_chance(
        symmetric_cross_entropy_loss,
        SymmetricCrossEntropyLoss,
        Refused("the logarithm of 1", "log_zero", {"log_zero": 0.0}),
        alpha=6.0,
        beta=0.1,
        log_zero=-9.0,
    ),
    _of_levels(coral_loss, CORALLoss),
    _of_levels(corn_loss, CORNLoss),
)
