"""Write the README's lines on the committed verdicts: `python -m sepablate.report.readme`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sepablate.analysis.carrying_words import claimed_signs, interval
from sepablate.analysis.effects import number
from sepablate.analysis.formatting import (
    capitalize,
    markdown_table,
    percent,
    replace_section,
    with_interval,
)
from sepablate.analysis.wording import OUTCOMES
from sepablate.store import layout
from sepablate.store.files import read_json, read_text, write_atomically

README = Path("README.md")
HEADER = (
    "Claim on final accuracy",
    "Difference (points)",
    "Verdict",
    "From least to most training",
    "One more setting",
    "Outcome",
)
SCALE = "laptop"
LARGER = "workstation"
STUDY = "robustness"
ROBUSTNESS = layout.scale_folder(SCALE) / layout.report_text(STUDY.upper())
Entry = Mapping[str, Any]  # of verdicts.json or carrying.json


def results(verdicts: Sequence[Entry], carrying: Sequence[Entry]) -> str:
    """Return how many claims have each verdict, and a row for each on final accuracy.

    Args:
        verdicts: as they stand in verdicts.json.
        carrying: how far they carry, as it stands in carrying.json.
    """
    count = len(verdicts)
    pooled = {_key(each["effects"]): each for each in carrying}
    final = [each for each in verdicts if each["measured"]["claim"]["metric"] == "accuracy"]
    rows = [_row(verdict, pooled.get(_key(verdict["measured"]))) for verdict in final]
    known = [verdict["sentence"].partition("‡ ")[2] for verdict in verdicts]
    notes = [f"‡ {note} " for note in dict.fromkeys(known) if note]
    return (
        f"The verdicts on {count} claims of the paper, at scale `{SCALE}`: {_counted(verdicts)}. "
        f"Differences have 95 % intervals, corrected for all {count} claims as the verdicts are.\n"
        f"\n{markdown_table(HEADER, rows)}\n{''.join(notes)}"
    )


def _row(verdict: Entry, carries: Entry | None) -> tuple[str, ...]:
    """Return the cells of a claim at the scale and over its settings."""
    measured = verdict["measured"]
    low, high = number(verdict["corrected_low"]), number(verdict["corrected_high"])
    numbers = with_interval(measured["mean"], low, high, sign="+")
    mark = " ‡" if "‡" in verdict["sentence"] else ""
    here = (
        capitalize(measured["claim"]["statement"]),
        f"{numbers}, n = {len(measured['seeds'])}",
        f"**{verdict['outcome']}**{mark}",
    )
    if carries is None:
        return (*here, "–", "–", "–")
    estimate = carries["estimate"]
    ends = " to ".join(percent(mean, "+") for mean in _shortest_and_longest(carries))
    new = interval(estimate["new_low"], estimate["new_high"])
    return (*here, ends, new, f"**{carries['outcome']}**")


def _shortest_and_longest(carrying: Entry) -> list[float]:
    """Return the differences after the least and the most training, all else as at the scale."""
    settings = carrying["effects"]["settings"]
    others = {**settings[0]["levels"], "budget": ""}
    means = {
        each["images_seen"]: mean
        for each, (mean, _, _) in zip(settings, carrying["means"], strict=True)
        if {**each["levels"], "budget": ""} == others
    }
    return [means[min(means)], means[max(means)]]


def at_larger_scale(verdicts: Sequence[Entry]) -> str:
    """Return how many claims have each verdict at the larger scale, and the largest known gap.

    Args:
        verdicts: as they stand in its verdicts.json.
    """
    notes = [verdict["sentence"].partition("‡ ")[2] for verdict in verdicts]
    gap = next((f" {note}" for note in notes if note), "")
    report = layout.scale_folder(LARGER) / layout.report_text(layout.REPORT)
    return (
        f"At scale `{LARGER}`, wider networks on natural colour images, {len(verdicts)} of these "
        f"claims are trained: {_counted(verdicts)} ([report]({report})).{gap}\n"
    )


def over_settings(carrying: Sequence[Entry]) -> str:
    """Return what the columns on other settings mean, and in how many each claim has its sign.

    Args:
        carrying: as it stands in carrying.json.
    """
    settings, signs = len(carrying[0]["means"]), []
    for each in carrying:
        means = [number(mean) for mean, _, _ in each["means"]]
        signs.append(claimed_signs(each["effects"]["claim"]["comparison"], means)[0])
    counted = "all" if min(signs) == settings else ", ".join(map(str, signs))
    seen = [each["images_seen"] for each in carrying[0]["effects"]["settings"]]
    return (
        f"Over {settings} settings (other lengths, recipes, widths, batches and images; "
        f"{min(seen):,} to {max(seen):,} images seen) these claims have the paper's sign in "
        f"{counted}. *Carries*: one more setting like them is predicted to show it too. Otherwise "
        "a claim *depends* if its differences vary by more than the seeds explain, and is *open* "
        "if they do not. Compare signs with the paper, not sizes: these networks have trained "
        f"briefly. [How far the verdicts carry]({ROBUSTNESS}) has each setting.\n"
    )


def _counted(verdicts: Sequence[Entry]) -> str:
    counts = Counter(verdict["outcome"] for verdict in verdicts)
    return ", ".join(f"*{name}* {counts[name]}" for name in OUTCOMES if counts[name])


def _key(entry: Entry) -> tuple[str, ...]:
    claim = entry["claim"]
    return claim["left"], claim["comparison"], claim["right"], claim["metric"]


def section_text() -> str:
    """Return the README's section on the results, from the committed verdicts."""
    name = layout.verdicts_name(layout.REPORT)
    here, larger = (read_json(layout.scale_folder(scale) / name, list) for scale in (SCALE, LARGER))
    carrying = read_json(layout.study_folder(SCALE, STUDY) / layout.CARRYING, list)
    return results(here, carrying) + over_settings(carrying) + "\n" + at_larger_scale(larger)


def main() -> None:
    """Replace the README's section on the results."""
    write_atomically(README, replace_section(read_text(README), "results", section_text()))


if __name__ == "__main__":
    main()
