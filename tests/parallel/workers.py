"""What each rank does in the tests of this folder: ``python workers.py CHECK,CHECK... WORLD``.

A check runs on every rank of a gloo group, holds what it finds to a single process, and raises.
"""

import copy
import sys
from datetime import timedelta

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from aptt.audit.ranks import in_a_world
from aptt.compose import CombinedLoss
from aptt.loss import (
    CrossEntropyLoss,
    DiceLoss,
    MarginLoss,
    PolicyLoss,
    contrastive_loss,
    cross_entropy,
    dice_ce_loss,
    dice_loss,
    distillation_loss,
    dpo_loss,
    focal_loss,
    kl_penalty_loss,
    kto_loss,
    linear_cross_entropy,
    linear_distillation_loss,
    lovasz_loss,
    multi_token_loss,
    orpo_loss,
    policy_loss,
    sequence_scores,
    siglip_loss,
    supcon_loss,
    triplet_loss,
)
from aptt.parallel import (
    Gather,
    VocabParallelCrossEntropyLoss,
    WorldSum,
    count_ahead,
    count_mean,
    counts_of,
    gather,
    global_mean,
    normalized,
    replicated,
    sharded,
    unsharded,
    vocab_parallel_cross_entropy,
    vocab_parallel_distillation_loss,
    vocab_parallel_linear_cross_entropy,
    vocab_parallel_linear_distillation_loss,
    world_sum,
)

N, D, C = 9, 4, 11
DOUBLE = torch.float64
SIZES = {1: [11], 2: [7, 4], 4: [5, 0, 4, 2]}  # shards of the vocabulary, one of them empty


def me():
    return dist.get_rank(), dist.get_world_size()


def close(got, want, rtol=1e-10, atol=1e-12):
    torch.testing.assert_close(got, want, rtol=rtol, atol=atol)


def shard():
    rank, world = me()
    sizes = SIZES[world]
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def head(seed=0):
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, dtype=DOUBLE, generator=g)
    weight = 3 * torch.randn(C, D, dtype=DOUBLE, generator=g)
    target = torch.randint(C, (N,), generator=g)
    target[2] = target[7] = -100
    return hidden, weight, target


def vocabulary():
    """The spread vocabulary against the dense one: every option, value and both gradients."""
    hidden, weight, target = head()
    g = torch.Generator().manual_seed(5)
    per_class, per_row = (torch.rand(k, dtype=DOUBLE, generator=g) for k in (C, N))
    every = (
        {},
        {"label_smoothing": 0.1},
        {"z_loss": 1e-2, "softcap": 4.0},
        {"label_smoothing": 0.2, "z_loss": 1e-2, "weight": per_class, "sample_weight": per_row},
        {"reduction": "none", "label_smoothing": 0.1},
        {"reduction": "sum"},
    )
    for options in every:
        dense = [t.clone().requires_grad_() for t in (hidden, weight)]
        want = cross_entropy(dense[0] @ dense[1].T, target, **options)
        up = torch.linspace(0.5, 2, want.numel(), dtype=DOUBLE).view(want.shape)
        want.backward(up)
        own, mine = hidden.clone().requires_grad_(), weight[shard()].clone().requires_grad_()
        loss = VocabParallelCrossEntropyLoss(
            **{k: v for k, v in options.items() if k != "sample_weight"}
        )
        weights = options.get("sample_weight")
        got = loss(replicated(own) @ mine.T, target, sample_weight=weights)
        got.backward(up)
        close(got, want)
        close(own.grad, dense[0].grad)
        close(mine.grad, dense[1].grad[shard()])


def hard_rows():
    """Gaps that underflow, masked classes, an ignored row of NaN, half precision."""
    logits = torch.zeros(5, C, dtype=DOUBLE)
    logits[0, 0], logits[1, C - 1], logits[2, 3] = 104.5, 800.0, -300.0
    logits[3, 1:4] = -torch.inf
    target = torch.tensor([0, 0, 3, 5, -100])
    dense = logits.clone().requires_grad_()
    want = cross_entropy(dense, target, label_smoothing=0.1, z_loss=1e-3)
    want.backward()
    logits[4] = torch.nan
    mine = logits[:, shard()].clone().requires_grad_()
    got = vocab_parallel_cross_entropy(mine, target, label_smoothing=0.1, z_loss=1e-3)
    got.backward()
    close(got, want)
    close(mine.grad, dense.grad[:, shard()])
    half = torch.randn(64, C, generator=torch.Generator().manual_seed(1)).bfloat16()
    target = torch.arange(64) % C
    dense = half.double().requires_grad_()
    want = cross_entropy(dense, target, label_smoothing=0.1)
    want.backward()
    mine = half[:, shard()].clone().requires_grad_()
    got = vocab_parallel_cross_entropy(mine, target, label_smoothing=0.1)
    got.backward()
    assert got.dtype == torch.float32
    assert mine.grad.dtype == torch.bfloat16
    close(got.double(), want, rtol=1e-6)
    close(mine.grad.double(), dense.grad[:, shard()], rtol=2**-8)
    none = vocab_parallel_cross_entropy(mine, torch.full((64,), -100))
    assert none.item() == 0
    none.backward()


