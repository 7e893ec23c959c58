"""Bipartite matching: each target is given the one prediction with which all costs least."""

from __future__ import annotations

from aptt.loss.matching.assignment import Assignment, assign
from aptt.loss.matching.cost import match_cost
from aptt.loss.matching.hungarian import HungarianMatcher
from aptt.loss.matching.layers import denoising_matches, union_matches

__all__ = [
    "Assignment",
    "HungarianMatcher",
    "assign",
    "denoising_matches",
    "match_cost",
    "union_matches",
]
