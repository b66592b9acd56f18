"""ACROSS.md: every claim at every scale that has committed results, next to the paper."""

from collections.abc import Sequence

from sepablate.analysis import across
from sepablate.analysis.across import Across, Cell
from sepablate.analysis.formatting import capitalize, markdown_table, percent, with_interval
from sepablate.analysis.metrics import TASK_METRICS
from sepablate.plots import across_matrix
from sepablate.store import layout
from sepablate.store.files import write_atomically

TITLES = {
    layout.REPORT: "The paper's own comparisons",
    "CONTROLS": "Controls that the paper lacks",
    "FURTHER": "Further studies",
    "DETECTION": "Detection of objects",
}
METRICS = {metric.name: metric.label for metric in TASK_METRICS.values()} | {
    "speed": "mean of the curve",
    "per_cost": "score per mult-add",
}
TEXT = """\
# Every claim at every scale

Each cell has the difference in points, the 95 % interval that belongs to its verdict, n and the
verdict, as the report of its scale gives them; nothing is computed anew. The interval over n paired
seeds is corrected for all claims of that report; it is a little wider than Holm's test, which
decides, so a claim may hold with an interval that just includes zero. Scales differ in data, width
and length of training, and the paper's numbers are of ImageNet, one run each: compare signs and
verdicts, not sizes. *Over settings* pools a scale with the departures from it, see its
`ROBUSTNESS.md`; k counts them, and the interval is the prediction for one more. Claims on another
metric are *not pooled*.
"""


def outputs(scales: Sequence[str]) -> None:
    """Write results/ACROSS.md and its figure, from the committed verdicts of some scales.

    Raises UserError for a scale without verdicts.
    """
    read = across.read(scales)
    main = read.of_report(layout.REPORT)
    for kind in layout.FIGURE_KINDS:
        write_atomically(layout.ACROSS.with_name(f"across.{kind}"), across_matrix.draw(main, kind))
    write_atomically(layout.ACROSS, markdown(read))


def markdown(read: Across) -> str:
    """Return the text: the matrix, and a table for each report."""
    parts = [TEXT, "![The verdict on each claim at each scale, and the paper](across.png)\n"]
    for report in dict.fromkeys(read.reports):
        title = TITLES.get(report, f"Questions of one's own: `{report}.md`")
        parts += [f"## {title}\n", _table(read.of_report(report))]
        parts += _same_runs(read, report)
    return "\n".join(parts)


def _same_runs(read: Across, report: str) -> list[str]:
    """Return a line for each claim of a report with the numbers of one further up, and why."""
    lines = []
    for row, before, columns in read.same_runs():
        if read.reports[row] != report:
            continue
        ours, theirs = _other_sides(read, row, before)
        scales = [read.columns[column][0] for column in columns]
        path = layout.scale_folder(scales[0]) / layout.report_text(report)
        lines.append(
            f"*{capitalize(read.claims[row].statement)}* has in every seed the difference of "
            f"*{read.claims[before].statement}* ({', '.join(scales)}): "
            f"{ours} was trained exactly as {theirs}, see `{path}`.\n"
        )
    return lines


def _other_sides(read: Across, row: int, before: int) -> tuple[str, str]:
    """Return the labels of the sides that two claims do not share."""
    ours, theirs = read.labels[row], read.labels[before]
    (mine,), (other,) = {*ours} - {*theirs}, {*theirs} - {*ours}
    return mine, other


def _table(part: Across) -> str:
    heads = [f"{scale}, {across_matrix.DATA_SETS.get(kind, kind)}" for scale, kind in part.columns]
    rows, main = [], part.reports[0] == layout.REPORT
    for claim, cells, printed in zip(part.claims, part.cells, part.paper, strict=True):
        found = [
            _cell(cells[column]) if column in cells else part.missing(column)
            for column in range(len(part.columns))
        ]
        silent = "claimed, no number" if main else "–"
        paper = silent if printed is None else percent(printed, "+")
        rows.append((capitalize(claim.statement), METRICS[claim.metric], *found, paper))
    return markdown_table(("Claim", "Metric", *heads, "Paper"), rows)


def _cell(cell: Cell) -> str:
    kind = "k" if cell.outcome in across_matrix.CARRYING_STYLES else "n"
    numbers = with_interval(cell.mean, cell.low, cell.high, sign="+")
    return f"{numbers}, {kind} = {cell.n}, **{cell.outcome}**"
