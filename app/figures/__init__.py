"""Numbers in, Plotly figures out; nothing here knows about Streamlit."""

from figures.exits import exit_heatmap, exit_trajectories, layer_colors, mean_exit_lines
from figures.plain import DIFFERENCE, FULL, HEIGHT, OTHERS, PROBABILITY, UNCERTAINTY, A, B, Line, Mark, Spec
from figures.uncertainty import uncertainty_curves, uncertainty_heatmap

__all__ = [
    "DIFFERENCE",
    "FULL",
    "HEIGHT",
    "OTHERS",
    "PROBABILITY",
    "UNCERTAINTY",
    "A",
    "B",
    "Line",
    "Mark",
    "Spec",
    "exit_heatmap",
    "exit_trajectories",
    "layer_colors",
    "mean_exit_lines",
    "uncertainty_curves",
    "uncertainty_heatmap",
]
