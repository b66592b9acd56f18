"""Numbers and tables as the reports print them."""

import math
from collections.abc import Iterable, Sequence

from sepablate.errors import UserError


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def replace_section(text: str, name: str, section: str) -> str:
    """Return Markdown with `section` between its lines <!-- name --> and <!-- /name -->.

    Raises UserError if it has no such lines.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise UserError(f"no lines <!-- {name} --> and <!-- /{name} --> in the text")
    return before + begin + section + end + after


def percent(fraction: float, sign: str = "-", digits: int = 2) -> str:
    """Return a fraction in percent, or a difference of fractions in points; – for nan.

    Args:
        fraction: the number.
        sign: "+" to show the sign of a positive number too.
        digits: after the point; a zero has no minus.
    """
    return "–" if math.isnan(fraction) else f"{100 * fraction:{sign}z.{digits}f}".replace("-", "−")


def with_interval(mean: float, low: float, high: float, sign: str = "-") -> str:
    """Return a mean and its interval, in percent or points; sign: as in `percent`."""
    return f"{percent(mean, sign)} [{percent(low, sign)}, {percent(high, sign)}]"


def probability(p: float) -> str:
    """Return a p-value to three decimals; – for nan."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def scientific(number: float) -> str:
    """Return a number in short form, such as 1e-5 for 0.00001."""
    return f"{number:g}".replace("e-0", "e-")


def count_of_claims(count: int, every: str = "") -> str:
    """Return "7 claims", "all 7 claims" or "the 7 claims"; of one "1 claim" or "the one claim".

    Args:
        count: of the claims.
        every: the word before the number, "all" or "the"; "" for none.
    """
    if count == 1:
        return "the one claim" if every else "1 claim"
    return f"{every} {count} claims".strip()


def capitalize(text: str) -> str:
    """Return the text with a capital at its start, the rest unchanged."""
    return text[0].upper() + text[1:]
