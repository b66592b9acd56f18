"""One run (engine, recipe, checkpoint), and many runs side by side (parallel)."""
