"""Plans: what was found by search, validated, beside the full network at every budget."""
