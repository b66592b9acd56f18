"""Turn runs on disk into numbers, tables and verdicts. Nothing here trains, draws or tracks."""
