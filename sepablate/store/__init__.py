"""Everything on disk: paths, names, atomic writes, manifests, run files, keys, checkpoints."""
