"""What lies on disk: paths and names, atomic writes and manifests, run files, keys, checkpoints."""
