"""The files that the pipeline's commands write: of a study from its runs, of a report from those.

The same input gives the same bytes each time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sepablate import study
from sepablate.analysis import (
    effects,
    layer_costs,
    learning_curves,
    load_runs,
    summary_table,
    verdicts,
    wording,
)
from sepablate.errors import UserError, command
from sepablate.plots import detections, forest, layer_figure, study_figure, style
from sepablate.report import dvc_metrics, html, layer_markdown, manifest, markdown
from sepablate.store import collected_runs, layout, run_archive
from sepablate.store.files import read_json, write_atomically
from sepablate.study import Study


def study_outputs(name: str, scale: str, part: Study | None = None) -> None:
    """Write a study's table, curves, claims.json and figures.

    Args:
        name: the study's name.
        scale: the name of the scale.
        part: the study restricted to the variants that have runs; default: the whole study.

    Raises UserError if the study is unknown or its runs are not whole.
    """
    declared = part or study.load(name)
    runs = load_runs.load_runs(declared.all_variants, scale)
    summary = summary_table.summarise(declared, runs)
    curves = learning_curves.profile(runs.frame, runs.metric)
    labels = {variant.name: variant.label for variant in declared.all_variants}
    styles = style.variant_styles(list(labels))  # for DVC's plots, the figure's colours
    curves["colour"] = [styles[name].colour for name in curves["variant"]]
    measured = [effects.measure(name, claim, runs, labels) for claim in declared.claims]
    folder = layout.study_folder(scale, name)
    write_atomically(folder / layout.TABLE, summary_table.to_csv(summary))
    write_atomically(folder / layout.TABLE_MARKDOWN, summary_table.to_markdown(summary))
    write_atomically(folder / layout.CURVES, summary_table.to_csv(curves))
    write_atomically(folder / layout.CLAIMS, effects.to_json(measured))
    for kind in layout.FIGURE_KINDS:
        drawn = study_figure.draw(runs, kind, declared.against)
        write_atomically(layout.figure(folder, kind), drawn)
        if runs.metric.resampled:
            _draw_detectors(runs, folder, kind)
        for number in declared.figures:
            like = study_figure.draw_like_paper(runs, declared, number, kind)
            write_atomically(layout.like_paper(folder, number, kind), like)


def _draw_detectors(runs: load_runs.Runs, folder: Path, kind: str) -> None:
    """Write the figures of a study of detectors."""
    seed = runs.seeds[0]
    paths = {name: collected_runs.seed_examples(runs.scale, name, seed) for name in runs.configs}
    examples = {name: read_json(path, list) for name, path in paths.items() if path.is_file()}
    drawn = {layout.LIKE_TABLE_13: detections.draw_against_paper(runs, kind)}
    if examples:  # of runs that did not diverge
        drawn[layout.SCENES] = detections.draw_examples(runs, examples, kind)
    for name, content in drawn.items():
        write_atomically(layout.named_figure(folder, name, kind), content)


def check_replaces_none(studies: Sequence[str], scale: str, report: str) -> None:
    """Raise UserError if the report of that name has studies, with runs, that would be lost."""
    path = layout.scale_folder(scale) / layout.verdicts_name(report)
    try:
        there = dict.fromkeys(verdict["measured"]["study"] for verdict in read_json(path, list))
    except (UserError, OSError, KeyError, TypeError):  # none, or a damaged one
        return
    lost = [name for name in there if name not in studies and name in study.names()]
    if lost:
        text = path.with_name(layout.report_text(report))
        raise UserError(
            f"report {', '.join(studies)}: {text} also has {', '.join(lost)}: name "
            f"{'it' if len(lost) == 1 else 'them'} too, or choose another --name"
        )


def report_outputs(studies: Sequence[str], scale: str, report: str = layout.REPORT) -> None:
    """Write the report on `studies`, whose claims are one family.

    REPORT.md, report.html, scorecard.png and .svg, verdicts.json, metrics.json, digests.json, and
    runs.tar.gz with the runs; under another name <NAME>.md, <name>.html and the rest after <name>_.

    Args:
        studies: their names, in the order of the report.
        scale: the name of the scale.
        report: the report's name.

    Raises UserError if a study is unknown or its stage has not run.
    """
    decided = verdicts.decide([claim for name in studies for claim in read_claims(name, scale)])
    summaries = {
        name: summary_table.read(layout.study_folder(scale, name) / layout.TABLE)
        for name in studies
    }
    files: dict[str, str | bytes] = {
        layout.metrics_name(report): dvc_metrics.to_json(summaries, decided),
        layout.verdicts_name(report): wording.to_json(decided),
        layout.report_text(report): markdown.write(studies, scale, decided, report),
    }
    if decided:
        keys = summary_table.run_keys(summaries.values())
        for kind in layout.FIGURE_KINDS:
            files[layout.scorecard_name(report, kind)] = forest.draw(decided, kind, keys, scale)
    _write_report(scale, report, studies, files)
    archive = layout.scale_folder(scale) / layout.archive_name(report)
    trained = dict.fromkeys(name for table in summaries.values() for name in table["variant"])
    write_atomically(archive, run_archive.renewed({scale: trained}, archive))


def layer_outputs(studies: Sequence[str], scale: str, report: str = layout.LAYER_REPORT) -> None:
    """Write the tables and figures of layer studies, and the report on them, from their times.

    The report shows detectors.csv, too, where `sepablate layers` has written it.

    Args:
        studies: their names, in the order of the report.
        scale: the name of the scale.
        report: the report's name: COSTS.md, costs.html and costs_digests.json by default.

    Raises UserError if a study is unknown or has no measured.csv.
    """
    for name in studies:
        declared, times = study.load_layers(name).at(scale), layer_costs.read(scale, name)
        summary, folder = layer_costs.summarise(declared), layout.study_folder(scale, name)
        write_atomically(folder / layout.TABLE, summary_table.to_csv(summary))
        write_atomically(folder / layout.TABLE_MARKDOWN, layer_costs.to_markdown(summary))
        for kind in layout.FIGURE_KINDS:
            write_atomically(layout.figure(folder, kind), layer_figure.draw(times, kind, scale))
    files: dict[str, str | bytes] = {
        layout.report_text(report): layer_markdown.write(studies, scale)
    }
    detectors = layout.scale_folder(scale) / layout.DETECTORS
    if detectors.is_file():  # listed among the report's files
        files[layout.DETECTORS] = detectors.read_bytes()
    _write_report(scale, report, studies, files, manifest.LAYERS)


def read_claims(name: str, scale: str) -> list[effects.Measured]:
    """Return the numbers of a study's claims; UserError if its stage has not run."""
    study.load(name)
    path = layout.study_folder(scale, name) / layout.CLAIMS
    if not path.is_file():
        raise UserError(f"{path}: missing; run {command(f'study {name}', scale)}")
    return effects.read(path)


def _write_report(
    scale: str,
    report: str,
    studies: Sequence[str],
    files: Mapping[str, str | bytes],
    kind: str = "",
) -> None:
    """Write the files of a report by name, its page, which embeds its figures, and its manifest."""
    folder = layout.scale_folder(scale)
    for name, content in files.items():
        write_atomically(folder / name, content)
    text = (folder / layout.report_text(report)).read_text()
    write_atomically(folder / layout.report_page(report), html.to_html(text, folder))
    manifest.write(scale, report, studies, [*files, layout.report_page(report)], kind)
