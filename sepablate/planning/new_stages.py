"""Add a study to the second pipeline, experiments/dvc.yaml: lines are inserted, none is changed.

Its variants are trained, unless they are already, its stage compares them, and the stage `own`
reports it in OWN, with other studies of one's own, for Holm's correction counts the claims of a
report. No other report mentions it, so that none becomes stale.
"""

import json
from pathlib import Path

import yaml

from sepablate import study
from sepablate.errors import UserError
from sepablate.planning.pipeline import stage_names
from sepablate.store.layout import FURTHER_PIPELINE, PAPER_PIPELINE
from sepablate.study import TASK_SCORES, Study

OWN = "own"
REPORTS = ("analysis", "paper", "plots", "report", "store", "study")  # what reports depend on
LABELS = {"accuracy": "accuracy", "map_100": "MAP@100", "map": "mAP"}
STUDY_STAGE = """\
  {name}:
    wdir: ..
    cmd: python -m sepablate study {name} --scale ${{scale}}
    deps:
      - experiments/{name}.py
{rooms}{runs}    outs:
      - results/${{scale}}/{name}:
          cache: false

"""
OWN_STAGE = """\
  {own}: # questions of one's own, with a report of their own
    wdir: ..
    cmd: >-
      python -m sepablate report --name OWN --scale ${{scale}}
      {name}
    deps:
{files}{rooms}      - results/${{scale}}/{name}
    outs:
{outs}      - results/${{scale}}/own_runs.tar.gz:
          cache: false
          persist: true
      - results/${{scale}}/own_metrics.json:
          cache: false

"""
OWN_FILES = (
    "OWN.md",
    "own.html",
    "own_scorecard.svg",
    "own_scorecard.png",
    "own_verdicts.json",
    "own_digests.json",
)
PLOT = """\
  - ../results/${{scale}}/{name}/curves.csv:
      template: training_profile
      title: {title}
      x: step
      y: validation_{metric}
      x_label: Gradient steps
      y_label: Validation {label}, raw weights
"""


class _Lines:
    """The lines of a pipeline's file, its nodes, and what is to be inserted."""

    def __init__(self, file: str) -> None:
        self.file = file
        try:
            self.text = Path(file).read_text()
            self.root: yaml.Node = yaml.compose(self.text or "{}", yaml.SafeLoader)  # type: ignore
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None
        self.lines = self.text.splitlines(keepends=True)
        self.inserted: list[tuple[int, str]] = []

    def node(self, *path: str) -> yaml.Node:
        """Return what lies under these keys; UserError if there is nothing."""
        node = self.root
        for key in path:
            entries = node.value if isinstance(node, yaml.MappingNode) else []
            values = [value for name, value in entries if name.value == key]
            if not values:
                raise UserError(f"{self.file}: has no {'.'.join(path)}: add the study by hand")
            node = values[0]
        return node

    def stages_that(self, command: str) -> list[str]:
        """Return the stages that run a command of sepablate."""
        stages = yaml.safe_load(self.text)["stages"].items()
        return [name for name, each in stages if f"sepablate {command} " in str(each.get("cmd"))]

    def insert(self, line: int, text: str) -> None:
        """Insert a text before a line."""
        self.inserted.append((line, text))

    def before(self, *path: str) -> int:
        """Return the line of a key."""
        entries = self.node(*path[:-1]).value
        return next(name.start_mark.line for name, _ in entries if name.value == path[-1])

    def after(self, node: yaml.Node) -> int:
        """Return the line after the last one of a block, without comments and empty lines."""
        end, first = node.end_mark.line, node.start_mark.line
        while end > first + 1 and self.lines[end - 1].lstrip()[:1] in ("", "#"):
            end -= 1
        return end

    def result(self) -> str:
        """Return the text with what is inserted."""
        lines = list(self.lines)
        for line, text in sorted(self.inserted, key=lambda each: each[0], reverse=True):
            lines.insert(line, text)
        return "".join(lines)


