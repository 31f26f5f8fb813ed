"""Building blocks of pages: plots, galleries, panels, inputs that follow the URL."""
