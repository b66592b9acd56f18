"""REPORT.md: every claim and its verdict, each study in full, and what was run."""

import ast
import json
import re
from pathlib import Path
from typing import Any

from sepablate import paper, study
from sepablate.analysis import sentences
from sepablate.analysis.results import RESULTS, config
from sepablate.analysis.tables import markdown, scientific
from sepablate.analysis.verdicts import Verdict
from sepablate.study import Study

PER_RUN = {"variant", "label", "run_keys", "source_digest"}
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
    loaded = {name: study.load(name) for name in studies}
    configs = {
        variant.name: config(scale, variant.name)
        for each in loaded.values()
        for variant in each.all
    }
    parts = [
        f"# What the claims come to, at scale `{scale}`\n",
        _done(loaded[studies[0]].baseline.label, list(configs.values())),
        f"![Each claim's difference with its 95 % interval; the table below has the numbers]"
        f"({scorecard})\n",
        sentences.scorecard(decided),
        "\\* Some runs diverged; see below.\n" * any(v.measured.diverged for v in decided),
        HOW_TO_READ.format(family=len(decided)),
        _elsewhere(loaded),
        *(
            _study(name, each, scale, configs, [v for v in decided if v.measured.study == name])
            for name, each in loaded.items()
        ),
        "## What was run\n",
        _hardware(scale, list(configs)),
        "Settings that all runs share. Weights are drawn as `sepablate/models/layers.py` says; the "
        "paper does not give its own initialisation.\n",
        _shared_settings(list(configs.values())),
    ]
    return "\n".join(filter(None, parts))


def _done(baseline: str, configs: list[dict[str, Any]]) -> str:
    """What was trained, on what and for how long; `configs`: of all variants, a baseline first."""
    first, sizes = configs[0], [each["parameters"] for each in configs]
    colour = "grey" if first["model.in_channels"] == 1 else "colour"
    return (
        f"{len(configs)} networks were trained from scratch, each {len(first['seeds'])} times "
        f"(seeds {_text(first['seeds'])}), on {first['images']:,} {colour} images of "
        f"`{first['dataset']}` in {first['model.classes']} classes, {first['image_size']} pixels "
        f"wide: {first['steps']:,} gradient steps, each on {first['batch_size']} images (epochs: "
        f"{_text(first['epochs'])}). {baseline} is {first['model.width']:g} times as wide as in "
        f"the paper and has {first['parameters']:,} parameters; the networks have {min(sizes):,} "
        f"to {max(sizes):,}. The curves are measured on {first['validation_images']:,} images that "
        f"are not trained on; the final accuracy on {first['test_images']:,} test images, once, "
        "after the last step.\n"
    )


def _elsewhere(loaded: dict[str, Study]) -> str:
    """The studies that this report leaves to the other one."""
    others = [study.load(name).title for name in study.names() if name not in loaded]
    return (
        f"Not in this report: {_titles(others)}. `make repro` writes the paper's own comparisons "
        "to `REPORT.md`, and `make repro-all` the controls that the paper lacks to `CONTROLS.md` "
        "beside it.\n"
        if others
        else ""
    )


def _controls(name: str, each: Study) -> str:
    """The studies that ask about the same section of the paper, or the same networks."""
    found = []
    for other in (study.load(other) for other in study.names() if other != name):
        sections = {claim.section for claim in each.claims} & {c.section for c in other.claims}
        shared = {variant.name for variant in each.all} & {v.name for v in other.all}
        if sections or len(shared) > 1:
            found.append(other.title)
    return f"Studies of the same question: {_titles(found)}.\n" if found else ""


def _titles(titles: list[str]) -> str:
    return "; ".join(f"*{title}*" for title in titles)


def _study(
    name: str, each: Study, scale: str, configs: dict[str, Any], decided: list[Verdict]
) -> str:
    folder = RESULTS / scale / name
    parts = [
        f"## {each.title}\n",
        f"{each.source}; declared in `{study.FOLDER / name}.py`.\n",
        _declared(study.FOLDER / f"{name}.py"),
        f"![{each.title}]({name}/figure.png)\n",
        (folder / "table.md").read_text(),
        _beside_the_paper(each, configs),
        "".join(f"- {sentences.sentence(verdict)}\n" for verdict in decided),
        _differences(each, configs),
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


def _beside_the_paper(each: Study, configs: dict[str, Any]) -> str:
    """Tables 1 and 3 beside our parameters, for a study that compares two of their networks."""
    both = [v for v in each.all if v.label in paper.TABLE_1 and v.label in paper.TABLE_3]
    if len(both) < 2:
        return ""
    header = ("Network", "Paper: ImageNet top-1 (%)", "top-5 (%)", "Parameters", "Parameters here")
    rows = [
        (
            v.label,
            f"{100 * paper.TABLE_1[v.label].top_1:.1f}",
            f"{100 * paper.TABLE_1[v.label].top_5:.1f}",
            f"{paper.TABLE_3[v.label].parameters:,}",
            f"{configs[v.name]['parameters']:,}",
        )
        for v in both
    ]
    return f"{paper.SOURCE}, tables 1 and 3; one run each:\n\n{markdown(header, rows)}"


def _differences(each: Study, configs: dict[str, Any]) -> str:
    """What the resolved config of each variant has that the baseline's has not."""
    base = configs[each.baseline.name]
    lines = []
    for variant in each.variants:
        own = configs[variant.name]
        changed = [
            f"`{key}` {_text(own.get(key, '–'))} ({_text(base.get(key, '–'))})"
            for key in {**own, **base}
            if key not in PER_RUN and own.get(key) != base.get(key)
        ]
        lines.append(f"- {variant.label}: {', '.join(changed)}\n")
    return (
        f"Resolved settings that differ from {each.baseline.label} (its own):\n\n{''.join(lines)}"
    )


def _shared_settings(configs: list[dict[str, Any]]) -> str:
    first, *others = configs
    rows = [
        (f"`{key}`", _text(value), paper.RECIPE.get(key, ""))
        for key, value in first.items()
        if key not in PER_RUN and all(each.get(key) == value for each in others)
    ]
    return markdown(("Setting", "Here", "In the paper"), rows)


def _hardware(scale: str, variants: list[str]) -> str:
    """The processors of the runs, if their measurements are on disk; no times, which vary."""
    files = [
        path
        for name in variants
        for path in sorted((RESULTS / scale / "measured" / name).glob("seed-*.json"))
    ]
    found = {json.loads(path.read_text())["hardware"]["processor"] for path in files}
    return f"Trained on: {', '.join(sorted(found))}.\n" if found else ""


def _text(value: object) -> str:
    if isinstance(value, float):
        return scientific(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
