"""Options that several commands have."""

import typer


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r}: choose a whole number, at least 1")
    return int(text)


def scale_name(name: str | None) -> str:
    """Return the name of the given scale, or else of the one that params.yaml selects.

    Raises:
        UserError: There is no such scale, or it is invalid.
    """
    from sepablate import scales  # with pydantic and YAML, which --help does without

    name = name or scales.current()
    scales.load(name)
    return name
