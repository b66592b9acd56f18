"""Write the README's lines on the committed verdicts: `python -m sepablate.report.readme`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sepablate.analysis.carrying_words import claimed_signs
from sepablate.analysis.formatting import capitalize, replace_section, with_interval
from sepablate.analysis.wording import OUTCOMES, section
from sepablate.store import layout
from sepablate.store.files import read_json, read_text, write_atomically

README = Path("README.md")
SCALE = "laptop"
LARGER = "workstation"
STUDY = "robustness"
ROBUSTNESS = layout.scale_folder(SCALE) / layout.report_text(STUDY.upper())


def results(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many claims have each verdict, and each study's first one on final accuracy.

    Args:
        verdicts: as they stand in verdicts.json.
    """
    counted = _counted(verdicts)
    first: dict[str, Mapping[str, Any]] = {}
    for verdict in verdicts:
        if verdict["measured"]["claim"]["metric"] == "accuracy":
            first.setdefault(verdict["measured"]["study"], verdict)
    known = [verdict["sentence"].partition("‡ ")[2] for verdict in verdicts]
    notes = [f"‡ {note}" for note in dict.fromkeys(known) if note]
    lines = [
        f"The verdicts on {len(verdicts)} claims of the paper, at scale `{SCALE}`: {counted}. "
        "In points of final test accuracy, with 95 % intervals:",
        "",
        *map(_line, first.values()),
        *(["", *notes, ""] if notes else []),
    ]
    return "\n".join([*lines, ""])


def at_larger_scale(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return how many claims have each verdict at the larger scale, and the largest known gap.

    Args:
        verdicts: as they stand in its verdicts.json.
    """
    notes = [verdict["sentence"].partition("‡ ")[2] for verdict in verdicts]
    gap = next((f" {note}" for note in notes if note), "")
    report = layout.scale_folder(LARGER) / layout.report_text(layout.REPORT)
    return (
        f"At scale `{LARGER}`, wider networks on natural colour images, {len(verdicts)} of these "
        f"claims are trained: {_counted(verdicts)} ([report]({report})).{gap}\n\n"
    )


def over_settings(carrying: Sequence[Mapping[str, Any]]) -> str:
    """Return how far each claim carries, in one line.

    Args:
        carrying: as it stands in carrying.json.
    """
    counts = []
    for each in carrying:
        effects = each["effects"]
        means = [math.nan if mean is None else mean for mean, _, _ in each["means"]]
        claimed, _ = claimed_signs(effects["claim"]["comparison"], means)
        counts.append(f"of {effects['right_label']} in {claimed}, **{each['outcome']}**")
    left, settings = carrying[0]["effects"]["left_label"], len(carrying[0]["means"])
    return (
        f"Over {settings} settings (other lengths, recipes, widths, batches and images) "
        f"{left} is ahead {'; '.join(counts)}. *Carries*: one more setting is predicted to show it "
        "as well. Else a claim *depends* if its differences vary by more than the seeds explain, "
        f"and is *open* if they do not. [How far the verdicts carry]({ROBUSTNESS}) says without "
        "which settings a verdict would be another.\n"
    )


def _counted(verdicts: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(verdict["outcome"] for verdict in verdicts)
    return ", ".join(f"*{name}* {counts[name]}" for name in OUTCOMES if counts[name])


def _line(verdict: Mapping[str, Any]) -> str:
    measured = verdict["measured"]
    claim = measured["claim"]
    numbers = with_interval(measured["mean"], measured["low"], measured["high"], sign="+")
    mark = " ‡" if "‡" in verdict["sentence"] else ""
    return (
        f"* {capitalize(claim['statement'])} ({section(claim['section'])}): {numbers}, "
        f"n = {len(measured['seeds'])}, **{verdict['outcome']}**{mark}."
    )


def section_text() -> str:
    """Return the README's section on the results, from the committed verdicts."""
    name = layout.verdicts_name(layout.REPORT)
    here, larger = (read_json(layout.scale_folder(scale) / name, list) for scale in (SCALE, LARGER))
    carrying = read_json(layout.study_folder(SCALE, STUDY) / layout.CARRYING, list)
    return results(here) + at_larger_scale(larger) + over_settings(carrying)


def main() -> None:
    """Replace the README's section on the results."""
    write_atomically(README, replace_section(read_text(README), "results", section_text()))


if __name__ == "__main__":
    main()
