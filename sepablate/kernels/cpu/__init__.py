"""C++ kernels for one CPU thread, compiled for this machine."""
