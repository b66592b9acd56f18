"""Train one run. Every file here decides numbers, and is hashed into the keys of all runs."""
