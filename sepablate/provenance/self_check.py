"""Check results against themselves, where the runs that they follow from are not on disk."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from sepablate import study
from sepablate.analysis import effects, partial, summary_table, verdicts, wording
from sepablate.analysis.effects import Measured
from sepablate.provenance.differences import byte_differences, number_differences
from sepablate.provenance.embedded_keys import read_run_keys
from sepablate.report import dvc_metrics, html, outputs, published
from sepablate.store import layout
from sepablate.store.files import read_json, read_text
from sepablate.store.made_by import whole_scale


def check_study(name: str, scale: str) -> Iterator[str]:
    """Yield where a study's table, figure and claims do not agree."""
    declared, folder = partial.tabulated_part(name, scale), layout.study_folder(scale, name)
    table = folder / layout.TABLE
    summary = summary_table.read(table)
    markdown = summary_table.to_markdown(summary).encode()
    yield from byte_differences(folder / layout.TABLE_MARKDOWN, markdown, str(table))
    names = [variant.name for variant in declared.all_variants]
    if list(summary["variant"]) != names:
        yield f"{table}: variants {list(summary['variant'])}, but the study has {names}"
    keys = read_run_keys(table)
    for figure in layout.figures(folder):
        number = figure.stem.removeprefix(layout.LIKE_PAPER)
        shown = declared.figures.get(int(number), ()) if number.isdecimal() else keys
        if read_run_keys(figure) != {variant: keys.get(variant) for variant in shown}:
            yield f"{figure}: other run keys than in {table}"
    path, measured = folder / layout.CLAIMS, outputs.read_claims(name, scale)
    if [claim.claim for claim in measured] != list(declared.claims):
        yield f"{path}: not the claims that {study.FOLDER / name}.py declares"
    for index, claim in enumerate(measured):
        yield from (f"{path}, [{index}].{line}" for line in _check_numbers(claim))


def _check_numbers(measured: Measured) -> Iterator[str]:
    """Yield the numbers that do not follow from a claim's differences, one per seed."""
    expected = effects.paired_effect(measured.claim, np.array(measured.differences))
    numbers = {name: getattr(measured, name) for name in expected}
    yield from number_differences(effects.without_nan(numbers), effects.without_nan(expected))


def check_report(report: str, studies: Sequence[str], scale: str) -> Iterator[str]:
    """Yield where a report does not follow from its studies' tables and claims.

    Args:
        report: the report's name.
        studies: their names, in the order of the report.
        scale: the name of the scale.
    """
    folder = layout.scale_folder(scale)
    claims = [claim for name in studies for claim in outputs.read_claims(name, scale)]
    decided = verdicts.decide(claims)
    summaries = {
        name: summary_table.read(layout.study_folder(scale, name) / layout.TABLE)
        for name in studies
    }
    path = folder / layout.verdicts_name(report)
    lines = number_differences(read_json(path, list), json.loads(wording.to_json(decided)))
    yield from (f"{path}, {line}" for line in lines)
    path = folder / layout.metrics_name(report)
    expected = json.loads(dvc_metrics.to_json(summaries, decided))
    lines = number_differences(read_json(path, dict), expected)
    yield from (f"{path}, {line}" for line in lines)
    path = folder / layout.report_text(report)
    text = read_text(path)
    parts = [wording.scorecard(decided), *map(summary_table.to_markdown, summaries.values())]
    parts += [*map(wording.sentence, decided), published.section(summaries, decided)]
    parts += [
        partial.missing_sentence(name, partial.tabulated_part(name, scale)) for name in studies
    ]
    parts.append(str(whole_scale(scale) or ""))
    for line in "\n".join(parts).splitlines():
        if line not in text:
            yield f"{path}: does not say {line[:100]!r}"
    page = html.to_html(text, folder).encode()
    yield from byte_differences(folder / layout.report_page(report), page, str(path))
    yield from _check_scorecard(report, scale)


def _check_scorecard(report: str, scale: str) -> Iterator[str]:
    png, svg = (
        layout.scale_folder(scale) / layout.scorecard_name(report, kind)
        for kind in layout.FIGURE_KINDS
    )
    if svg.is_file() and read_run_keys(png) != read_run_keys(svg):
        yield f"{png}: other run keys than in {svg}"
