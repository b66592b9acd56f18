"""The power of a number of seeds for the differences that committed results found."""

from collections.abc import Iterator
from pathlib import Path

from sepablate.analysis import statistics
from sepablate.analysis.formatting import count_of_claims
from sepablate.analysis.statistics import LEVEL
from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import read_json

MEASURED_AT = "laptop"  # the scale whose results are in git, with all reports
FOUND = ("holds", "contradicted")


def lines(seeds: int, everything: bool) -> Iterator[str]:
    """Yield a line on each report at the scale `laptop` that found a difference; none without one.

    The power is that of the paired t-test at the level of Holm's first step, for effects as large
    and noise as strong as measured there.

    Args:
        seeds: how many there would be.
        everything: all reports, not only the first one.

    Raises UserError if a file has no verdicts.
    """
    for path in layout.verdict_files(MEASURED_AT):
        if everything or path.name == layout.verdicts_name(layout.REPORT):
            yield from _line(path, seeds)


def _line(path: Path, seeds: int) -> Iterator[str]:
    verdicts = read_json(path, list)
    try:
        effects = [
            verdict["measured"]["mean"] / verdict["measured"]["deviation"]
            for verdict in verdicts
            if verdict["outcome"] in FOUND and verdict["measured"]["claim"]["comparison"] != "="
        ]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: not the verdicts of a report: {error!r}") from None
    if not effects:
        return
    family = len(verdicts)
    powers = [statistics.power(effect, seeds, LEVEL / family) for effect in effects]
    differences = "one difference" if len(effects) == 1 else f"{len(effects)} differences"
    yield (
        f"power   {min(powers):.2f} to {max(powers):.2f} with {seeds} seed{'s' * (seeds > 1)}, "
        f"for the {differences} that {path} found among {count_of_claims(family)}, if as large here"
    )
