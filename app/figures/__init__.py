"""Numbers in, Plotly figures out; nothing here knows about Streamlit."""

from figures.calibration import calibration_heatmap, reliability_curves
from figures.depth import at_timestep, still_inside
from figures.exits import exit_heatmap, exit_trajectories, layer_colors
from figures.maps import map_over_image, maps_by_layer
from figures.over_time import gap, mean_exit_lines, spread_over_samples
from figures.plain import DIFFERENCE, FULL, HEIGHT, OTHERS, PROBABILITY, UNCERTAINTY, A, B, Line, Mark, Spec, in_order
from figures.shares import Bars, shares
from figures.uncertainty import rises, uncertainty_curves, uncertainty_heatmap

__all__ = [
    "DIFFERENCE",
    "FULL",
    "HEIGHT",
    "OTHERS",
    "PROBABILITY",
    "UNCERTAINTY",
    "A",
    "B",
    "Bars",
    "Line",
    "Mark",
    "Spec",
    "at_timestep",
    "calibration_heatmap",
    "exit_heatmap",
    "exit_trajectories",
    "gap",
    "in_order",
    "layer_colors",
    "map_over_image",
    "maps_by_layer",
    "mean_exit_lines",
    "reliability_curves",
    "rises",
    "shares",
    "spread_over_samples",
    "still_inside",
    "uncertainty_curves",
    "uncertainty_heatmap",
]
