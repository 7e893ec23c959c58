"""The table of splits: ``python tests/parallel/splits.py``. A split batch against the whole.

Every row of the audit, with all of its cases, and every balancer: on 1, 2 and 4 processes, as one
batch a rank and as three ragged micro-batches, with a rank that has nothing (the last of several).
The largest difference of value, gradient, or of what was learnt after three steps, in float64, in
shares of the largest element; and whose it is.
"""

import sys
from pathlib import Path

import torch
from torch.distributed import get_rank

sys.path.append(str(Path(__file__).parents[1] / "compose"))

import ranks_worker

from aptt.audit.ranks import apart_by_rank, in_a_world
from aptt.audit.specs import SPECS

WORLDS = (1, 2, 4)


def balancers(ranks):
    """Every balancer in every cut over so many ranks."""
    return ranks_worker.split(get_rank(), ranks)


def flat(learnt):
    """All numbers of a model and a balancer."""
    return torch.cat(
        [t.reshape(-1).double() for t in [*learnt["model"], *learnt["balance"].values()]]
    )


def learnt(ranks):
    """How far each balancer is from one process with the whole, by the cut."""
    found = {}
    for rank in in_a_world(ranks, balancers, ranks):
        for (name, cut), split in rank.items():
            whole = flat(ranks_worker.accumulated(name, 0, (1, 1)))
            far = ((flat(split) - whole).abs().max() / whole.abs().max()).item()
            found.setdefault(name, {})
            way = "one batch a rank" if cut[1] == 1 else "3 micro-batches a rank"
            found[name][way] = max(far, found[name].get(way, 0.0))
    return found


def table(rows=None):
    """By kind and way, the largest in each world and whose it is."""
    kinds = {}
    for world in WORLDS:
        for name, ways in apart_by_rank(world, rows).items():
            kind = "composites" if SPECS[name].composite else "totals"
            for way, far in ways.items():
                kinds.setdefault((kind, way), {}).setdefault(world, []).append((far, name))
        for name, ways in learnt(world).items():
            for way, far in ways.items():
                kinds.setdefault(("balancers", way), {}).setdefault(world, []).append((far, name))
    return kinds


def main():
    print("| | " + " | ".join(f"{world} rank{'s' * (world > 1)}" for world in WORLDS) + " | of |")
    print("| --- |" + " --- |" * (len(WORLDS) + 1))
    for (kind, way), by_world in sorted(table().items()):
        cells = [
            f"{max(by_world[world])[0]:.1e}, {max(by_world[world])[1]}" if world in by_world else ""
            for world in WORLDS
        ]
        most = max(len(found) for found in by_world.values())
        print(f"| {kind}, {way} | {' | '.join(cells)} | {most} |")


if __name__ == "__main__":
    main()
