"""Where every number comes from, and whether it follows from there; nothing here writes results."""
