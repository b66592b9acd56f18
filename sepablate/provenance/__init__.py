"""Trace every number to its runs, and verify that it follows from them. Writes no results."""
