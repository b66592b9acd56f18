"""Train detectors: the third task. Only the keys of runs that detect hash this folder."""
