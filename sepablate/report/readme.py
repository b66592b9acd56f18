"""Write the README's lines on the committed verdicts: `python -m sepablate.report.readme`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sepablate.analysis.formatting import capitalize, replace_section, with_interval
from sepablate.analysis.wording import OUTCOMES, section
from sepablate.store import layout
from sepablate.store.files import read_json, read_text, write_atomically

README = Path("README.md")
SCALE = "laptop"


def results(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many claims have each verdict, and each study's first one on final accuracy.

    Args:
        verdicts: as they stand in verdicts.json.
    """
    counts = Counter(verdict["outcome"] for verdict in verdicts)
    counted = ", ".join(f"*{name}* {counts[name]}" for name in OUTCOMES if counts[name])
    first: dict[str, Mapping[str, Any]] = {}
    for verdict in verdicts:
        if verdict["measured"]["claim"]["metric"] == "accuracy":
            first.setdefault(verdict["measured"]["study"], verdict)
    lines = [
        f"The verdicts on {len(verdicts)} claims of the paper, at scale `{SCALE}`: {counted}. "
        "In points of final test accuracy, with 95 % intervals:",
        "",
        *map(_line, first.values()),
    ]
    return "\n".join([*lines, ""])


def _line(verdict: Mapping[str, Any]) -> str:
    measured = verdict["measured"]
    claim = measured["claim"]
    numbers = with_interval(measured["mean"], measured["low"], measured["high"], sign="+")
    return (
        f"* {capitalize(claim['statement'])} ({section(claim['section'])}): {numbers}, "
        f"n = {len(measured['seeds'])}, **{verdict['outcome']}**."
    )


def main() -> None:
    """Replace the README's section on the results."""
    path = layout.scale_folder(SCALE) / layout.verdicts_name(layout.REPORT)
    text = replace_section(read_text(README), "results", results(read_json(path, list)))
    write_atomically(README, text)


if __name__ == "__main__":
    main()
