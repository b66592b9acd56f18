"""Where the runs of a variant are trained: on this machine, with torchrun, on a cluster."""
