"""What committed results say of themselves: checked where the runs behind them are not on disk."""

import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np

from sepablate import study
from sepablate.analysis import effects, layer_costs, partial, summary_table, verdicts, wording
from sepablate.analysis.effects import Measured
from sepablate.provenance import differences, embedded_keys
from sepablate.report import dvc_metrics, html
from sepablate.study import LayerStudy


def check_study(name: str, folder: Path) -> Iterator[str]:
    """Where a study's table, figure and claims in `folder` do not agree."""
    declared = partial.shown(name, folder)
    table = folder / "table.csv"
    if isinstance(declared, LayerStudy):
        yield from _of_layers(declared.at(folder.parent.name), folder, study.FOLDER / f"{name}.py")
        return
    summary = summary_table.from_csv(table.read_text())
    markdown = summary_table.to_markdown(summary).encode()
    yield from differences.in_bytes(folder / "table.md", markdown, str(table))
    names = [variant.name for variant in declared.all_variants]
    if list(summary["variant"]) != names:
        yield f"{table}: variants {list(summary['variant'])}, but the study has {names}"
    for figure in sorted(folder.glob("figure.*")):
        if embedded_keys.read_run_keys(figure) != embedded_keys.read_run_keys(table):
            yield f"{figure}: other run keys than in {table}"
    path = folder / "claims.json"
    measured = effects.from_json(path.read_text())
    if [each.claim for each in measured] != list(declared.claims):
        yield f"{path}: not the claims that {study.FOLDER / name}.py declares"
    for index, each in enumerate(measured):
        yield from (f"{path}, [{index}].{line}" for line in _numbers(each))


def _of_layers(declared: LayerStudy, folder: Path, origin: Path) -> Iterator[str]:
    """The tables follow from the study, the figure from the times."""
    summary, times = layer_costs.summarise(declared), layer_costs.read(folder, origin.stem)
    for file, expected in (
        ("table.csv", summary_table.to_csv(summary)),
        ("table.md", layer_costs.to_markdown(summary)),
    ):
        yield from differences.in_bytes(folder / file, expected.encode(), str(origin))
    for figure in sorted(folder.glob("figure.*")):
        if layer_costs.origin(times) not in unescape(figure.read_text("latin-1")):
            yield f"{figure}: not of the times in {folder / layer_costs.MEASURED}"


def _numbers(measured: Measured) -> Iterator[str]:
    """What does not follow from a claim's differences, one per seed."""
    expected = effects.paired_effect(measured.claim, np.array(measured.differences))
    found = {name: getattr(measured, name) for name in expected}
    plain = (effects.without_nan(each) for each in (found, expected))
    yield from differences.in_numbers(*plain)


def check_report(name: str, studies: list[str], folder: Path) -> Iterator[str]:
    """Where a report does not follow from the tables and claims of its studies in `folder`."""
    prefix = "" if name == "REPORT" else f"{name.lower()}_"
    timed = [each for each in studies if not study.load(each).all_variants]
    studies = [each for each in studies if each not in timed]
    texts = {each: (folder / each / "claims.json").read_text() for each in studies}
    decided = verdicts.decide([one for text in texts.values() for one in effects.from_json(text)])
    summaries = {
        each: summary_table.from_csv((folder / each / "table.csv").read_text()) for each in studies
    }
    for file, expected in (
        (f"{prefix}verdicts.json", effects.to_json(decided)),
        (f"{prefix}metrics.json", dvc_metrics.to_json(summaries, decided)),
    ):
        found = json.loads((folder / file).read_text())
        lines = differences.in_numbers(found, json.loads(expected))
        yield from (f"{folder / file}, {line}" for line in lines)
    report = folder / f"{name}.md"
    text = report.read_text()
    parts = [wording.scorecard(decided), *map(summary_table.to_markdown, summaries.values())]
    parts += map(wording.sentence, decided)
    parts += [partial.sentence(each, partial.shown(each, folder / each)) for each in studies]
    parts += [(folder / each / "table.md").read_text() for each in timed]
    parts += [layer_costs.sentences(layer_costs.read(folder / each, each)) for each in timed]
    for line in "\n".join(parts).splitlines():
        if line not in text:
            yield f"{report}: does not say {line[:100]!r}"
    made = html.to_html(text, folder).encode()
    yield from differences.in_bytes(folder / f"{name.lower()}.html", made, str(report))
    keys = embedded_keys.read_run_keys(folder / f"{prefix}scorecard.svg")
    if embedded_keys.read_run_keys(folder / f"{prefix}scorecard.png") != keys:
        yield f"{folder / prefix}scorecard.png: other run keys than in the .svg"
