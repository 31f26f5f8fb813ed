"""Image quality: feature extractors, distances between sets of images, intervals and floors."""
