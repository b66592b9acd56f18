"""Kernels of our own for training in bf16 on one CPU thread, and how a network takes them on."""
