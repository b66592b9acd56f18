"""A run: one variant at one scale with one seed, resolved to the last number and named by a hash."""
