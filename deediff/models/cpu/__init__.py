"""Parts of a network on a CPU, without gradients: fewer and larger calls, the same results up to rounding."""