def dtensor():
    """A DTensor's shards, as DTensor cuts them: unevenly."""
    _, world = me()
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("tp",))
    hidden, weight, target = head()
    dense = (hidden @ weight.T).requires_grad_()
    want = cross_entropy(dense, target, label_smoothing=0.1)
    want.backward()
    whole = (hidden @ weight.T).requires_grad_()
    spread = distribute_tensor(whole.detach(), mesh, [Shard(-1)]).requires_grad_()
    got = vocab_parallel_cross_entropy(spread, target, label_smoothing=0.1)
    got.backward()
    close(got, want)
    close(spread.grad.full_tensor(), dense.grad)
    rows = distribute_tensor(whole.detach(), mesh, [Shard(0)])
    with pytest.raises(ValueError, match=r"wanted Shard\(-1\)"):
        vocab_parallel_cross_entropy(rows, target)


class Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor):
                self.elements = max(self.elements, t.numel())
        return out


def memory():
    """No rank makes a tensor larger than its own shard of the logits."""
    _, world = me()
    logits = torch.randn(512, 4096 // world, requires_grad=True)
    with Largest() as seen:
        vocab_parallel_cross_entropy(logits, torch.arange(512)).backward()
    assert seen.elements <= logits.numel()


def sequence():
    """Tokens spread over ranks: shift the targets before they are cut, and count over all."""
    rank, world = me()
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 12, C, dtype=DOUBLE, generator=g)
    tokens = torch.randint(C, (2, 13), generator=g)
    target = tokens[:, 1:].clone()
    target[0, 5:] = -100
    dense = logits.clone().requires_grad_()
    want = cross_entropy(dense, target, class_dim=-1)
    want.backward()
    mine = slice(rank * 12 // world, (rank + 1) * 12 // world)
    own = logits[:, mine].clone().requires_grad_()
    got = cross_entropy(own, target[:, mine], class_dim=-1, reduction=global_mean())
    got.backward()
    total = got.detach().clone()
    dist.all_reduce(total)
    close(total / world, want)
    close(own.grad / world, dense.grad[:, mine])

    heads = [torch.randn(2, 12, C, dtype=DOUBLE, generator=g) for _ in range(3)]
    dense = [head.clone().requires_grad_() for head in heads]
    want = multi_token_loss(dense, target)
    want.backward()
    own = [head[:, mine].clone().requires_grad_() for head in heads]
    far = F.pad(target, (0, 2), value=-100)[:, mine.start : mine.stop + 2]
    got = multi_token_loss(own, far, right_context=2, reduction=global_mean())
    got.backward()
    total = got.detach().clone()
    dist.all_reduce(total)
    close(total / world, want)
    for one, every in zip(own, dense, strict=True):
        close(one.grad / world, every.grad[:, mine])


def gathering():
    """Ragged rows of all ranks, one with none: values, the summed gradient, and a second one."""
    rank, world = me()
    g = torch.Generator().manual_seed(9)
    rows = torch.randn(N, D, dtype=DOUBLE, generator=g)
    factors = torch.randn(world, N, D, dtype=DOUBLE, generator=g)
    edges = {2: [0, 9, 9], 4: [0, 2, 2, 8, 9]}[world]
    mine = slice(edges[rank], edges[rank + 1])
    own = rows[mine].clone().requires_grad_()
    every = gather(own)
    assert torch.equal(every, rows)
    assert gather.offset(own) == mine.start
    (slope,) = torch.autograd.grad((every**3 * factors[rank]).sum(), own, create_graph=True)
    close(slope, 3 * rows[mine] ** 2 * factors.sum(0)[mine])
    (twice,) = torch.autograd.grad(gather(slope).sum(), own)
    close(twice, world * 6 * rows[mine] * factors.sum(0)[mine])

    # each rank's own rows against all, and all against all on each: both are what one process has
    dense = rows.clone().requires_grad_()
    want = cross_entropy(dense @ dense.T, torch.arange(N))
    want.backward()
    for whole in (False, True):
        leaf = rows[mine].clone().requires_grad_()
        all_rows = gather(leaf)
        if whole:
            loss = cross_entropy(all_rows @ all_rows.T, torch.arange(N))
        else:
            target = torch.arange(mine.start, mine.stop)
            loss = cross_entropy(leaf @ all_rows.T, target, reduction=global_mean())
        loss.backward()
        close(leaf.grad / world, dense.grad[mine])  # as DDP averages

    labels = torch.arange(N, dtype=torch.int16)
    assert torch.equal(gather(labels[mine]), labels)
    assert torch.equal(gather(labels[mine] > 3), labels > 3)
    half = rows.bfloat16()[mine].requires_grad_(rank == 0)  # one rank alone asks
    gather(half).float().sum().backward()
    assert half.grad is None or torch.equal(half.grad, torch.full_like(half, world))
    with torch.no_grad():
        assert not gather(own).requires_grad
    turned = rows.new_ones(1, 2, 3) if rank else rows.new_ones(1, 3, 2)
    others = rows[mine, : 2 + (rank == 0)], rows[mine].float() if rank else rows[mine], turned
    for other in others:
        with pytest.raises(ValueError, match="wanted rows of one shape and dtype on all ranks"):
            gather(other)
    group = dist.new_group(list(range(world)))
    again = copy.deepcopy(Gather(group))
    assert again.group is group
    assert torch.equal(again(rows[mine]), rows)


class Model(nn.Module):
    """A trunk with a head for classes and one for masks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.classes = nn.Linear(D, 8), nn.Linear(8, C)
        self.masks, self.points = nn.Linear(8, 3), nn.Linear(8, 2)
        self.double()

    def forward(self, x, *, head=True):
        x = torch.tanh(self.trunk(x))
        if not head:
            return x
        return self.classes(x), self.masks(x), self.points(x)


def _batch(n=10):
    g = torch.Generator().manual_seed(4)
    x = torch.randn(n, D, dtype=DOUBLE, generator=g)
    labels = torch.randint(C, (n,), generator=g)
    labels[::3] = -100
    bits = torch.randint(2, (n, 3), generator=g)
    return x, labels, bits, bits[:, :2]


def _composite(out, labels, masks, points, reduction, pool):
    """Two totals with counts of their own, and a ratio of sums."""
    classes, regions, hits = out
    return (
        cross_entropy(classes, labels, reduction=reduction, z_loss=1e-2)
        + focal_loss(hits, points, normalize="positives", reduction=reduction)
        + dice_loss(regions.unsqueeze(2), masks.unsqueeze(2), mode="multilabel", pool=pool)
    )


def _reference():
    model = Model()
    x, *targets = _batch()
    loss = _composite(model(x), *targets, "mean", "batch")
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()]


def _own(part):
    """Rank 0 has most, the last of several has nothing."""
    rank, world = me()
    edges = {1: [0, 10], 2: [0, 10, 10], 4: [0, 6, 7, 10, 10]}[world]
    return [t[edges[rank] : edges[rank + 1]] for t in part]


def ddp():
    """DDP over a composite, with a rank that has an empty batch."""
    want, grads = _reference()
    model = DistributedDataParallel(Model())
    x, *targets = _own(_batch())
    loss = _composite(model(x), *targets, global_mean(), world_sum)
    loss.backward()
    for p, grad in zip(model.parameters(), grads, strict=True):
        close(p.grad, grad, rtol=1e-9)
    total = loss.detach().clone()
    dist.all_reduce(total)
    close(total / me()[1], want)


def fsdp():
    """FSDP2 likewise."""
    _, grads = _reference()
    model = Model()
    mesh = init_device_mesh("cpu", (me()[1],), mesh_dim_names=("dp",))
    fully_shard(model, mesh=mesh)
    x, *targets = _own(_batch())
    loss = _composite(model(x), *targets, global_mean(mesh["dp"]), world_sum)
    loss.backward()
    for p, grad in zip(model.parameters(), grads, strict=True):
        close(p.grad.full_tensor(), grad, rtol=1e-9)


def accumulation():
    """Ragged micro-batches on each rank, counted ahead in one message; and what a mean would do."""
    rank, world = me()
    g = torch.Generator().manual_seed(3)
    logits = torch.randn(24, C, dtype=DOUBLE, generator=g)
    target = torch.randint(C, (24,), generator=g)
    target[:9] = -100
    dense = logits.clone().requires_grad_()
    want = cross_entropy(dense, target)
    want.backward()
    own = torch.arange(24)[rank::world]
    micro = [own[:2], own[2:2], own[2:]]
    shared = count_ahead(micro, lambda rows: (target[rows] != -100).sum())
    x = logits.clone().requires_grad_()
    for rows in micro:
        cross_entropy(x[rows], target[rows], reduction=shared).backward()
    dist.all_reduce(x.grad)
    close(x.grad / world, dense.grad)


def answers():
    """Policies and preferences in ragged micro-batches on each rank, whatever the mean counts."""
    rank, world = me()
    g = torch.Generator().manual_seed(11)
    old = -3 * torch.rand(12, 5, dtype=DOUBLE, generator=g)
    x = old + 0.3 * torch.randn(12, 5, dtype=DOUBLE, generator=g)
    mask = torch.arange(5) < torch.randint(0, 6, (12, 1), generator=g)
    gain, good = torch.randn(12, dtype=DOUBLE, generator=g), torch.arange(12) % 3 > 0
    own = torch.arange(12)[rank::world]
    parts = [own[:1], own[1:1], own[1:]]

    def policy(**options):
        return lambda x, rows, **o: policy_loss(
            x[rows], old[rows], gain[rows], mask=mask[rows], **options, **o
        )

    def penalty(x, rows, **o):
        return kl_penalty_loss(x[rows], old[rows], mask=mask[rows], average="sequence", **o)

    def preference(loss_fn):
        def of(x, rows, **o):
            scores = sequence_scores(x[rows] - old[rows], mask=mask[rows])
            other = sequence_scores(old[rows] / 2, mask=mask.roll(1, 0)[rows])
            return loss_fn(scores, other, **o)

        return of

    losses = {
        "tokens": policy(),
        "sequences": policy(average="sequence"),
        "constant": policy(average="constant", nominal_length=7),
        "ratios of sequences": policy(average="sequence", ratio="sequence"),
        "penalty": penalty,
        "dpo": preference(dpo_loss),
        "orpo": preference(orpo_loss),
    }
    off = 0.0
    for name, loss_fn in losses.items():
        dense, spread = x.clone().requires_grad_(), x.clone().requires_grad_()
        if name == "orpo":
            dense, spread = (-4 * t.detach().abs() for t in (dense, spread))
            dense, spread = dense.requires_grad_(), spread.requires_grad_()
        want = loss_fn(dense, torch.arange(12))
        want.backward()
        counts = {}

        def note(total, count, *, term, counts=counts):
            counts[term] = counts.get(term, 0) + count.double()
            return total

        for rows in parts:
            loss_fn(spread, rows, reduction=note)
        for count in counts.values():
            dist.all_reduce(count)
        shared = count_mean({k: v.item() for k, v in counts.items()}, grad_average=world)
        total = sum(loss_fn(spread, rows, reduction=shared) for rows in parts)
        total.backward()
        found = torch.cat((total.detach().reshape(1), spread.grad.flatten()))
        dist.all_reduce(found)
        wish = torch.cat((want.detach().reshape(1), dense.grad.flatten()))
        off = max(off, float((found / world - wish).abs().max() / wish.abs().max()))
        torch.testing.assert_close(found / world, wish, rtol=1e-10, atol=1e-12, msg=name)
    scores, baseline = x.sum(1), gain[:7]
    want = kto_loss(scores, good, mismatched=baseline)
    some = baseline[rank::world] if rank < 7 else baseline[:0]
    found = kto_loss(
        scores[own], good[own], mismatched=some, pool=world_sum, reduction=global_mean()
    )
    dist.all_reduce(found)
    close(found / world, want)
    return f"{off:.1e}"


def normalizers():
    """Ways to a mean over two ranks that a loss may take: compiled, functional, by mixed options.

    And two losses of one kind in a sum, which count apart.
    """
    rank, _ = me()
    g = torch.Generator().manual_seed(7)
    logits, target = torch.randn(9, C, dtype=DOUBLE, generator=g), torch.arange(9)
    own = slice(0, 2) if rank == 0 else slice(2, 9)

    def mean(x):
        return cross_entropy(x, target[own], reduction=global_mean())

    def pooled(x):
        return dice_loss(x, target[own], pool=world_sum)

    def everywhere(loss):
        total = loss.detach().clone()
        dist.all_reduce(total)
        return total / 2

    def slope(function, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(function(x), x)[0]

    x = logits[own]
    close(everywhere(mean(x)), cross_entropy(logits, target))
    compiled = torch.compile(mean, backend="aot_eager", fullgraph=True)
    close(compiled(x), mean(x))
    close(slope(compiled, x), slope(mean, x))
    for function in (mean, pooled, lambda x: replicated(x).square().sum()):
        given = x if function in (mean, pooled) else logits
        close(torch.func.grad(function)(given), slope(function, given))

    ones = torch.ones(C, dtype=DOUBLE) if rank == 0 else None  # one rank counts rows, one weights
    mixed = cross_entropy(x, target[own], weight=ones, reduction=global_mean())
    close(everywhere(mixed), cross_entropy(logits, target))

    twice = CombinedLoss(
        {"a": CrossEntropyLoss(), "b": CrossEntropyLoss(ignore_index=0)},
        inputs={"a": ("x", "y"), "b": ("u", "v")},
    ).eval()
    own = {"x": x, "y": target[own], "u": logits[rank:5], "v": target[rank:5]}
    shared = count_ahead([own], counts_of(twice))
    assert shared.num_items == {"terms.a.cross_entropy": 9, "terms.b.cross_entropy": 8}
    with normalized(twice, shared):
        got = twice(**own)
    both = [torch.cat([logits[:5], logits[1:5]]), torch.cat([target[:5], target[1:5]])]
    close(
        everywhere(got),
        cross_entropy(logits, target) + cross_entropy(*both, ignore_index=0),
        rtol=1e-6,
    )

    group = dist.new_group([0, 1])
    for loss in (
        CrossEntropyLoss(reduction=global_mean(group)),
        DiceLoss(pool=WorldSum(group)),
        VocabParallelCrossEntropyLoss(group=group),
    ):
        again = copy.deepcopy(loss)
        assert again is not loss
        assert repr(again) == repr(loss)
    whole = distribute_tensor(target, init_device_mesh("cpu", (2,)), [Replicate()])
    with pytest.raises(TypeError, match="target: got a DTensor"):
        vocab_parallel_cross_entropy(logits, whole)


def naive():
    """A mean of means, against the mean: uneven batches, as the documentation quotes them."""
    rank, world = me()
    g = torch.Generator().manual_seed(6)
    logits = torch.randn(64, C, dtype=DOUBLE, generator=g)
    target = torch.randint(C, (64,), generator=g)
    target[4:32] = -100  # a long prompt: rank 0 has 4 tokens that count, rank 1 has 32
    dense = logits.clone().requires_grad_()
    cross_entropy(dense, target).backward()
    own = slice(rank * 64 // world, (rank + 1) * 64 // world)
    x = logits.clone().requires_grad_()
    cross_entropy(x[own], target[own]).backward()
    dist.all_reduce(x.grad)
    wrong = (x.grad / world - dense.grad).norm() / dense.grad.norm()
    assert wrong > 0.5
    return f"off by {wrong:.1%}"


def lost():
    """A rank that dies before its message: the others get an error, and in time."""
    rank, world = me()
    group = dist.new_group(list(range(world)), timeout=timedelta(seconds=5))
    if rank == world - 1:
        return "gone"  # sends nothing
    logits = torch.randn(4, C, requires_grad=True)
    try:
        loss = cross_entropy(logits, torch.arange(4), reduction=global_mean(group))
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"a loss of {loss} without the count of the last rank")


def linear_heads():
    """Heads spread by classes, from hidden states: value, all gradients, every option, chunks."""
    hidden, weight, target = head()
    g = torch.Generator().manual_seed(5)
    per_class, per_row = (torch.rand(k, dtype=DOUBLE, generator=g) for k in (C, N))
    bias = torch.randn(C, dtype=DOUBLE, generator=g)
    taught, teacher = (torch.randn(n, 3, dtype=DOUBLE, generator=g) for n in (N, C))
    up = torch.linspace(0.5, 2, N, dtype=DOUBLE)
    own = shard()

    def both(spread, dense, leaves, cut, **options):
        """``cut``: which of the leaves are by classes."""
        found = []
        for function, some in ((dense, slice(None)), (spread, own)):
            mine = [
                (t[some] if by_classes else t).clone().requires_grad_()
                for t, by_classes in zip(leaves, cut, strict=True)
            ]
            loss = function(*mine, **options)
            loss.backward(up if loss.ndim else None)
            grads = [
                m.grad if some == own or not by_classes else m.grad[own]
                for m, by_classes in zip(mine, cut, strict=True)
            ]
            found.append([loss.detach(), *grads])
        close(*found[::-1])

    for options in (
        {},
        {"label_smoothing": 0.1, "chunk": 2},
        {"z_loss": 1e-2, "softcap": 4.0, "scale": 0.5},
        {"label_smoothing": 0.2, "z_loss": 1e-2, "class_weight": per_class, "chunk": 4},
        {"sample_weight": per_row, "reduction": "none", "drop_ignored": False},
        {"reduction": "sum", "chunk": 3},
        {"ignore_index": 4, "reduction": "none"},
    ):
        y = target.clamp(min=0) if "ignore_index" in options else target
        both(
            lambda h, w, b, y=y, **o: vocab_parallel_linear_cross_entropy(h, w, y, bias=b, **o),
            lambda h, w, b, y=y, **o: linear_cross_entropy(h, w, y, bias=b, **o),
            [hidden, weight, bias],
            [False, True, True],
            **options,
        )
    for options in (
        {"hard_targets": target},
        {"hard_targets": target, "divergence": "reverse_kl", "temperature": 2.0},
        {"divergence": "jsd", "beta": 0.3, "alpha": 1.0},
        {"hard_targets": target, "sample_weight": per_row, "reduction": "none"},
    ):
        both(
            lambda h, w, b, **o: vocab_parallel_linear_distillation_loss(
                h, w, taught, teacher[own], bias=b, chunk=2, **o
            ),
            lambda h, w, b, **o: linear_distillation_loss(h, w, taught, teacher, bias=b, **o),
            [hidden, weight, bias],
            [False, True, True],
            **options,
        )
        z, t = (hidden @ weight.T).T, (taught @ teacher.T).T
        both(
            lambda z, t=t, **o: vocab_parallel_distillation_loss(z.T, t[own].T, **o),
            lambda z, t=t, **o: distillation_loss(z.T, t.T, class_dim=-1, **o),
            [z],
            [True],
            **options,
        )

    none = torch.full((N,), -100)
    mine = weight[own].clone().requires_grad_()
    loss = vocab_parallel_linear_cross_entropy(hidden, mine, none)
    loss.backward()
    assert loss == 0
    assert torch.equal(mine.grad, torch.zeros_like(mine))
    few = N - dist.get_rank()
    with pytest.raises(ValueError, match="wanted the same targets on each"):
        vocab_parallel_linear_cross_entropy(hidden[:few], mine, target[:few])
    h = hidden.clone().requires_grad_()
    loss = vocab_parallel_linear_cross_entropy(h, mine, target)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, h, create_graph=True)


def linear_memory():
    """No rank makes the logits of more than a chunk, of more classes than its own."""
    _, world = me()
    hidden, weight = torch.randn(512, 64), torch.randn(4096 // world, 64)
    target = torch.arange(512)
    with Largest() as seen:
        vocab_parallel_linear_cross_entropy(
            hidden.requires_grad_(), weight.requires_grad_(), target, chunk=64
        ).backward()
    assert seen.elements <= weight.numel()
    assert 64 * 4096 // world <= weight.numel()  # which is also what a chunk's logits are


def fsdp_head():
    """A head that is an FSDP unit: by weight and by callable, with as many chunks a rank or not."""
    rank, world = me()
    g = torch.Generator().manual_seed(8)
    x = torch.randn(24, D, dtype=DOUBLE, generator=g)
    target = torch.randint(C, (24,), generator=g)
    model = Model()
    layer = model.classes
    linear_cross_entropy(model(x, head=False), layer.weight, target, bias=layer.bias).backward()
    want = [model.trunk.weight.grad, model.classes.weight.grad, model.classes.bias.grad]
    mesh = init_device_mesh("cpu", (world,))
    even = [24 * r // world for r in range(world + 1)]
    uneven = [0, *(20 + r for r in range(world - 1)), 24]  # one chunk here, seven there
    for edges in (even, uneven):
        for by in ("weight", "callable"):
            model = Model()
            fully_shard(model.classes, mesh=mesh)
            fully_shard(model, mesh=mesh)
            rows = slice(edges[rank], edges[rank + 1])
            hidden = model(x[rows], head=False)
            if by == "weight":
                head, bias = unsharded(model.classes.weight), unsharded(model.classes.bias)
            else:
                head, bias = unsharded(model.classes), None
            linear_cross_entropy(
                hidden, head, target[rows], bias=bias, chunk=3, reduction=global_mean()
            ).backward()
            trunk, classes = model.trunk, model.classes
            for p, grad in zip((trunk.weight, classes.weight, classes.bias), want, strict=True):
                close(p.grad.full_tensor(), grad)
    with pytest.raises(TypeError, match=r"wanted aptt.parallel.unsharded\(weight\)"):
        linear_cross_entropy(hidden, model.classes, target[rows])
    with pytest.raises(TypeError, match=r"weight: got a DTensor.*unsharded\(weight\) where FSDP"):
        linear_cross_entropy(hidden, model.classes.weight, target[rows])
    summed = unsharded(model.classes.weight, grad_average=1)
    model.zero_grad()
    summed.sum().backward()
    assert torch.equal(model.classes.weight.grad.full_tensor(), torch.full((C, 8), world).double())
    half = unsharded(model.classes.weight, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def dtensors():
    """Losses of DTensors: rows, classes, both, and what all hold, against one process."""
    _, world = me()
    line = init_device_mesh("cpu", (world,))
    square = init_device_mesh("cpu", (2, world // 2))
    hidden, weight, target = head()
    g = torch.Generator().manual_seed(3)
    taught, teacher = (torch.randn(n, 3, dtype=DOUBLE, generator=g) for n in (N, C))
    per_class = torch.rand(C, dtype=DOUBLE, generator=g)
    rows, classes, every = [Shard(0)], [Shard(-1)], [Replicate()]

    def same(loss, leaves, others=None, mesh=line, **options):
        """Of tensors with their placements, by name: with a gradient, and without one."""
        dense = {name: t.clone().requires_grad_() for name, (t, _) in leaves.items()}
        plain = {name: t for name, (t, _) in (others or {}).items()}
        want = loss(**dense, **plain, **options)
        up = torch.linspace(0.5, 2, want.numel(), dtype=DOUBLE).view(want.shape)
        want.backward(up)
        spread = {
            name: distribute_tensor(t.clone(), mesh, p).requires_grad_()
            for name, (t, p) in leaves.items()
        }
        more = {name: distribute_tensor(t, mesh, p) for name, (t, p) in (others or {}).items()}
        got = sharded(loss)(**spread, **more, **options)
        if isinstance(got, DTensor):
            got.backward(distribute_tensor(up, mesh, got.placements))
            got = got.full_tensor()
        else:
            got.backward(up)
        close(got, want)
        for name, one in spread.items():
            assert one.grad.placements == one.placements
            close(one.grad.full_tensor(), dense[name].grad)

    logits, teachers = hidden @ weight.T, taught @ teacher.T
    for p in (rows, classes, every):
        to = rows if p is rows else every
        for options in ({}, {"label_smoothing": 0.1, "reduction": "sum"}, {"reduction": "none"}):
            same(cross_entropy, {"logits": (logits, p)}, {"target": (target, to)}, **options)
        same(CrossEntropyLoss(z_loss=0.1), {"logits": (logits, p)}, {"target": (target, to)})
        same(
            distillation_loss,
            {"student_logits": (logits, p)},
            {"teacher_logits": (teachers, p), "hard_targets": (target, to)},
        )
    both = [Shard(0), Shard(1)], [Shard(0), Replicate()]
    for options in ({"weight": per_class}, {"reduction": "none"}):
        same(
            cross_entropy,
            {"logits": (logits, both[0])},
            {"target": (target, both[1])},
            square,
            **options,
        )
    for h, w, to, mesh in (
        (rows, every, rows, line),
        (every, rows, every, line),
        (every, every, every, line),
        (both[1], [Replicate(), Shard(0)], both[1], square),
    ):
        of = {"hidden": (hidden, h), "weight": (weight, w)}
        for options in ({}, {"reduction": "none"}):
            same(linear_cross_entropy, of, {"target": (target, to)}, mesh, chunk=2, **options)
        said = {"teacher_hidden": (taught, h), "teacher_weight": (teacher, w)}
        same(linear_distillation_loss, of, {**said, "hard_targets": (target, to)}, mesh)
    tokens = {"logits": (logits.view(3, 3, C), [Shard(1)])}
    same(cross_entropy, tokens, {"target": (target.view(3, 3), [Shard(1)])}, class_dim=-1)

    masks, bits = torch.randn(N, 3, 4, dtype=DOUBLE, generator=g), torch.arange(4 * N) % 3
    of = {"logits": (masks, rows)}, {"target": (bits.view(N, 4), rows)}
    for reduction in ("mean", "sum"):
        same(dice_loss, *of, reduction=reduction)
        same(dice_ce_loss, *of, reduction=reduction)
    same(DiceLoss(pool="sample"), *of)
    same(contrastive_loss, {"anchors": (logits, rows), "candidates": (teachers, rows)})

    spread = [distribute_tensor(logits, line, p) for p in (rows, classes, every)]
    targets = [distribute_tensor(target, line, p) for p in (rows, every)]
    pack = [distribute_tensor(logits[:, i], line, rows) for i in range(3)]
    heads = (weight, per_class, teacher, per_class)
    w, b, of, by = (distribute_tensor(t, line, rows) for t in heads)
    torch.testing.assert_close(
        vocab_parallel_linear_distillation_loss(
            hidden, w, taught, of, bias=b, teacher_bias=by, alpha=1.0
        ),
        linear_distillation_loss(
            hidden, weight, taught, teacher, bias=per_class, teacher_bias=per_class, alpha=1.0
        ),
    )
    for call, error, said in (
        (
            lambda: cross_entropy(spread[0], targets[0]),
            TypeError,
            r"logits: got a DTensor placed as",
        ),
        (lambda: sharded(cross_entropy)(spread[0], targets[1]), ValueError, "rank's shards of log"),
        (lambda: sharded(cross_entropy)(spread[1], targets[0]), TypeError, "cuts target"),
        (lambda: sharded(focal_loss)(spread[1], targets[1]), TypeError, "wanted its rows sharded"),
        (
            lambda: sharded(lovasz_loss)(
                distribute_tensor(masks, line, rows), distribute_tensor(bits.view(N, 4), line, rows)
            ),
            ValueError,
            "pool: got a sum over ranks in place of 'batch', wanted 'batch', 'sample'",
        ),
        (
            lambda: sharded(cross_entropy)(spread[1], targets[1], logit_adjustment=per_class),
            TypeError,
            "logit_adjustment: got",
        ),
        (
            lambda: sharded(linear_cross_entropy)(
                distribute_tensor(hidden, line, rows),
                distribute_tensor(weight, line, rows),
                targets[0],
            ),
            TypeError,
            r"unsharded\(weight\)",
        ),
        # each rank could compute these from its shards, and all would be wrong together
        (lambda: sharded(MarginLoss())(spread[0], spread[0], targets[0]), TypeError, "unsharded"),
        (lambda: sharded(cross_entropy)(spread[2], targets[0]), TypeError, "placed as logits is"),
        (
            lambda: sharded(contrastive_loss)(spread[0], spread[0], target=targets[0]),
            TypeError,
            "target: got a DTensor",
        ),
        (
            lambda: sharded(siglip_loss)(
                spread[0], distribute_tensor(torch.cat((logits, logits)), line, rows)
            ),
            ValueError,
            f"candidates: got {2 * N} for {N} anchors",
        ),
        (
            lambda: sharded(PolicyLoss(average="sequence"))(*pack, sequence_ids=targets[0]),
            TypeError,
            "its shards may cut sequences",
        ),
    ):
        with pytest.raises(error, match=said):
            call()
    assert cross_entropy(logits, target) == sharded(cross_entropy)(logits, target)
    # as torchtitan calls: plain targets, and a count of all ranks
    shared = sharded(cross_entropy)(spread[1], target, reduction=count_mean(2 * N))
    close(shared, cross_entropy(logits, target, reduction="sum") / (2 * N))


def embeddings():
    """Contrastive losses of ragged shards, one of them empty: value, encoder and scale.

    Against the whole batch in one process; over ranks, and of anchors in micro-batches besides.
    """
    rank, world = me()
    g = torch.Generator().manual_seed(4)
    inputs = torch.randn(2, 13, D, dtype=DOUBLE, generator=g)
    labels = torch.randint(5, (13,), generator=g)
    weight = torch.rand(13, dtype=DOUBLE, generator=g) + 0.1
    weight[[2, 7]] = 0
    edges = {1: [0, 13], 2: [0, 4, 13], 4: [0, 5, 5, 6, 13]}[world]
    own = torch.arange(edges[rank], edges[rank + 1])

    def averaged(t):
        """What DDP makes of it."""
        dist.all_reduce(t)
        return t / world

    def both(of, some, reduction, gather, parts=(None,)):
        """Value, and the gradients of an encoder and of the scale, on some samples."""
        encoder = torch.eye(D, dtype=DOUBLE).mul(1.5).add(0.1).requires_grad_()
        scale = torch.tensor(3.0, dtype=DOUBLE, requires_grad=True)
        rows = [t[some] @ encoder for t in inputs]
        values = [
            of(*rows, labels[some], weight[some], scale, part, gather=gather, reduction=reduction)
            for part in parts
        ]
        value = sum(values)
        return value.detach(), *torch.autograd.grad(value, (encoder, scale))

    losses = {
        "pairs": lambda a, b, y, w, s, _, **o: contrastive_loss(a, b, weight=w, scale=s, **o),
        "both ways": lambda a, b, y, w, s, _, **o: contrastive_loss(
            a, b, scale=s, symmetric=True, **o
        ),
        "NT-Xent": lambda a, b, y, w, s, _, **o: contrastive_loss(
            a, b, weight=w, scale=s, symmetric=True, within=True, **o
        ),
        "duplicates": lambda a, b, y, w, s, _, **o: contrastive_loss(
            a, b, ids=y, duplicates="positive", scale=s, **o
        ),
        "SigLIP": lambda a, b, y, w, s, _, **o: siglip_loss(
            a, b, ids=y, weight=w, scale=s, bias=-s, **o
        ),
        "SupCon": lambda a, b, y, w, s, _, **o: supcon_loss(a, y, weight=w, scale=s, **o),
        "triplet": lambda a, b, y, w, s, _, **o: s * triplet_loss(a, y, weight=w, **o),
        "all triplets": lambda a, b, y, w, s, _, **o: (
            s * triplet_loss(b, y, mining="all", margin="soft", **o)
        ),
    }
    off = 0.0
    for name, of in losses.items():
        want = both(of, torch.arange(13), "mean", None)
        found = both(of, own, global_mean(), gather)
        for got, wish in zip(found, want, strict=True):
            got = averaged(got)
            off = max(off, float((got - wish).abs().max() / wish.abs().max()))
            torch.testing.assert_close(got, wish, rtol=1e-10, atol=1e-12, msg=name)

    def of_part(a, b, y, w, s, part, **options):
        return contrastive_loss(a[part], b, target=part, weight=w[part], scale=s, **options)

    def whole(a, b, y, w, s, part, **options):
        return contrastive_loss(a, b, target=torch.arange(13), weight=w, scale=s, **options)

    want = both(whole, torch.arange(13), "mean", None)
    parts = torch.arange(len(own)).tensor_split([len(own) // 4, len(own) // 4])
    shared = count_mean(float(weight.sum()), grad_average=world)
    found = both(of_part, own, shared, gather, parts)
    for got, wish in zip(found, want, strict=True):
        got = averaged(got)
        off = max(off, float((got - wish).abs().max() / wish.abs().max()))
        close(got, wish)
    return f"{off:.1e}"


def main():
    checks, world = sys.argv[1].split(","), int(sys.argv[2])
    for check, *results in zip(checks, *in_a_world(world, every, checks), strict=True):
        print(check, results)


def every(checks):
    """One check after the other, in one world."""
    found = []
    for check in checks:
        try:
            found.append(globals()[check]())
        except Exception as error:
            raise AssertionError(f"{check}, rank {dist.get_rank()}") from error
    return found


if __name__ == "__main__":
    main()
