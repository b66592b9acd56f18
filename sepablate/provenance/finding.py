"""A finding of the doctor."""

from dataclasses import dataclass

HINT = "; `sepablate doctor --repair`"


@dataclass(frozen=True)
class Finding:
    """A line on something wrong, and whether it was repaired."""

    line: str
    repaired: bool = False
