"""Rows of the losses with a teacher that need no language model."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from aptt.audit.spec import Inputs, Options, Refused, Scaling, Spec, case
from aptt.audit.specs.embeddings import JOINT
from aptt.audit.specs.making import (
    HAS_A_UNIT,
    NOTHING_FROZEN,
    grid,
    indices,
    marked,
    normal,
    with_,
)
from aptt.loss import (
    DecoupledDistillationLoss,
    FeatureDistillationLoss,
    RelationalDistillationLoss,
    ULDLoss,
    decoupled_distillation_loss,
    feature_distillation_loss,
    relational_distillation_loss,
    uld_loss,
)

__all__ = ["TEACHERS"]

_C, _K, _D = 5, 7, 4
_INF = float("inf")
_DETACHED = {"detach_teacher": "it decides about the teacher's gradient alone"}
_TEMPERATURE = (
    Refused("temperature 0", "temperature", {"temperature": 0.0}),
    Refused("a negative temperature", "temperature", {"temperature": -1.0}),
)
_ROWS = (
    [6e4, -6e4, 0, 0, 0],
    [6e4, 6e4, 6e4, 6e4, 6e4],
    [0, 0, 0, 0, 0],
    [30, 0, 0, 0, 0],
    [200, 100, 0, -100, -200],
)


def _hide_weight(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    name = "sample_weight" if "student_logits" in inputs else "weight"
    weight = inputs.get(name, torch.ones(keep.shape, dtype=torch.float64))
    return {**inputs, name: weight.masked_fill(~keep, 0)}


# --------------------------------------------------------------------------------- decoupled


def _taught(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, _C, scale=3), normal(g, n, _C, scale=3)
    return {"student_logits": student, "teacher_logits": teacher, "target": indices(g, _C, n)}


def _taught_tokens(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, _C, _C, scale=3), normal(g, n, _C, _C, scale=3)
    return {"student_logits": student, "teacher_logits": teacher, "target": indices(g, _C, n, _C)}


def _hide_target(inputs: Inputs, options: Options, keep: Tensor) -> Inputs:
    ignored = options.get("ignore_index", -100)
    return {**inputs, "target": inputs["target"].masked_fill(~keep, ignored)}


def _count(inputs: Inputs, options: Options) -> Tensor:
    kept = inputs["target"] != options.get("ignore_index", -100)
    return (kept * inputs.get("sample_weight", torch.ones(()))).sum()


def _equal(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    student = next(iter(inputs))
    return {**inputs, student: inputs[student.replace("student", "teacher")].clone()}, 0.0


def _unsure(inputs: Inputs, options: Options) -> Inputs:
    """The teacher's first choice, which is right, is the student's last, by 30."""
    dim = options.get("class_dim", 1)
    first = inputs["teacher_logits"].argmax(dim)
    hot = torch.nn.functional.one_hot(first, _C).double().movedim(-1, dim)
    target = torch.where(first == options.get("ignore_index", -100), 0, first)
    low = inputs["student_logits"] / 10 - 30 * hot
    return {**inputs, "student_logits": low, "target": target}


def _hard_pairs() -> Inputs:
    rows = grid(*_ROWS)
    student, teacher = rows.repeat_interleave(len(rows), 0), rows.repeat(len(rows), 1)
    masked = grid([0, -_INF, -_INF, 1, 0], [2] + 4 * [-_INF], [3, -_INF, -6e4, 3, 2])
    student = torch.cat((student, masked, masked))  # both sides mask, or one
    teacher = torch.cat((teacher, masked, masked.roll(1, 0)))
    target = torch.arange(len(student)) % _C
    target = torch.where(student.gather(1, target.unsqueeze(1)).squeeze(1) > -_INF, target, 0)
    return {"student_logits": student, "teacher_logits": teacher, "target": target}


def _decoupled() -> Spec:
    weighted = with_(_taught, "sample_weight", "target")
    return Spec(
        name="decoupled_distillation_loss",
        function=decoupled_distillation_loss,
        module=DecoupledDistillationLoss,
        inputs=_taught,
        cases={
            "teacher and target": case(),
            "weighted": case(
                weighted,
                temperature=2.0,
                target_weight=0.5,
                others_weight=2.0,
                ignore_index=3,
                detach_teacher=False,
            ),
            "tokens": case(
                marked(_taught_tokens, 1),
                class_dim=-1,
                features=-1,
                ignore_index=1,
                reduction="none",
            ),
        },
        features=1,
        neutral=_DETACHED,
        hide=_hide_target,
        count=_count,
        perfect=_equal,
        hopeless=_unsure,
        extremes=_hard_pairs,
        refused=(
            *_TEMPERATURE,
            Refused("a negative weight", "target_weight", {"target_weight": -1.0}),
            Refused("a negative weight of others", "others_weight", {"others_weight": -1.0}),
            Refused(
                "a class out of range", "target", change=lambda i: {**i, "target": i["target"] + _C}
            ),
            Refused(
                "a single logit",
                "student_logits",
                change=lambda i: {k: t[:, :1] if t.ndim > 1 else 0 * t for k, t in i.items()},
            ),
        ),
        exempt={**HAS_A_UNIT, **NOTHING_FROZEN},
    )


# ------------------------------------------------------------------- of another vocabulary


def _of_two_sizes(g: Generator, n: int) -> Inputs:
    """Probabilities that are apart: at equal ones either sign will do."""
    student, teacher = normal(g, n, _C), normal(g, n, _K, scale=3)
    return {"student_logits": student, "teacher_logits": teacher}


def _of_two_sizes_last(g: Generator, n: int) -> Inputs:
    student, teacher = normal(g, n, 2, _C), normal(g, n, 2, _K, scale=3)
    return {"student_logits": student, "teacher_logits": teacher}


def _as_ranked(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    """The teacher's largest, with what is left in their proportions."""
    dim = options.get("class_dim", 1)
    order = inputs["teacher_logits"].sort(dim, descending=True).values.narrow(dim, 0, _C)
    return {**inputs, "student_logits": order}, None


