"""Films and images of equal seed: side by side or under one slider, all at the same denoising time."""
