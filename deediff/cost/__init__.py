"""GFLOPs per component, per exit and per sampling job."""
