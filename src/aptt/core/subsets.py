"""Searches over the subsets of a few things, all at once for a batch, exact and without a wait.

    assignment   h_k[S] = min over j in S of C[k, j] + h_(k+1)[S less j]       2**E subsets S
    partition    h_k[S] = min over Q in S of L_k[Q] + h_(k+1)[S less Q]

A subset is a number, whose bit j says whether j is in it. Of equal ways the first is taken. No look
at values: the same operators run on any device, under a compiler and in a transform.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["MOST", "assigned", "bits", "partitioned"]

MOST = 12  # things, of which there are 4096 subsets


def bits(count: int, device: torch.device) -> Tensor:
    """``(2**count, count)``: which things are in each subset."""
    subsets = torch.arange(2**count, device=device).unsqueeze(1)
    return (subsets >> torch.arange(count, device=device)) & 1 > 0


def assigned(cost: Tensor) -> Tensor:
    """``(N, E)``: the column of each row, in the assignment of the least sum of ``(N, E, E)``.

    A cost that is not a number, or is infinite, counts as more than all others together.
    """
    finite = cost.isfinite()
    some = torch.where(finite, cost, 0.0)
    dear = 2 * some.abs().sum((1, 2), keepdim=True) + 1
    cost = torch.where(finite, cost, dear)
    n, size = len(cost), len(range(cost.shape[1]))  # a number where a compiler has symbols
    inside = bits(size, cost.device)
    subsets = inside.sum(1).argsort(stable=True)  # by how many are in them
    place = subsets.argsort()
    ones = 1 << torch.arange(size, device=cost.device)
    first = [0]  # of each number of members
    for m in range(size):
        first.append(first[-1] + math.comb(size, m))
    least = cost.new_zeros(n, 1)
    choices: list[Tensor] = []
    for m in range(1, size + 1):  # the last m rows have m columns
        layer = subsets[first[m] : first[m] + math.comb(size, m)]
        without = place[layer.unsqueeze(1) ^ ones] - first[m - 1]  # where j is in it
        there = inside[layer]
        ways = cost[:, size - m].unsqueeze(1) + least[:, torch.where(there, without, 0)]
        least, choice = ways.masked_fill(~there, torch.inf).min(2)
        choices.append(choice)
    left = subsets.new_full((n, 1), 2**size - 1)
    order = []
    for m in range(size, 0, -1):
        j = choices[m - 1].gather(1, place[left] - first[m])
        order.append(j)
        left = left ^ (1 << j)
    return torch.cat(order, 1)


def partitioned(cost: Tensor) -> Tensor:
    """The part of each thing, for costs ``(N, K, 2**M)`` of each subset as part k: ``(N, M)``."""
    n, parts, size = cost.shape
    everything = size - 1
    subsets = torch.arange(size, device=cost.device)
    least, choices = cost[:, -1], []
    for k in reversed(range(1, parts - 1)):
        inside = (subsets & ~subsets.unsqueeze(1)) == 0  # (S, Q)
        ways = cost[:, k].unsqueeze(1) + least[:, subsets.unsqueeze(1) ^ subsets]
        least, choice = ways.masked_fill(~inside, torch.inf).min(2)
        choices.append(choice)
    left = subsets.new_full((n, 1), everything)
    members = []
    if parts > 1:
        first = (cost[:, 0] + least[:, everything ^ subsets]).argmin(1, keepdim=True)
        members.append(first)
        left = left ^ first
    for choice in reversed(choices):
        q = choice.gather(1, left)
        members.append(q)
        left = left ^ q
    things = torch.arange(everything.bit_length(), device=cost.device)
    held = (torch.cat((*members, left), 1).unsqueeze(2) >> things) & 1  # (N, K, M)
    return (held * torch.arange(parts, device=cost.device).view(1, -1, 1)).sum(1)