def _hard_sizes() -> Inputs:
    student = grid(*_ROWS, [0, -_INF, -_INF, 1, 0])
    n = len(student)
    teacher = torch.nn.functional.pad(student, (0, _K - _C), value=-3.0)
    return {
        "student_logits": student.repeat_interleave(n, 0),
        "teacher_logits": teacher.repeat(n, 1),
    }


def _of_rows(inputs: Inputs, options: Options) -> Tensor | float:
    shape = inputs["student_logits"].sum(options.get("class_dim", 1))
    return inputs.get("sample_weight", torch.ones_like(shape)).sum()


def _uld() -> Spec:
    weighted = with_(_of_two_sizes, "sample_weight", "student_logits", features=1)
    ties = "it fades by definition: the mass of one class is not moved to another by its name"
    return Spec(
        name="uld_loss",
        function=uld_loss,
        module=ULDLoss,
        inputs=_of_two_sizes,
        cases={
            "two vocabularies": case(),
            "weighted": case(weighted, temperature=2.0, detach_teacher=False),
            "tokens": case(_of_two_sizes_last, class_dim=-1, features=-1, reduction="none"),
        },
        features=1,
        neutral=_DETACHED,
        hide=_hide_weight,
        count=_of_rows,
        perfect=_as_ranked,
        extremes=_hard_sizes,
        refused=(
            *_TEMPERATURE,
            Refused(
                "other positions",
                "teacher_logits",
                change=lambda i: {**i, "teacher_logits": i["teacher_logits"][1:]},
            ),
        ),
        exempt={
            **HAS_A_UNIT,
            **NOTHING_FROZEN,
            "hopeless_keeps_a_gradient": ties,
            "perfect_is_minimal": "of a wider vocabulary some mass has no place",
            "near_perfect_keeps_digits": "of a wider vocabulary some mass has no place",
        },
    )


# ---------------------------------------------------------------------- features, relations


def _features(g: Generator, n: int) -> Inputs:
    return {"student_features": normal(g, n, _D), "teacher_features": normal(g, n, _D)}


def _each(inputs: Inputs, options: Options) -> Tensor | float:
    return inputs["weight"].sum() if "weight" in inputs else len(next(iter(inputs.values())))


def _scaled(inputs: Inputs, unit: float) -> Inputs:
    first = next(iter(inputs))
    return {**inputs, first: unit * inputs[first]}


def _hard_features() -> Inputs:
    some = normal(torch.Generator().manual_seed(3), 6, _D)
    some[3], some[4], some[5] = -some[1], 2 * some[2], 0.0
    x = torch.cat([some * unit for unit in (1.0, 1e-20, 1e-4, 1e15)])
    return {"student_features": x, "teacher_features": x.flip(0).contiguous()}


