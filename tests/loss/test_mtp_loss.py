"""Multi-token prediction: DeepSeek-V3's equations written out, packing, and known failures."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from aptt.loss import (
    LinearMTPLoss,
    MTPLoss,
    cross_entropy,
    linear_multi_token_loss,
    multi_token_loss,
    multi_token_terms,
)
from aptt.parallel import count_ahead, counts_of

B, T, V = 3, 9, 11


def _tokens(seed=1):
    return torch.randint(V, (B, T + 1), generator=torch.Generator().manual_seed(seed))


def _heads(depth, length=lambda k: T, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(B, length(k), V, generator=generator, dtype=torch.float64, requires_grad=True)
        for k in range(depth + 1)
    ]


def _literal(heads, tokens, lam):
    """Eq. 24 and 25, token by token: tokens t_0 ... t_T, of which T are predicted by the main head.

    Head k at position i gives P of the token i + k + 1; L_k = -1/T * sum of log P[t_(i + k + 1)].
    """
    depth, count = len(heads) - 1, B * T
    losses = []
    for k, logits in enumerate(heads):
        total = 0.0
        for b in range(B):
            for i in range(T - k):
                total = total - logits[b, i].log_softmax(-1)[tokens[b, i + k + 1]]
        losses.append(total / count)
    return losses[0] + lam / depth * sum(losses[1:])


def _gradients(loss, heads):
    grads = torch.autograd.grad(loss, heads, allow_unused=True, materialize_grads=True)
    return [loss.detach(), *grads]


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_is_equation_24_and_25(depth, short):
    tokens = _tokens()
    heads = _heads(depth, (lambda k: T - k) if short else (lambda k: T))
    ours = multi_token_loss(heads, tokens[:, 1:], mtp_lambda=0.3)
    torch.testing.assert_close(
        _gradients(ours, heads), _gradients(_literal(heads, tokens, 0.3), heads)
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("shorter_by", [0, 1])
def test_raw_labels_are_the_same_tokens_one_later(depth, shorter_by):
    """The main head at the last position has nothing to predict then: T + 1 tokens, T targets."""
    tokens = _tokens()
    heads = _heads(depth, lambda k: T + 1 - (k + shorter_by if shorter_by else 0))
    ours = multi_token_loss(heads, tokens, labels="raw")
    cut = [logits[:, : T - k] for k, logits in enumerate(heads)]
    torch.testing.assert_close(ours, _literal(cut, tokens, 0.3))


def test_the_call_of_the_brief():
    logits_list, targets = _heads(3), _tokens()[:, 1:]
    mtp_loss = MTPLoss(mtp_depth=3, mtp_lambda=0.3)
    loss = mtp_loss(logits_list, targets)
    torch.testing.assert_close(loss, _literal(logits_list, _tokens(), 0.3))


def test_depths_are_averaged_not_added():
    """deepsuite adds them up; Megatron#1532: a 'gradient explosion' until they were averaged."""
    heads, target = _heads(3), _tokens()[:, 1:]
    terms = multi_token_terms(heads, target)
    assert list(terms) == ["main", "depth_1", "depth_2", "depth_3"]
    mean = (terms["depth_1"] + terms["depth_2"] + terms["depth_3"]) / 3
    torch.testing.assert_close(multi_token_loss(heads, target), terms["main"] + 0.3 * mean)
    torch.testing.assert_close(terms["main"], F.cross_entropy(heads[0].transpose(1, 2), target))


def test_no_further_heads_is_cross_entropy():
    heads, target = _heads(0), _tokens()[:, 1:]
    found = multi_token_loss(heads, target, mtp_depth=0)
    torch.testing.assert_close(found, cross_entropy(heads[0], target))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_two_denominators(k):
    heads, target = _heads(3), _tokens()[:, 1:]
    paper = multi_token_terms(heads, target)[f"depth_{k}"]
    own = multi_token_terms(heads, target, normalize="valid")[f"depth_{k}"]
    torch.testing.assert_close(paper * T, own * (T - k))


# -------------------------------------------------------------------------- packed documents

LENGTHS = [4, 1, 4]  # documents in a row of T tokens


def _documents():
    return torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS)).expand(B, T)


