"""A chunk bounds what a loss holds of all pairs, or of all logits."""

import inspect
from functools import partial

import pytest
import torch
from torch.utils._pytree import tree_leaves

import aptt.loss
from aptt.loss import (
    contrastive_loss,
    linear_cross_entropy,
    linear_cross_entropy_terms,
    linear_distillation_loss,
    linear_distillation_terms,
    linear_multi_token_loss,
    linear_multi_token_terms,
    linear_token_stats,
    margin_loss,
    relational_distillation_loss,
    relational_distillation_terms,
    siglip_loss,
    supcon_loss,
    triplet_loss,
)

ROWS, WIDTH, CLASSES, CHUNK = 24, 4, 30, 3


def _random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


OTHER, LABELS = _random(ROWS, WIDTH, seed=1), torch.arange(ROWS) % 5
HEAD, TARGET = _random(CLASSES, WIDTH, seed=2), torch.arange(ROWS) % CLASSES
HEADS = _random(CLASSES, 2, WIDTH, seed=3)


def _taught(loss_fn):
    return lambda x, **o: loss_fn(x, HEAD, OTHER, HEAD, hard_targets=TARGET, **o)


def _ahead(loss_fn):
    return lambda x, **o: loss_fn([x[None], x[None, 1:]], HEAD, TARGET[None], **o)


ALL_LOGITS, ALL_PAIRS, ALL_TRIPLES = ROWS * CLASSES, ROWS**2, ROWS**3
CALLS = {
    "linear_cross_entropy": (lambda x, **o: linear_cross_entropy(x, HEAD, TARGET, **o), ALL_LOGITS),
    "linear_cross_entropy, several heads": (
        lambda x, **o: linear_cross_entropy(x, HEADS, TARGET.view(-1, 1).expand(-1, 2), **o),
        ALL_LOGITS,
    ),
    "linear_cross_entropy_terms": (
        lambda x, **o: linear_cross_entropy_terms(x, HEAD, TARGET, **o),
        ALL_LOGITS,
    ),
    "linear_token_stats": (lambda x, **o: linear_token_stats(x, HEAD, TARGET, **o), ALL_LOGITS),
    "linear_distillation_loss": (_taught(linear_distillation_loss), ALL_LOGITS),
    "linear_distillation_terms": (_taught(linear_distillation_terms), ALL_LOGITS),
    "linear_multi_token_loss": (_ahead(linear_multi_token_loss), ALL_LOGITS),
    "linear_multi_token_terms": (_ahead(linear_multi_token_terms), ALL_LOGITS),
    "margin_loss": (lambda x, **o: margin_loss(x, HEAD, TARGET, **o), ALL_LOGITS),
    "contrastive_loss": (lambda x, **o: contrastive_loss(x, OTHER, **o), ALL_PAIRS),
    "contrastive_loss, both ways": (
        lambda x, **o: contrastive_loss(x, OTHER, symmetric=True, within=True, **o),
        ALL_PAIRS,
    ),
    "siglip_loss": (lambda x, **o: siglip_loss(x, OTHER, **o), ALL_PAIRS),
    "supcon_loss": (lambda x, **o: supcon_loss(x, LABELS, **o), ALL_PAIRS),
    "triplet_loss": (partial(triplet_loss, target=LABELS, margin=0.3), ALL_PAIRS),
    "relational_distillation_loss": (
        lambda x, **o: relational_distillation_loss(x, OTHER, **o),
        ALL_TRIPLES,
    ),
    "relational_distillation_terms": (
        lambda x, **o: relational_distillation_terms(x, OTHER, **o),
        ALL_TRIPLES,
    ),
}


def test_every_loss_that_takes_a_chunk_is_here():
    functions = {n: f for n in aptt.loss.__all__ if callable(f := getattr(aptt.loss, n))}
    taking = {
        name
        for name, function in functions.items()
        if inspect.isfunction(function) and "chunk" in inspect.signature(function).parameters
    }
    assert taking == {name.partition(",")[0] for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_held_of_all(name, largest):
    call, whole = CALLS[name]
    x = _random(ROWS, WIDTH, seed=0).requires_grad_()
    with largest() as seen:
        leaves = tree_leaves(call(x, chunk=CHUNK))
        torch.autograd.backward([v.sum() for v in leaves if v.requires_grad])
    assert seen.elements <= whole / 3
