"""Measure cost without training: parameters, multiply-adds, step times, layer times."""
