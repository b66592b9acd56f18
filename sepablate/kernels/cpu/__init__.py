"""Kernels in C++ for one thread of a CPU, compiled when they are first used."""
