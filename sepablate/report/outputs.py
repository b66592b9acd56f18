"""What the pipeline calls: a study's files from its runs, and a report from its studies' files."""

from pathlib import Path

from sepablate import study
from sepablate.analysis import (
    effects,
    layer_costs,
    learning_curves,
    load_runs,
    summary_table,
    verdicts,
)
from sepablate.analysis.load_runs import RESULTS
from sepablate.errors import UserError
from sepablate.plots import forest, layer_figure, study_figure
from sepablate.report import dvc_metrics, html, manifest, markdown
from sepablate.store.files import write_atomically
from sepablate.study import AnyStudy, LayerStudy


def study_outputs(name: str, scale: str, part: AnyStudy | None = None) -> None:
    """Write a study's table, curves, claims.json and figure; the same bytes each time.

    One of layers has its table, and the figure of the times that measured.csv holds. part: what is
    left of the study where not all of its variants have runs.

    Raises UserError if the study is unknown, its runs are not whole or it has no times.
    """
    each = part or study.load(name)
    if isinstance(each, LayerStudy):
        _layer_outputs(name, each.at(scale), RESULTS / scale / name)
        return
    runs = load_runs.load_runs(each.all_variants, scale)
    summary = summary_table.summarise(each, runs)
    labels = {variant.name: variant.label for variant in each.all_variants}
    measured = [effects.measure(name, claim, runs, labels) for claim in each.claims]
    folder = RESULTS / scale / name
    write_atomically(folder / "table.csv", summary_table.to_csv(summary))
    write_atomically(folder / "table.md", summary_table.to_markdown(summary))
    write_atomically(
        folder / "curves.csv",
        summary_table.to_csv(learning_curves.profile(runs.frame, runs.measure)),
    )
    write_atomically(folder / "claims.json", effects.to_json(measured))
    for kind in ("png", "svg"):
        write_atomically(folder / f"figure.{kind}", study_figure.draw(runs, kind, each.against))


def _layer_outputs(name: str, each: LayerStudy, folder: Path) -> None:
    times, summary = layer_costs.read(folder, name), layer_costs.summarise(each)
    write_atomically(folder / "table.csv", summary_table.to_csv(summary))
    write_atomically(folder / "table.md", layer_costs.to_markdown(summary))
    for kind in ("png", "svg"):
        write_atomically(folder / f"figure.{kind}", layer_figure.draw(times, kind))


def report_outputs(studies: list[str], scale: str, name: str = "REPORT") -> None:
    """Write the report on `studies`, whose claims are one family; the same bytes each time.

    REPORT.md, report.html, scorecard.png and .svg, verdicts.json, metrics.json and digests.json;
    under another name <NAME>.md, <name>.html and the rest after <name>_.

    Raises UserError if a study is unknown or its stage has not run.
    """
    decided = verdicts.decide([each for name in studies for each in _measured(name, scale)])
    folder, prefix = RESULTS / scale, "" if name == "REPORT" else f"{name.lower()}_"
    summaries = {
        name: summary_table.from_csv((folder / name / "table.csv").read_text())
        for name in studies
        if study.load(name).all_variants
    }
    keys = summary_table.run_keys(summaries.values())
    own = [f"{name}.md", f"{name.lower()}.html", f"{prefix}metrics.json", f"{prefix}verdicts.json"]
    for kind in ("png", "svg") if decided else ():
        own.append(f"{prefix}scorecard.{kind}")
        write_atomically(folder / own[-1], forest.draw(decided, kind, keys))
    text = markdown.write(studies, scale, decided, f"{prefix}scorecard.png")
    write_atomically(folder / f"{prefix}metrics.json", dvc_metrics.to_json(summaries, decided))
    write_atomically(folder / f"{prefix}verdicts.json", effects.to_json(decided))
    write_atomically(folder / f"{name}.md", text)
    write_atomically(folder / f"{name.lower()}.html", html.to_html(text, folder))
    manifest.write(folder / f"{prefix}digests.json", name, studies, own)


def _measured(name: str, scale: str) -> list[effects.Measured]:
    if not study.load(name).claims:
        return []
    path: Path = RESULTS / scale / name / "claims.json"
    if not path.is_file():
        raise UserError(f"{path}: missing; run `sepablate study {name}`")
    return effects.from_json(path.read_text())
