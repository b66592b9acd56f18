"""Measure cost without training: parameters and multiply-adds, step times, times of single layers."""
