"""State shared by all pages: the selection, the URL, and the cache of runs, traces and models."""
