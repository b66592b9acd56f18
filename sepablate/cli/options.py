"""Options that several commands share."""

import typer


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r}: choose a whole number, at least 1")
    return int(text)
