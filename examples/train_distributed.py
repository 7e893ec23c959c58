"""Train the language recipe on several processes, and compare with one.

    torchrun --nproc-per-node 2 examples/train_distributed.py

Each rank has a ragged share of the texts, in ragged micro-batches, and a copy of the transformer:
data parallel. The output layer is spread over the same ranks, each holding some of the 256 classes:
tensor parallel, and unevenly. Every loss is divided by the number of bytes of the whole step, which
is counted ahead. Each rank trains the whole model on all texts as well, and says how far apart the
two are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist

from aptt.loss import MTPLoss
from aptt.parallel import count_ahead, replicated, vocab_parallel_cross_entropy
from aptt.recipes import open_recipe

STEPS, TEXTS, LAMBDA = 5, 11, 0.3


class Gathered(torch.autograd.Function):
    """The hidden states of all ranks, one after the other; backward gives each rank its own."""

    @staticmethod
    def forward(ctx, own: Tensor, sizes: list[int]) -> Tensor:
        """Pad to the longest, gather, and drop the padding."""
        ctx.rows = slice(first := sum(sizes[: dist.get_rank()]), first + len(own))
        padded = own.new_zeros(max(sizes), own.shape[1])
        padded[: len(own)] = own
        every = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(every, padded)
        return torch.cat([t[:n] for t, n in zip(every, sizes, strict=True)])

    @staticmethod
    def backward(ctx, up: Tensor) -> tuple[Tensor, None]:
        """Each rank's gradient is that of the whole loss already."""
        return up[ctx.rows], None


def gathered(own: Tensor) -> Tensor:
    """Rows of all ranks."""
    sizes: list[int | None] = [None] * dist.get_world_size()
    dist.all_gather_object(sizes, len(own))
    return Gathered.apply(own, sizes)


def micro_batches(texts: Tensor) -> list[Tensor]:
    """Three for each rank, ragged: the last rank has one text, in its second."""
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    if rank == last and last > 0:
        return [texts[:0], texts[-1:], texts[:0]]
    mine = texts[: len(texts) - 1 if last else len(texts)][rank :: max(last, 1)]
    return [mine[:2], mine[2:3], mine[3:]]


def spread_loss(trunk: nn.Module, head: Tensor, bias: Tensor, text: Tensor, shared) -> Tensor:
    """Eq. 24 and 25 of DeepSeek-V3 on the texts of all ranks, the classes spread over them."""
    target, total = text[:, 1:], 0.0
    for depth, hidden in enumerate(trunk(text[:, :-1])):
        states = replicated(gathered(hidden.flatten(0, 1)))
        labels = gathered(target[:, depth:].reshape(-1, 1)).squeeze(1)
        loss = vocab_parallel_cross_entropy(states @ head.T + bias, labels, reduction=shared)
        total = total + (loss if depth == 0 else LAMBDA / (len(trunk.further)) * loss)
    return total


def main() -> None:
    """Train both ways, and print how they differ."""
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    recipe = open_recipe("language")
    torch.manual_seed(0)
    whole = recipe.model()
    torch.manual_seed(0)
    trunk = recipe.model()
    edges = [round(256 * i**1.5 / world**1.5) for i in range(world + 1)]
    mine = slice(edges[rank], edges[rank + 1])
    head = trunk.head.weight.detach()[mine].clone().requires_grad_()
    bias = trunk.head.bias.detach()[mine].clone().requires_grad_()
    trunk.head = nn.Identity()  # it gives hidden states now
    loss_fn = MTPLoss(mtp_depth=len(whole.further), mtp_lambda=LAMBDA)
    optimizers = [
        torch.optim.SGD(parameters, lr=0.1)
        for parameters in ([*trunk.parameters(), head, bias], whole.parameters())
    ]
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        inputs, target = recipe.batch(generator)
        texts = torch.cat((inputs, target[:, -1:]), 1)[:TEXTS]

        parts = micro_batches(texts)
        shared = count_ahead(parts, lambda text: text[:, 1:].numel(), grad_average=1)
        value = 0.0
        for text in parts:
            loss = spread_loss(trunk, head, bias, text, shared)
            loss.backward()
            value += loss.item()
        for parameter in trunk.parameters():  # the shares of the ranks, summed
            dist.all_reduce(parameter.grad)

        want = loss_fn(whole(texts[:, :-1]), texts[:, 1:])
        want.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if rank == 0:
            print(f"step {step}: loss {value:.6f} on {world} processes, {want.item():.6f} on one")

    pairs = dict(whole.named_parameters())
    apart = [(head - pairs.pop("head.weight")[mine]).abs().max()]
    apart += [(bias - pairs.pop("head.bias")[mine]).abs().max()]
    own = dict(trunk.named_parameters())
    apart += [(own[name] - t).abs().max() for name, t in pairs.items()]
    largest = torch.stack(apart).max().detach()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    if rank == 0:
        print(f"after {STEPS} steps no weight differs by more than {largest.item():.1e}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
