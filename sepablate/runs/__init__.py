"""A run, resolved to the last number and named by a hash: one variant, scale and seed."""
