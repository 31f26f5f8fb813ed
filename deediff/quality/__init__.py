"""How good images are: extractors, distances between sets of images, their intervals and floors."""
