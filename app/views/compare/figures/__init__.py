"""Figures of the page: numbers in, Plotly JSON out."""
