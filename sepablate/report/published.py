"""How far a report's networks are from accuracies that others published on the same images."""

from collections.abc import Mapping, Sequence

import pandas as pd

from sepablate.analysis import metrics
from sepablate.analysis.formatting import markdown_table, percent
from sepablate.analysis.summary_table import Row, score_cell
from sepablate.analysis.verdicts import Verdict
from sepablate.paper.accuracies import BY_DATA_SET, Reference, lowest_of_the_same_kind

ACCURACY = metrics.TASK_METRICS["single_label"]
HEADER = ("Network", "Test accuracy (%)", "Parameters", "Source", "Ours minus this (points)")
EXPLAINED = """\
Ours is the network of this report with the highest mean, chosen on the test images themselves; the
others are as their sources print them, mostly of one run, each with a training of its own. Networks
of the same kind (in italics) have Inception modules or depthwise separable convolutions, as here.
"""


def section(summaries: Mapping[str, pd.DataFrame], decided: Sequence[Verdict]) -> str:
    """Return a line and a table per data set that has references; "" without any.

    Args:
        summaries: the studies' tables.
        decided: the verdicts, which know their studies' data sets.
    """
    datasets = {v.measured.study: v.measured.dataset for v in decided}
    best: dict[str, Row] = {}
    for study, table in summaries.items():
        dataset = datasets.get(study, "")
        if dataset not in BY_DATA_SET or ACCURACY.name not in table:
            continue
        for row in table.dropna(subset=[ACCURACY.name]).to_dict("records"):
            if dataset not in best or row[ACCURACY.name] > best[dataset][ACCURACY.name]:
                best[dataset] = row
    if not best:
        return ""
    parts = [_line_and_table(dataset, row) for dataset, row in best.items()]
    return "\n".join(["## Distance to published accuracies\n", *parts, EXPLAINED])


def _line_and_table(dataset: str, ours: Row) -> str:
    references = sorted(BY_DATA_SET[dataset], key=lambda each: each.accuracy)
    lowest, top = lowest_of_the_same_kind(dataset), references[-1]
    ends = (("the lowest of the same kind", lowest), ("the highest", top))
    distances = [f"{_distance(ours, each)} points from {place}" for place, each in ends if each]
    line = (
        f"On `{dataset}`, {ours['label']} ends at {score_cell(ours, ACCURACY)} %, "
        f"n = {ours['n']}: {', '.join(distances)}.\n"
    )
    rows = [
        (
            f"**{ours['label']}, here**",
            f"{score_cell(ours, ACCURACY)}, n = {ours['n']}",
            f"{ours['parameters']:,}",
            "this report",
            "",
        )
    ]
    rows += [
        (
            f"*{each.network}*" if each.kind == "same" else each.network,
            percent(each.accuracy),
            each.parameters or "not given",
            each.source,
            _distance(ours, each),
        )
        for each in references
    ]
    return f"{line}\n{markdown_table(HEADER, rows)}"


def _distance(ours: Row, reference: Reference) -> str:
    return percent(ours[ACCURACY.name] - reference.accuracy, "+")
