"""Execute runs: on this machine's cores and GPUs, by torchrun, or on a dask cluster.

Nothing here decides numbers: an edit retrains nothing.
"""
