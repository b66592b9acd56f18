"""REPORT.md: every claim and its verdict, each study in full, and what was run."""

import ast
import re
from pathlib import Path
from typing import Any

from sepablate import study
from sepablate.analysis import layer_costs, partial, summary_table, wording
from sepablate.analysis.load_runs import RESULTS, load_config
from sepablate.analysis.verdicts import Verdict
from sepablate.report import paper_tables, setup
from sepablate.study import AnyStudy, LayerStudy, Study

HOW_TO_READ = """\
Seed k gives every variant the same data order, augmentation and, where they share them, initial
weights; differences are paired by seed, and n counts the pairs. Intervals are 95 % Student's t.
Those over seeds say what another training would give on these test images, those over test images
what these networks would give on other images. p-values are Holm-adjusted over the {family} claims
of this report. A claim *holds* or is *contradicted* if its adjusted p is below 0.05, is
*equivalent* if the difference is within the margin declared before the runs (two one-sided tests,
adjusted p below 0.05), and else is *inconclusive*. The whole rule is in
`sepablate/analysis/verdicts.py`.
"""


def write(studies: list[str], scale: str, decided: list[Verdict], scorecard: str) -> str:
    """The report on `studies`, from what their stages wrote; scorecard: its forest plot's name."""
    loaded = {name: partial.shown(name, RESULTS / scale / name) for name in studies}
    training = {name: each for name, each in loaded.items() if isinstance(each, Study)}
    if not training:
        title = f"# What was measured without training, at scale `{scale}`\n"
        parts = [_study(name, each, scale, {}, []) for name, each in loaded.items()]
        return "\n".join([title, *parts])
    configs = {
        variant.name: load_config(scale, variant.name)
        for each in loaded.values()
        for variant in each.all_variants
    }
    parts = [
        f"# What the claims come to, at scale `{scale}`\n",
        setup.trained(training, configs),
        f"![Each claim's difference with its 95 % interval; the table below has the numbers]"
        f"({scorecard})\n",
        wording.scorecard(decided),
        "\\* Some runs diverged; see below.\n" * any(v.measured.diverged for v in decided),
        HOW_TO_READ.format(family=len(decided)),
        _elsewhere(loaded),
        *(
            _study(name, each, scale, configs, [v for v in decided if v.measured.study == name])
            for name, each in loaded.items()
        ),
        "## What was run\n",
        setup.hardware(scale, list(configs)),
        "Settings that all runs share, and those that the Xception paper speaks of or leaves open. "
        "Weights are drawn as `sepablate/models/initial.py` says; the paper does not give its own "
        "initialisation.\n",
        setup.shared(list(configs.values())),
    ]
    return "\n".join(filter(None, parts))


def _elsewhere(loaded: dict[str, AnyStudy]) -> str:
    """The studies that this report leaves to the others."""
    others = [study.load(name).title for name in study.names() if name not in loaded]
    return (
        f"Not in this report: {_titles(others)}. `make repro` writes the paper's own comparisons "
        "to `REPORT.md` and what layers cost to `COSTS.md`, `make repro-all` the controls that the "
        "paper lacks to `CONTROLS.md` and further studies to `FURTHER.md`, beside each other.\n"
        if others
        else ""
    )


def _controls(name: str, each: AnyStudy) -> str:
    """The studies that ask about the same section of the paper, or the same networks."""
    found = []
    for other in (study.load(other) for other in study.names() if other != name):
        shared = {variant.name for variant in each.all_variants} & {
            v.name for v in other.all_variants
        }
        if _sections(each) & _sections(other) or len(shared) > 1:
            found.append(other.title)
    return f"Studies of the same question: {_titles(found)}.\n" if found else ""


def _sections(each: AnyStudy) -> set[str]:
    """Of the papers, without what follows: "4.5.1" of "4.5.1, table 2"."""
    return {claim.section.partition(",")[0] for claim in each.claims}


def _titles(titles: list[str]) -> str:
    return "; ".join(f"*{title}*" for title in titles)


def _study(
    name: str, each: AnyStudy, scale: str, configs: dict[str, Any], decided: list[Verdict]
) -> str:
    folder = RESULTS / scale / name
    parts = [
        f"## {each.title}\n",
        f"{each.source}; declared in `{study.FOLDER / name}.py`.\n",
        _declared(study.FOLDER / f"{name}.py"),
        f"![{each.title}]({name}/figure.png)\n",
    ]
    table = (folder / "table.md").read_text()
    if isinstance(each, LayerStudy):
        return "\n".join([*parts, layer_costs.sentences(layer_costs.read(folder, name)), table])
    parts += [
        partial.sentence(name, each),
        table,
        paper_tables.format_tables(summary_table.from_csv((folder / "table.csv").read_text())),
        "".join(f"- {wording.sentence(verdict)}\n" for verdict in decided),
        setup.differences(each, configs),
    ]
    if each.confounds:
        reasons = "".join(f"- {what}: {why}\n" for what, why in each.confounds.items())
        parts.append(f"Confounds:\n\n{reasons}")
    parts.append(_controls(name, each))
    return "\n".join(filter(None, parts))


def _declared(path: Path) -> str:
    """The paragraphs of a study's docstring as a list."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    found = re.findall(r"^(Question|Paper|Deviates) +(.*?)(?=^\S|\Z)", text, re.M | re.S)
    return "".join(f"- **{head}.** {' '.join(body.split())}\n" for head, body in found)
