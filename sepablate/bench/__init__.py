"""Benchmarks against the tools that a user could choose instead, timed in turns: `make bench`."""
