"""REPORT.md: every claim and its verdict, each study in full, and the setup."""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from sepablate import study
from sepablate.analysis import partial, summary_table, wording
from sepablate.analysis.formatting import count_of_claims
from sepablate.analysis.load_runs import Config, load_config
from sepablate.analysis.metrics import TASK_METRICS
from sepablate.analysis.verdicts import Verdict
from sepablate.report import at_scale, paper_tables, published, setup, tuning
from sepablate.store import layout
from sepablate.store.files import read_text
from sepablate.store.made_by import whole_scale
from sepablate.study import Study, Variant

HOW_TO_READ = """\
Seed k gives every variant the same data order, augmentation and, where they share them, initial
weights; differences are paired by seed, and n counts the pairs. Intervals are 95 % Student's t.
Those over seeds estimate other trainings on these test images, those over test images these
networks on other images. p-values are Holm-adjusted over {claims} of this report. A
claim *holds* or is *contradicted* if its adjusted p is below 0.05, is *equivalent* if the
difference is within the margin declared {when} (two one-sided tests, adjusted p below
0.05), and otherwise is *inconclusive*. Of a claim of equality the p-value is that of the
difference being within ± its margin, in points. {together} The full rule, and how often it errs, is
in `sepablate/analysis/verdicts.py`.
"""
TOGETHER = """\
Intervals for all {family} claims are corrected for their
number, and hold together; they are a little wider than Holm's tests, which decide."""
NOTHING_TOGETHER = """\
With one claim there is nothing to
correct for."""
LATE = "declared after runs of both networks"  # as `sepablate new study` writes it into a study
BEFORE, NOT_ALL_BEFORE = "before the runs", "before the runs, unless a study below says otherwise"
OTHER_REPORTS = """\
Not in this report: {titles}. `make repro` writes the paper's own comparisons to `REPORT.md` and the
cost of layers to `COSTS.md`; `make repro-all` also writes the controls that the paper lacks to
`CONTROLS.md`, further studies to `FURTHER.md` and detectors to `DETECTION.md`, in the same folder.
"""
SETUP = """\
Settings that all runs share, and those that the Xception paper gives or leaves open. Weights are
drawn as in `sepablate/models/weight_init.py`; the paper does not give its own initialisation.
"""
SIZES_OF_BOXES = {
    "garment_boxes": "16 and 24 pixels",
    "coco": "32 and 96 pixels in images of 640 x 480",
}
OTHER_SETUP = """\
Settings that all runs share. Weights are drawn as in `sepablate/models/weight_init.py`.
"""


def write(studies: Sequence[str], scale: str, decided: Sequence[Verdict], report: str) -> str:
    """Return the report on `studies`, from the files that their stages wrote.

    Args:
        studies: their names, in the order of the report.
        scale: the name of the scale.
        decided: the verdicts on their claims.
        report: the report's name.
    """
    parts = {name: partial.tabulated_part(name, scale) for name in studies}
    configs = {
        variant.name: load_config(scale, variant.name)
        for part in parts.values()
        for variant in part.all_variants
    }
    made_by = whole_scale(scale)
    summaries = {
        name: summary_table.read(layout.study_folder(scale, name) / layout.TABLE)
        for name in studies
    }
    sections = [
        f"# Replication report, scale `{scale}`\n",
        setup.trained(parts, configs),
        f"![The difference of each claim with its 95 % interval; the table below has the numbers]"
        f"({layout.scorecard_name(report, 'png')})\n",
        wording.scorecard(decided),
        _how_to_read(len(decided), studies),
        _other_studies(studies),
        published.section(summaries, decided),
        *(
            _study(name, part, scale, configs, [v for v in decided if v.measured.study == name])
            for name, part in parts.items()
        ),
        "## Setup\n",
        f"{made_by}\n" if made_by else "",
        setup.hardware(scale, list(configs)),
        tuning.chosen(scale, configs),
        SETUP if any(map(setup.is_on_paper, parts.values())) else OTHER_SETUP,
        setup.shared(parts, configs),
    ]
    return "\n".join(filter(None, sections))


def _how_to_read(family: int, studies: Sequence[str]) -> str:
    together = NOTHING_TOGETHER if family == 1 else TOGETHER.format(family=family)
    late = any(LATE in docstring_points(study.FOLDER / f"{name}.py") for name in studies)
    return HOW_TO_READ.format(
        claims=count_of_claims(family, "the"),
        together=together,
        when=NOT_ALL_BEFORE if late else BEFORE,
    )


def study_head(name: str, title: str, source: str, here: str = "") -> str:
    """Return the beginning of a study's section: title, source, its docstring and its figure.

    Args:
        name: the study's name.
        title: of the section.
        source: the paper and the section.
        here: a further point, on what the study is at the report's scale.
    """
    path = study.FOLDER / f"{name}.py"
    figure = layout.figure(Path(name), "png").as_posix()
    return "\n".join(
        [
            f"## {title}\n",
            f"{source}; declared in `{path}`.\n",
            docstring_points(path) + here,
            f"![{title}]({figure})\n",
        ]
    )


