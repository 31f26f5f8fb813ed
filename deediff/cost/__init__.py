"""GFLOPs of components and exits."""
