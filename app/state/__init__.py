"""What all pages share: the selection, the URL, and the cache of runs, traces and models."""