def _study(
    name: str,
    part: Study,
    scale: str,
    configs: Mapping[str, Config],
    decided: Sequence[Verdict],
) -> str:
    """Return the section of a study; decided: the verdicts on its claims."""
    folder = layout.study_folder(scale, name)
    parts = [
        study_head(name, part.title, part.source, at_scale.point(part, configs)),
        partial.missing_sentence(name, part),
        read_text(folder / layout.TABLE_MARKDOWN),
        _detection(name, summary_table.read(folder / layout.TABLE), configs[part.baseline.name]),
        paper_tables.format_tables(summary_table.read(folder / layout.TABLE)),
        *(
            _like_paper(name, number, part)
            for number in part.figures
            if layout.like_paper(folder, number, "png").is_file()  # older code drew none
        ),
        "".join(f"- {wording.sentence(verdict)}\n" for verdict in decided),
        at_scale.searches(part, configs, _pipeline_variants()),
        setup.differences(part, configs),
        at_scale.confounds(part, configs),
        _related_studies(name, part),
    ]
    return "\n".join(filter(None, parts))


def _detection(name: str, table: pd.DataFrame, config: Config) -> str:
    """Return the further numbers and figures of a study of detectors; empty for another."""
    if not (details := summary_table.details(table)):
        return ""
    limits = SIZES_OF_BOXES.get(config["dataset"])
    sides = f", whose limits are sides of {limits}" if limits else ""
    scenes, against = (
        layout.named_figure(Path(name), figure, "png").as_posix() for figure in layout.DETECTION
    )
    return (
        "COCO's further numbers, with averaged weights, means over the seeds: at an IoU of 0.50 "
        f"and 0.75, and of small, medium and large boxes{sides}:\n\n{details}\n"
        f"![The first test images with true and predicted boxes, for each network]({scenes})\n\n"
        "Like table 13 of the paper:\n\n"
        f"![mAP against mult-adds: table 13 on the left, the networks here on the right]"
        f"({against})\n"
    )


def _like_paper(name: str, number: int, part: Study) -> str:
    """Return the figure that is like one of the paper."""
    score = TASK_METRICS[part.baseline.task].label
    labels = {variant.name: variant.label for variant in part.all_variants}
    shown = ", ".join(labels[variant] for variant in part.figures[number])
    path = layout.like_paper(Path(name), number, "png").as_posix()
    return (
        f"Like figure {number} of the paper, which has curves of one run each and no numbers:\n\n"
        f"![Like figure {number} of the paper: validation {score} against gradient steps, "
        f"of {shown}]({path})\n"
    )


def _other_studies(names: Sequence[str]) -> str:
    """Return the studies that this report leaves to the others."""
    titles = [study.load(name).title for name in _pipeline_studies() if name not in names]
    titles += [study.load_layers(name).title for name in study.layer_names()]
    return OTHER_REPORTS.format(titles=_italic(titles)) if titles else ""


def _pipeline_studies() -> list[str]:
    """Return the studies that dvc.yaml names; one that is in no pipeline changes no report."""
    path = Path(layout.PAPER_PIPELINE)
    text = read_text(path) if path.is_file() else ""
    return [name for name in study.names() if not text or f"{study.FOLDER / name}.py" in text]


def _pipeline_variants() -> list[Variant]:
    """Return the variants of the studies that dvc.yaml names."""
    return [each for name in _pipeline_studies() for each in study.load(name).all_variants]


def _related_studies(name: str, part: Study) -> str:
    """Return the studies on the same section of the paper, or on the same networks."""
    titles = []
    for other in (study.load(other) for other in _pipeline_studies() if other != name):
        shared = {v.name for v in part.all_variants} & {v.name for v in other.all_variants}
        same_paper = _papers(part) & _papers(other)
        if (same_paper and _sections(part) & _sections(other)) or len(shared) > 1:
            titles.append(other.title)
    return f"Studies of the same question: {_italic(titles)}.\n" if titles else ""


def _sections(declared: Study) -> set[str]:
    """Return the sections of the paper on which a study has claims: "4.5.1" of "4.5.1, table 2"."""
    return {claim.section.partition(",")[0] for claim in declared.claims}


def _papers(declared: Study) -> set[str]:
    """Return the papers that a study names, as "arXiv:1610.02357" or, of others, "Author 2017"."""
    arxiv = re.findall(r"arXiv:\d+\.\d+", declared.source)
    return {*arxiv} or {declared.source.partition(",")[0]}


def _italic(titles: Sequence[str]) -> str:
    return "; ".join(f"*{title}*" for title in titles)


def docstring_points(path: Path) -> str:
    """Return the paragraphs of a study's docstring as a list."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    points = re.findall(r"^(Question|Paper|Deviates) +(.*?)(?=^\S|\Z)", text, re.M | re.S)
    return "".join(f"- **{head}.** {' '.join(body.split())}\n" for head, body in points)