def _unpacked(heads, tokens, lam):
    """Each document by itself; the token after the row's end goes with the last document."""
    depth, totals, count = len(heads) - 1, [0.0] * len(heads), 0
    start = 0
    for number, length in enumerate(LENGTHS):
        last = number == len(LENGTHS) - 1
        own = tokens[:, start : start + length + last]  # the tokens of this document
        for k, logits in enumerate(heads):
            some = logits[:, start : start + length]
            for i in range(length):
                if i + k + 1 < own.shape[1]:
                    at = own[:, i + k + 1]
                    totals[k] = totals[k] + F.cross_entropy(some[:, i], at, reduction="sum")
                    count += B if k == 0 else 0
        start += length
    return totals[0] / count + lam / depth * sum(totals[1:]) / count


@pytest.mark.parametrize("labels", ["aligned", "raw"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_packed_documents_are_as_apart(depth, labels):
    tokens, heads = _tokens(), _heads(depth)
    if labels == "aligned":
        found = multi_token_loss(heads, tokens[:, 1:], document_ids=_documents())
        expected = _unpacked(heads, tokens, 0.3)
    else:  # the token after the end is not in the row
        found = multi_token_loss(heads, tokens[:, :T], document_ids=_documents(), labels="raw")
        expected = _unpacked(heads, tokens[:, :T], 0.3)
    torch.testing.assert_close(_gradients(found, heads), _gradients(expected, heads))


def test_packing_two_rows_into_one_changes_nothing():
    """Two sequences in one row, against the same two as rows."""
    tokens = _tokens()[:2]
    heads = [t[:2] for t in _heads(2)]
    apart = multi_token_loss(heads, tokens[:, :T], labels="raw")
    together = multi_token_loss(
        [t.reshape(1, 2 * T, V) for t in heads],
        tokens[:, :T].reshape(1, 2 * T),
        labels="raw",
        document_ids=torch.arange(2).repeat_interleave(T).unsqueeze(0),
    )
    torch.testing.assert_close(together, apart)


# --------------------------------------------------------------------------- masks and counts


def test_the_mask_moves_with_the_labels():
    """ms-swift#8192: with loss_mask=None Megatron counts labels of -100, and prompts dominate."""
    tokens, heads = _tokens(), _heads(2)
    target = tokens[:, 1:].clone()
    target[:, :4] = -100  # a prompt
    terms = multi_token_terms(heads, target, normalize="valid")
    for k, name in enumerate(terms):
        rows = slice(max(4 - k, 0), T - k)  # those that see a token after the prompt ahead
        own = F.cross_entropy(
            heads[k][:, rows].reshape(-1, V), target[:, 4 if k < 4 else k :].reshape(-1)
        )
        torch.testing.assert_close(terms[name], own)


def test_a_depth_with_nothing_to_predict_is_0_on_the_graph():
    """Megatron#3396, mcore-bridge#104: 0 / 0 in the first iteration."""
    tokens, heads = _tokens(), _heads(2)
    target = tokens[:, 1:].clone()
    target[:, 1:] = -100  # only the first position of the main head has a target
    for normalize in ("tokens", "valid"):
        terms = multi_token_terms(heads, target, normalize=normalize)
        assert terms["depth_1"] == 0
        loss = multi_token_loss(heads, target, normalize=normalize)
        gradients = torch.autograd.grad(loss, heads)
        assert gradients[0].abs().sum() > 0
        assert all((g == 0).all() for g in gradients[1:])
    nothing = multi_token_loss(heads, torch.full_like(target, -100))
    assert nothing == 0
    assert all((g == 0).all() for g in torch.autograd.grad(nothing, heads))


def test_heads_longer_than_the_sequence_are_0():
    heads = [torch.zeros(1, max(2 - k, 0), V, requires_grad=True) for k in range(4)]
    terms = multi_token_terms(heads, torch.tensor([[1, 2]]))
    assert [round(t.item(), 4) for t in terms.values()] == [2.3979, 1.1989, 0.0, 0.0]


@pytest.mark.parametrize("normalize", ["tokens", "valid"])
def test_ragged_micro_batches_add_up_to_one(normalize):
    heads, target = _heads(2), _tokens()[:, 1:].clone()
    target[0, :5] = -100
    target[2, 3:] = -100
    whole = multi_token_loss(heads, target, normalize=normalize)
    counts = {}

    def count(total, count, *, term):
        counts[term] = counts.get(term, 0) + count
        return total

    def share(total, _, *, term):
        return total / counts[term]

    parts = [([h[b : b + 1] for h in heads], target[b : b + 1]) for b in range(B)]
    for some, tokens in parts:
        multi_token_terms(some, tokens, normalize=normalize, reduction=count)
    assert set(counts) == {"main", "depth_1", "depth_2"}
    found = sum(
        multi_token_loss(some, tokens, normalize=normalize, reduction=share)
        for some, tokens in parts
    )
    torch.testing.assert_close(found, whole)


def test_weights_move_with_their_targets():
    heads, target = _heads(1), _tokens()[:, 1:]
    weight = torch.rand(B, T, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    terms = multi_token_terms(heads, target, sample_weight=weight)
    nll = F.cross_entropy(heads[1][:, :-1].transpose(1, 2), target[:, 1:], reduction="none")
    torch.testing.assert_close(terms["depth_1"], (nll * weight[:, 1:]).sum() / weight.sum())


# ------------------------------------------------------------------------- schedules and errors


def test_a_schedule_needs_its_step_and_keeps_none():
    heads, target = _heads(2), _tokens()[:, 1:]
    loss_fn = MTPLoss(mtp_lambda=lambda step: 0.3 if step < 100 else 0.1)
    early, late, again = (loss_fn(heads, target, step=step) for step in (5, 100, 5))
    torch.testing.assert_close(early, multi_token_loss(heads, target, mtp_lambda=0.3))
    torch.testing.assert_close(late, multi_token_loss(heads, target, mtp_lambda=0.1))
    assert early == again
    assert loss_fn.state_dict() == {}
    with pytest.raises(ValueError, match="step: got None"):
        loss_fn(heads, target)
    torch.testing.assert_close(
        MTPLoss(mtp_lambda=0.3)(heads, target, step=7), early
    )  # a constant schedule


def test_a_target_that_was_shifted_before_is_explained():
    heads, target = _heads(2), _tokens()[:, 1:]
    with pytest.raises(ValueError, match=r"logits_list\[0\].*wanted .*T of 8.*not be shifted"):
        multi_token_loss(heads, target[:, 1:])
    with pytest.raises(ValueError, match=r"logits_list: got 3 heads, wanted mtp_depth \+ 1 = 4"):
        multi_token_loss(heads, target, mtp_depth=3)
    with pytest.raises(TypeError, match="sequence of tensors"):
        multi_token_loss(heads[0], target)
    with pytest.raises(ValueError, match=r"logits_list\[1\]: got 10 numbers a position, wanted 11"):
        multi_token_loss([heads[0], heads[1][..., 1:]], target)
    with pytest.raises(ValueError, match="target: got class 11"):
        multi_token_loss(heads, target.clone().fill_(V))
    wide = multi_token_loss(heads, target)
    assert multi_token_loss(heads, target.int()) == wide


def test_one_sequence_needs_no_batch():
    heads, target = _heads(1), _tokens()[:, 1:]
    one = multi_token_loss([h[0] for h in heads], target[0])
    torch.testing.assert_close(one, multi_token_loss([h[:1] for h in heads], target[:1]))


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize("normalize", ["tokens", "valid"])
def test_from_hidden_states_it_is_the_same(normalize, chunk):
    """NeMo and torchtitan hold the logits of every depth."""
    generator = torch.Generator().manual_seed(0)
    size, vocabulary = 16, 2048  # large enough to go in chunks
    hidden = [
        torch.randn(B, T - k, size, generator=generator, dtype=torch.float64, requires_grad=True)
        for k in range(3)
    ]
    weight = torch.randn(vocabulary, size, generator=generator, dtype=torch.float64)
    weight.requires_grad_()
    target = torch.randint(vocabulary, (B, T), generator=generator)
    target[0, :3] = -100
    options = {
        "normalize": normalize,
        "document_ids": _documents(),
        "mtp_lambda": lambda step: 0.1 * step,
        "step": 2,
        "z_loss": 0.01,
    }
    leaves = [*hidden, weight]
    found = linear_multi_token_loss(hidden, weight, target, chunk=chunk, **options)
    logits = [h @ weight.T for h in hidden]
    expected = multi_token_loss(logits, target, **options)
    torch.testing.assert_close(_gradients(found, leaves), _gradients(expected, leaves))
    module = LinearMTPLoss(normalize=normalize, z_loss=0.01, mtp_lambda=0.2)
    torch.testing.assert_close(module(hidden, weight, target, document_ids=_documents()), expected)
    with pytest.raises(ValueError, match=r"hidden_list\[0\].*must not be shifted before"):
        linear_multi_token_loss(hidden, weight, target[:, 1:])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("labels", ["aligned", "raw"])
def test_targets_of_any_integer_dtype(dtype, labels):
    heads, target = _heads(2), _tokens()[:, 1:]
    documents = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2]).expand(B, T)
    for options in ({}, {"document_ids": documents}):
        wanted = multi_token_loss(heads, target, labels=labels, **options)
        found = multi_token_loss(heads, target.to(dtype), labels=labels, **options)
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_packed_targets_that_are_no_index_are_refused():
    documents = torch.zeros(B, T, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"target: got torch\.bool"):
        multi_token_loss(_heads(1), _tokens()[:, 1:] > 0, document_ids=documents)


@pytest.mark.parametrize(
    ("module", "option"),
    [
        *((m, o) for m in (MTPLoss, LinearMTPLoss) for o in ("label_smoothing", "z_loss")),
        *((m, "softcap") for m in (MTPLoss, LinearMTPLoss)),
        (LinearMTPLoss, "scale"),
        (LinearMTPLoss, "chunk"),
    ],
)
def test_bad_options_are_refused_when_they_are_given(module, option):
    with pytest.raises(ValueError, match=f"{option}: got -1"):
        module(**{option: -1})


def test_a_class_weight_that_lies_elsewhere_is_named_as_it_is_here():
    with pytest.raises(ValueError, match=r"^class_weight: got a tensor on meta, wanted it on"):
        multi_token_loss(
            [torch.zeros(1, 4, 3)],
            torch.zeros(1, 4).long(),
            class_weight=torch.ones(3, device="meta"),
        )


def test_a_sequence_of_no_token_may_have_documents():
    none = torch.zeros(2, 0, dtype=torch.long)
    found = multi_token_loss([torch.zeros(2, 0, 5)] * 2, none, document_ids=none)
    assert found == 0


@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("labels", ["aligned", "raw"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("normalize", ["tokens", "valid"])
def test_shards_of_a_sequence_with_right_context_are_the_whole(shards, labels, packed, normalize):
    depth, length, g = 2, 11, torch.Generator().manual_seed(0)
    reach = depth + (labels == "raw" or packed)
    heads = [torch.randn(2, length, 5, dtype=torch.float64, generator=g) for _ in range(depth + 1)]
    target = torch.randint(5, (2, length), generator=g)
    target[1, 4] = -100
    weight = torch.rand(2, length, dtype=torch.float64, generator=g)
    documents = torch.tensor([[0] * 5 + [1] * 6, [3] * 2 + [4] * 9]) if packed else None
    options = {"labels": labels, "normalize": normalize}
    given = {"sample_weight": weight} | ({"document_ids": documents} if packed else {})
    whole = multi_token_loss(heads, target, **given, **options)

    def padded(t, fill):
        return F.pad(t, (0, reach), value=fill)

    edges = [length * i // shards for i in range(shards + 1)]
    batches = []
    for start, end in pairwise(edges):
        far = slice(start, end + reach)
        cut = {"sample_weight": padded(weight, 0.0)[:, far]}
        if packed:
            known = torch.cat((documents, documents[:, -1:].expand(-1, reach)), 1)
            cut["document_ids"] = known[:, far]
        own = [head[:, start:end] for head in heads]
        cut |= {"logits_list": own, "target": padded(target, -100)[:, far], "right_context": reach}
        batches.append(cut)
    loss = partial(multi_token_loss, **options)
    shared = count_ahead(batches, counts_of(loss))
    parts = [loss(**batch, reduction=shared) for batch in batches]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)


def test_a_right_context_that_reaches_too_short_is_refused():
    heads, target = [torch.zeros(1, 4, 5)] * 3, torch.zeros(1, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"right_context: got 1, wanted 2, as far as 2 depths"):
        multi_token_loss(heads, target, right_context=1)
    with pytest.raises(ValueError, match=r"logits_list\[0\]: got shape \(1, 4, 5\) for targets"):
        multi_token_loss(heads, target, right_context=2)
    with pytest.raises(ValueError, match="right_context: got -1"):
        multi_token_loss(heads, target, right_context=-1)


def test_hidden_states_of_a_shard_have_their_right_context_too():
    g = torch.Generator().manual_seed(0)
    hidden = [torch.randn(1, 4, 3, generator=g) for _ in range(2)]
    head, target = torch.randn(5, 3, generator=g), torch.randint(5, (1, 5), generator=g)
    logits = [h @ head.T for h in hidden]
    torch.testing.assert_close(
        LinearMTPLoss()(hidden, head, target, right_context=1),
        MTPLoss()(logits, target, right_context=1),
    )
