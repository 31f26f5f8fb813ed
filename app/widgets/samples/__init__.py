"""One number, or features, of every sample of a trace."""
