"""A study for a paper of your own: its figure as PDF, its table in LaTeX."""

from pathlib import Path

import pandas as pd

from sepablate import study
from sepablate.analysis import load_runs, summary_table
from sepablate.plots import study_figure
from sepablate.store.files import write_atomically
from sepablate.study import Study

SIGNS = {"−": "$-$", "–": "--", "×": r"$\times$"}  # what pdfLaTeX lacks in UTF-8


def latex_outputs(name: str, scale: str, folder: Path, part: Study | None = None) -> list[Path]:
    """Write <folder>/<study>.pdf and .tex, the same bytes for the same runs; return their paths.

    Args:
        name: the study's name.
        scale: the name of the scale.
        folder: where to; made if it is missing.
        part: the study restricted to the variants that have runs; default: the whole study.

    Raises:
        UserError: The study is unknown or its runs are not whole.
    """
    declared = part or study.load(name)
    runs = load_runs.load_runs(declared.all_variants, scale)
    keys = study_figure.run_keys(runs.frame)
    text = table(summary_table.summarise(declared, runs))
    head = (
        f"% The table of study {name} at scale {scale}: test scores of trained networks with 95 %\n"
        "% Student's t intervals over seeds; differences are paired by seed.\n"
        f"% Needs \\usepackage{{booktabs}}. Runs: {keys}\n"
    )
    figure, tabular = folder / f"{name}.pdf", folder / f"{name}.tex"
    write_atomically(figure, study_figure.draw(runs, "pdf", declared.against))
    write_atomically(tabular, head + text)
    return [figure, tabular]


def table(summary: pd.DataFrame) -> str:
    """Return the table of a study as a tabular with the rules of booktabs."""
    header, *rows = summary_table.to_rows(summary)
    style = pd.DataFrame(rows, columns=header).style.hide(axis="index")
    style = style.format(escape="latex").format_index(escape="latex", axis="columns")
    text = style.to_latex(hrules=True, column_format="l" + "r" * (len(header) - 1))
    for sign, command in SIGNS.items():
        text = text.replace(sign, command)
    return text
