"""What the pipeline calls: a study's files from its runs, and a report from its studies' files."""

from pathlib import Path

from sepablate import study
from sepablate.analysis import claims, report, results, tables, verdicts
from sepablate.analysis.results import RESULTS
from sepablate.files import write_atomically


def study_outputs(name: str, scale: str) -> None:
    """Write table.csv, table.md, claims.json and the figure of a study; the same bytes each time.

    Raises ValueError if the study is unknown or its runs are not whole.
    """
    from sepablate.analysis import figures  # slow to import, and a report draws nothing

    each = study.load(name)
    runs = results.read(each.all, scale)
    summary = tables.summarise(each, runs)
    labels = {variant.name: variant.label for variant in each.all}
    measured = [claims.measure(name, claim, runs, labels) for claim in each.claims]
    folder = RESULTS / scale / name
    write_atomically(folder / "table.csv", tables.to_csv(summary))
    write_atomically(folder / "table.md", tables.to_markdown(summary))
    write_atomically(folder / "claims.json", claims.to_json(measured))
    for kind in ("png", "svg"):
        write_atomically(folder / f"figure.{kind}", figures.draw(runs.frame, kind))


def report_outputs(studies: list[str], scale: str) -> None:
    """Write verdicts.json and REPORT.md on `studies`: the claims of all of them are one family.

    Raises ValueError if a study is unknown or its stage has not run.
    """
    decided = verdicts.decide([each for name in studies for each in _measured(name, scale)])
    text = report.write(studies, scale, decided)
    write_atomically(RESULTS / scale / "verdicts.json", claims.to_json(decided))
    write_atomically(RESULTS / scale / "REPORT.md", text)


def _measured(name: str, scale: str) -> list[claims.Measured]:
    study.load(name)
    path: Path = RESULTS / scale / name / "claims.json"
    if not path.is_file():
        raise ValueError(f"{path}: missing; run `sepablate study {name}`")
    return claims.from_json(path.read_text())