def add(name: str, declared: Study) -> dict[str, str]:
    """Return the new content of the second pipeline's file, with a study, by its path.

    Raises UserError if the study has a stage, or if a file is not written like the project's.
    """
    if name in stage_names():
        raise UserError(f"study {name!r}: a stage has that name: it is in a pipeline already")
    paper, further = _Lines(PAPER_PIPELINE), _Lines(FURTHER_PIPELINE)
    _insert_variants(paper, further, name, declared)
    if OWN in yaml.safe_load(further.text)["stages"]:
        _extend_own(further, name)
        further.insert(further.before("stages", OWN), _study_stage(name, declared))
    else:
        last = further.stages_that("report")[-1]
        end = further.after(further.node("stages", last))
        further.insert(
            end, "\n" + (_study_stage(name, declared) + _own_stage(name)).rstrip("\n") + "\n"
        )
    _insert_plot(further, name, declared)
    content = further.result()
    _check(content, name, declared)
    return {FURTHER_PIPELINE: content}


def _study_stage(name: str, declared: Study) -> str:
    runs = [f"results/${{scale}}/runs/{variant.name}" for variant in declared.all_variants]
    return STUDY_STAGE.format(name=name, rooms=_rooms(), runs=_items(runs))


def _own_stage(name: str) -> str:
    studies = sorted({*study.names(), *study.layer_names(), name})
    outs = (f"      - results/${{scale}}/{file}:\n          cache: false\n" for file in OWN_FILES)
    files = _items([f"experiments/{each}.py" for each in studies])
    return OWN_STAGE.format(own=OWN, name=name, files=files, rooms=_rooms(), outs="".join(outs))


def _rooms() -> str:
    return _items([f"sepablate/{room}" for room in REPORTS])


def _items(values: list[str]) -> str:
    return "".join(f"      - {value}\n" for value in values)


def _insert_variants(paper: _Lines, further: _Lines, name: str, declared: Study) -> None:
    """Add to the second pipeline's train stage the variants that neither trains."""
    tables = [lines.node("stages", "train", "foreach") for lines in (paper, further)]
    trained = {key.value for table in tables for key, _ in table.value}
    new = [variant.name for variant in declared.all_variants if variant.name not in trained]
    text = "".join(f"      {variant}: {name}\n" for variant in new)
    further.insert(further.after(tables[1]), text)


def _insert_file(lines: _Lines, name: str) -> None:
    """Add the study's file to the dependencies of OWN, in the order of the alphabet."""
    wanted = f"experiments/{name}.py"
    deps = lines.node("stages", OWN, "deps").value
    files = [each for each in deps if str(each.value).startswith("experiments/")]
    later = [each.start_mark.line for each in files if each.value > wanted]
    line = min(later) if later else max([each.start_mark.line + 1 for each in files] or [0])
    if not line:
        raise UserError(f"{lines.file}: {OWN} depends on no study's file: add it by hand")
    lines.insert(line, f"      - {wanted}\n")


def _extend_own(further: _Lines, name: str) -> None:
    """Add the study to the command and the dependencies of the report OWN."""
    _insert_file(further, name)
    further.insert(further.after(further.node("stages", OWN, "cmd")), f"      {name}\n")
    deps = further.node("stages", OWN, "deps")
    further.insert(further.after(deps), f"      - results/${{scale}}/{name}\n")


def _insert_plot(further: _Lines, name: str, declared: Study) -> None:
    metric = TASK_SCORES[declared.baseline.task]
    title = json.dumps(declared.title, ensure_ascii=False)
    text = PLOT.format(name=name, title=title, metric=metric, label=LABELS[metric])
    further.insert(further.after(further.node("plots")), text)


def _check(text: str, name: str, declared: Study) -> None:
    """Raise UserError unless the study is in the file, also where that is written otherwise."""
    try:
        stages = yaml.safe_load(text)["stages"]
        whole = (
            stages[name] == yaml.safe_load(_study_stage(name, declared))[name]
            and name in stages[OWN]["cmd"].split()
            and f"results/${{scale}}/{name}" in stages[OWN]["deps"]
        )
    except (yaml.YAMLError, KeyError, TypeError):
        whole = False
    if not whole:
        missing = _study_stage(name, declared).rstrip()
        raise UserError(
            f"{FURTHER_PIPELINE}: is not written like the project's: add by hand: {missing!r}"
        )