def _bound_of_directions(inputs: Inputs) -> Tensor:
    """A direction moves by one over the length; below what float32 has, it has none."""
    x = next(iter(inputs.values()))
    length = x.norm(dim=1, keepdim=True)
    return 4 / torch.where(length == 0, 1.0, length)


def _of_features() -> Spec:
    weighted = with_(_features, "weight", "student_features", features=1)
    return Spec(
        name="feature_distillation_loss",
        function=feature_distillation_loss,
        module=FeatureDistillationLoss,
        inputs=_features,
        cases={
            "directions": case(),
            "weighted": case(weighted, detach_teacher=False, reduction="sum"),
            "samples": case(kind="unit", reduction="none"),
        },
        features=1,
        neutral=_DETACHED,
        hide=_hide_weight,
        count=_each,
        perfect=_equal,
        hopeless=lambda i, o: {**i, "student_features": -i["teacher_features"] + 0.1},
        extremes=_hard_features,
        bound=_bound_of_directions,
        scaling=Scaling(_scaled),
        refused=(
            Refused("an unknown kind", "kind", {"kind": "mse"}),
            Refused(
                "another width",
                "teacher_features",
                change=lambda i: {**i, "teacher_features": i["teacher_features"][:, 1:]},
            ),
            Refused("weights of one", "weight", change=lambda i: {**i, "weight": torch.ones(1)}),
        ),
        exempt=NOTHING_FROZEN,
    )


def _spaces(g: Generator, n: int) -> Inputs:
    return {"student_embeddings": normal(g, n, _D), "teacher_embeddings": normal(g, n, _D + 2)}


def _same_space(inputs: Inputs, options: Options) -> tuple[Inputs, float | None]:
    x = inputs["student_embeddings"]
    teacher = torch.nn.functional.pad(x, (0, 2))
    return {**inputs, "student_embeddings": 3 * x, "teacher_embeddings": teacher}, None


def _one_far_away(inputs: Inputs, options: Options) -> Inputs:
    """All but one sample nearly in one place, so that most angles are of no meaning."""
    x = inputs["student_embeddings"] / 100
    far = torch.zeros_like(x)
    far[0] = 10.0
    return {**inputs, "student_embeddings": x + far}


def _hard_spaces() -> Inputs:
    some = normal(torch.Generator().manual_seed(3), 5, _D)
    some[1] = some[0]
    x = torch.cat((some, 0 * some[:2], some[2:] * 1e4, some[2:] * 1e-6))
    return {"student_embeddings": x, "teacher_embeddings": x.flip(0).contiguous()}


def _relations() -> Spec:
    weighted = with_(_spaces, "weight", "student_embeddings", features=1)
    whole = JOINT["samples_stand_alone"]
    return Spec(
        name="relational_distillation_loss",
        function=relational_distillation_loss,
        module=RelationalDistillationLoss,
        inputs=_spaces,
        cases={
            "two spaces": case(),
            "weighted": case(
                weighted, distance_weight=1.0, angle_weight=2.0, chunk=3, detach_teacher=False
            ),
            "distances": case(angle_weight=0.0, reduction="sum"),
        },
        features=1,
        joint=True,
        composite=True,
        terms=2,
        walks=False,
        reductions=("mean", "sum"),
        asks={"kernels": "a chunk is compared at once, and more samples are more chunks"},
        neutral={**_DETACHED, "chunk": "it says how much is compared at once"},
        hide=_hide_weight,
        perfect=_same_space,
        hopeless=_one_far_away,
        extremes=_hard_spaces,
        scaling=Scaling(_scaled),
        refused=(
            Refused("a negative weight", "distance_weight", {"distance_weight": -1.0}),
            Refused("a negative weight of angles", "angle_weight", {"angle_weight": -1.0}),
            Refused("chunks of 0", "chunk", {"chunk": 0}),
            Refused("values one by one", "reduction", {"reduction": "none"}),
            Refused(
                "other samples",
                "teacher_embeddings",
                change=lambda i: {**i, "teacher_embeddings": i["teacher_embeddings"][1:]},
            ),
        ),
        exempt={
            **JOINT,
            "counts_what_it_says": "each term has a count of its own; its test file holds them",
            "none_sums_to_sum": f"{whole}; a pair has no place of its own",
        },
    )


TEACHERS = (_decoupled(), _uld(), _of_features(), _relations())
