"""Figures that several pages draw: tables in, figures out."""
