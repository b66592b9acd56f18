"""The suite beside what a user could pick instead, timed in turns: `make bench`."""
