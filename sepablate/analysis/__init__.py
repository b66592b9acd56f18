"""From runs on disk to numbers, tables, figures and verdicts; nothing here trains or tracks."""
