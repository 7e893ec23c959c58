"""Sums over sequences: rows, packs, packs in another order."""

import pytest
import torch

from aptt.core.segments import segments_of, sequences_of

DOUBLE = torch.float64
LENGTHS = [4, 1, 7, 0, 3]


def ragged(dtype=DOUBLE):
    """A padded batch with its mask, and the same as a pack with ids."""
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    ids = torch.arange(5)[:, None].expand(5, 7)
    return values.masked_fill(~mask, 0), mask, values[mask], ids[mask]


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32, torch.bfloat16])
def test_a_pack_has_the_sums_of_the_padded_batch_in_any_order(dtype):
    padded, mask, packed, ids = ragged(dtype)
    want = segments_of(padded, None).total(padded)
    for seed in range(3):
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
        found = sequences_of(packed[order], ids[order], 5)
        assert torch.equal(found.total(packed[order]).to(dtype), want.to(dtype))
        assert found.count(torch.ones_like(ids[order])).tolist() == LENGTHS
        spread = found.spread(found.total(packed[order]))
        torch.testing.assert_close(spread, want[ids[order]])
    assert segments_of(padded, None).count(mask).tolist() == LENGTHS


def test_rows_may_lie_behind_several_axes():
    values = torch.arange(24.0).view(2, 3, 4)
    rows = segments_of(values, None)
    assert rows.slots == 6
    assert torch.equal(rows.total(values), values.double().sum(2))
    assert torch.equal(rows.least(values), values[..., 0])
    assert torch.equal(rows.count(values > 1), (values > 1).sum(2))
    assert torch.equal(rows.spread(values[..., 0]), values[..., :1])


def test_ids_are_any_numbers_in_ascending_order_and_below_0_is_no_sequence():
    values = torch.arange(1.0, 8.0)
    ids = torch.tensor([900, -1, 7, 900, 40, -7, 7])
    found = sequences_of(values, ids, None)
    inside = found.inside
    assert inside.tolist() == [True, False, True, True, True, False, True]
    assert found.slots == 3
    assert found.total(values * inside).tolist() == [3 + 7, 5, 1 + 4]
    slots = segments_of(values, ids)  # one for each token; those beyond hold nothing that counts
    assert slots.total(values * inside).tolist() == [10, 5, 5, 0, 0, 0, 0]


def test_a_number_of_sequences_gives_each_its_slot():
    ids = torch.tensor([3, 0, 3], dtype=torch.int32)
    found = sequences_of(torch.ones(3), ids, 5)
    assert found.total(torch.ones(3)).tolist() == [1, 0, 0, 2, 0]
    with pytest.raises(ValueError, match="sequence_ids: got 3 with num_sequences=3"):
        sequences_of(torch.ones(3), ids, 3)


def test_the_least_of_no_tokens_is_infinite():
    padded = torch.zeros(3, 0)
    assert segments_of(padded, None).least(padded).tolist() == [torch.inf] * 3


def test_no_tokens_are_no_sequences():
    nothing, ids = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert sequences_of(nothing, ids, None).total(nothing).shape == (0,)
    assert sequences_of(nothing, ids, 2).total(nothing).tolist() == [0, 0]
    strays, tokens = torch.full((3,), -1), torch.ones(3)
    found = sequences_of(tokens, strays, None)
    assert found.total(tokens).shape == found.count(tokens > 0).shape == (0,)
    assert segments_of(torch.zeros(3, 0), None).total(torch.zeros(3, 0)).tolist() == [0, 0, 0]


def test_a_long_sum_in_float32_keeps_its_digits():
    values = torch.full((1 << 20,), 0.1)
    found = segments_of(values, torch.zeros(1 << 20, dtype=torch.long)).total(values)[0]
    assert found.item() == pytest.approx(float(values[0].double()) * 2**20, rel=1e-12)


def test_sums_are_one_graph_and_the_same_bits_twice():
    *_, packed, ids = ragged(torch.float32)

    def sums(values, ids):
        segments = segments_of(values, ids)
        return segments.spread(segments.total(values))

    torch.compiler.reset()
    compiled = torch.compile(sums, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(packed, ids), sums(packed, ids))
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(sums(packed, ids), sums(packed, ids))
    finally:
        torch.use_deterministic_algorithms(False)
    given = packed.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: sums(t, ids).square(), given)


@pytest.mark.parametrize(
    ("tokens", "ids", "error", "naming"),
    [
        ((4,), None, ValueError, r"got shape \(4,\) without sequence_ids"),
        ((4,), torch.zeros(3, dtype=torch.long), ValueError, r"sequence_ids: got shape \(3,\)"),
        ((2, 4), torch.zeros(2, 4, dtype=torch.long), ValueError, "a padded batch.*takes none"),
        ((4,), torch.zeros(4), TypeError, "sequence_ids: got torch.float32"),
        ((4,), [0, 0, 1, 1], TypeError, "sequence_ids: got list"),
    ],
)
def test_what_does_not_fit_is_said(tokens, ids, error, naming):
    with pytest.raises(error, match=naming):
        segments_of(torch.zeros(tokens), ids)
