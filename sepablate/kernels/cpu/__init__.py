"""Kernels in C++ for a CPU, compiled when they are first used."""
