"""Heat maps: where on a grid a point or a centre lies.

heatmap_loss       the loss of predicted maps, cell by cell
render_heatmaps    maps from points
decode_heatmaps    points from maps
"""

from aptt.loss.heat.decode import Peaks, decode_heatmaps
from aptt.loss.heat.dsnt import DSNTLoss, dsnt_loss, dsnt_terms
from aptt.loss.heat.heatmap import HeatmapLoss, heatmap_loss
from aptt.loss.heat.render import render_heatmaps

__all__ = [
    "DSNTLoss",
    "HeatmapLoss",
    "Peaks",
    "decode_heatmaps",
    "dsnt_loss",
    "dsnt_terms",
    "heatmap_loss",
    "render_heatmaps",
]
