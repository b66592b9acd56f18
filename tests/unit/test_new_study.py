"""`sepablate new study`: the file that it writes, what it refuses, its stages in the pipeline."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT, contents, sepablate

from sepablate import study
from sepablate.errors import UserError
from sepablate.planning import new_stages, new_study, pipeline, study_file
from sepablate.report import markdown
from sepablate.study import Study

PIPELINES = ("dvc.yaml", "experiments/dvc.yaml")
CHANGES = (
    ["weight_decay=3e-5"],
    ["relative_width=1.5", "learning_rates=0.1,0.02"],
    ["same_parameters_as=mobilenet_v1", "image_size=32"],
)
DIFFER = ["weight_decay", "parameters", "mult_adds"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The studies, the pipelines and params.yaml, as the current folder."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def declared(question: new_study.Question, differing: Sequence[str]) -> Study:
    changed = new_study._changed(question)
    fields = {f"model.{change}" for change in question.changes} | {*question.changes, "model.width"}
    return new_study._declare(question, changed, [*fields, *differing])


def test_the_files_are_what_ruff_writes_and_declare_what_was_asked(small: Path) -> None:
    """With any declared variant as the baseline, which other studies may go on declaring."""
    written, declared_before = [], study.variants()
    for number, (name, baseline) in enumerate(declared_before.items()):
        changes = new_study._parse(baseline, CHANGES[number % len(CHANGES)])
        claim = new_study.CLAIMS[number % len(new_study.CLAIMS)]
        source = new_study.OWN if number % 2 else "Ioffe and Szegedy 2015, section 4.2.1"
        question = new_study.Question(f"own_{number}", baseline, changes, claim, source)
        asked = declared(question, DIFFER)
        path = small / f"experiments/own_{number}.py"
        path.write_text(study_file.write(question, asked))
        assert study.load(path.stem) == asked, name
        written.append(path)
    assert {*declared_before} < {*study.variants()}
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", *written],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_a_file_is_short_and_reads_like_the_others(small: Path) -> None:
    changes = {"activation_between": "relu", "activation_after": "none"}
    question = new_study.Question("moved_relu", study.XCEPTION, changes, "worse")
    text = study_file.write(question, declared(question, []))
    assert text.startswith(
        '"""Xception with ReLU as activation between and none as activation after. '
        "A question of one's own.\n\nQuestion   Does Xception end more accurate than Xception with "
    )
    other = {"same_parameters_as": study.variant("mobilenet_v1")}
    same = new_study.Question("sized", study.XCEPTION, other)
    assert same.title == "Xception with same parameters as MobileNet"
    assert (
        "from sepablate.study import XCEPTION, Claim, Study\n\nMOVED_RELU = XCEPTION.but(" in text
    )
    assert len(text.splitlines()) <= 45


def test_an_equal_variant_is_taken_for_the_new_one(small: Path) -> None:
    question = new_study.Question("elu", study.XCEPTION, {"activation_between": "elu"})
    assert new_study._changed(question) == study.variants()["elu_between"]
    text = study_file.write(question, declared(question, []))
    line = 'ELU_BETWEEN = XCEPTION.but("elu_between", "ELU between", activation_between="elu")'
    assert line in text.splitlines()


@pytest.mark.parametrize(
    ("name", "baseline", "change", "message"),
    [
        ("Own", "xception", "hidden=2", "study 'Own': choose lower-case letters"),
        ("class", "xception", "hidden=2", "study 'class': choose lower-case letters"),
        ("borders", "xception", "hidden=2", "experiments/borders.py exists already"),
        (
            "report",
            "xception",
            "hidden=2",
            "study 'report': a stage, a report or a folder of results",
        ),
        ("runs", "xception", "hidden=2", "study 'runs': a stage, a report or a folder of results"),
        (
            "detection",
            "xception",
            "hidden=2",
            "study 'detection': a stage, a report or a folder of results",
        ),
        ("none_after", "xception", "hidden=2", r"activation\.py declares another variant"),
        ("deep", "xcepton", "hidden=2", "'xcepton' .*: did you mean xception[?]; choose"),
        ("deep", "xception", "hiden=2", "--change 'hiden': did you mean hidden[?]; choose .*"),
        ("deep", "xception", "hidden", "--change 'hidden': choose OPTION=VALUE"),
        ("deep", "xception", "hidden=two", "--change 'hidden=two': choose a whole number"),
        ("deep", "xception", "weight_decay=nan", "choose a number"),
        ("deep", "xception", "residual=no", "--change 'residual=no': choose true or false"),
        ("deep", "xception", "residual=true", "residual=true': xception has that already"),
        (
            "deep",
            "xception",
            "activation_between=rellu",
            "between=rellu': choose none, relu, elu; did you mean relu[?]",
        ),
        ("deep", "xception", "dropout=0.5", "model.dropout is then the same as xception's"),
    ],
)
def test_bad_questions_are_refused(
    small: Path, name: str, baseline: str, change: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        new_study.ask(name, baseline, [change], "smoke")


def test_a_claim_and_a_source_are_checked(small: Path) -> None:
    few = "choose at most 40 characters, without quotes"
    for option, text, message in (
        ("claim", "best", "--claim 'best': choose better, worse, equal"),
        ("source", 'A "B" 2017', "choose one line without quotes"),
        ("source", "A 2017\nB", "choose one line without quotes"),
        *(
            ("margin", text, f"--margin '{text}': margins are fractions, 0.005 is half")
            for text in ("5", "0.21", "x")
        ),
        *(
            ("margin", text, f"--margin '{text}': margins are fractions")
            for text in ("", "nan", "1", "0")
        ),
        *(("label", text, few) for text in ("", " ", "a" * 41, 'a "b"', "a\nb")),
        ("label", "ELU between", "--label 'ELU between': variant elu_between has it: choose"),
    ):
        with pytest.raises(UserError, match=message):
            new_study.ask("deep", "xception", ["hidden=2"], "smoke", **{option: text})


@pytest.mark.parametrize("claim", new_study.CLAIMS)
def test_a_margin_and_a_label_stand_in_the_file(small: Path, claim: str) -> None:
    texts = {"claim": claim, "margin": "0.0125", "label": "Two hidden"}
    question, asked = new_study.ask("deep", "xception", ["hidden=2"], "smoke", **texts)
    path = small / "experiments/deep.py"
    path.write_text(study_file.write(question, asked))
    loaded = study.load("deep")
    assert loaded == asked
    assert loaded.claims[0].margin == 0.0125
    assert loaded.variants[0].label == "Two hidden"
    assert "Two hidden" in loaded.claims[0].statement
    assert loaded.title == "Two hidden, against Xception"
    _, plain = new_study.ask("other", "xception", ["hidden=1"], "smoke", claim=claim)
    assert plain.claims[0].margin == (0.02 if claim == "equal" else 0.005)
    assert plain.variants[0].label == "Hidden 1"


def test_a_second_question_with_the_same_changes_says_whose_variant_it_takes(small: Path) -> None:
    """Its runs are the first one's, and so are its name and label in tables."""
    base = ("new", "study", "--baseline", "xception", "--change", "hidden=2", "--scale", "smoke")
    first = sepablate(small, *base, "first", "--label", "Two hidden")
    second = sepablate(small, *base, "second", "--label", "Another name", "--margin", "0.01")
    says = (
        "variant first (Two hidden) of experiments/first.py has the same changes: the study "
        "compares that one, with its runs and its label"
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert says not in first.stdout.splitlines()
    assert second.stdout.splitlines().count(says) == 1
    assert "margin: 1 point of accuracy\n" in second.stdout
    asked = study.load("second")
    assert [each.name for each in asked.variants] == ["first"]
    assert asked.claims[0].margin == 0.01
    assert asked.claims[0].statement == "Two hidden ends more accurate than Xception"


def test_the_next_commands_name_a_scale_that_is_not_selected(small: Path) -> None:
    base = ("new", "study", "--baseline", "xception", "--change", "hidden=2", "--scale", "smoke")
    written, margin, *lines = sepablate(small, *base, "first").stdout.splitlines()
    assert written == "written: experiments/first.py"
    assert margin == "margin: 0.5 points of accuracy"
    commands = [line.partition("  #")[0].rstrip() for line in lines]
    assert [each.split()[1] for each in commands] == ["train", "train", "study", "report"]
    assert all(each.endswith(" --scale smoke") for each in commands)
    assert lines[-1].endswith("# results/smoke/FIRST.md and first.html")
    own = {"first": "FIRST", "borders": "BORDERS", "residual_connections": "REPORT"}
    assert {name: pipeline.report_name([name]) for name in own} == own
    assert pipeline.report_name(["first", "borders"]) == "REPORT"
    by_dvc = sepablate(small, *base[:-4], "--change", "hidden=1", *base[-2:], "deep", "--pipeline")
    command = "dvc exp run -S scale=smoke experiments/dvc.yaml:own  # results/smoke/OWN.md and "
    assert by_dvc.stdout.splitlines()[-1].startswith(command), by_dvc.stderr
    selected = sepablate(small, *base[:-4], "--change", "hidden=3", "--scale", "laptop", "third")
    assert selected.returncode == 0, selected.stderr
    assert "--scale" not in selected.stdout


@pytest.mark.parametrize("source", [new_study.OWN, "Clevert 2016, section 4"])
def test_a_claim_on_runs_that_are_there_is_not_declared_before_training(
    small: Path, source: str
) -> None:
    """Runs of both sides at one scale count, collected or only finished; of one side, none does."""
    after = "declared after runs of both networks were there, at scale"

    def paper() -> str:
        changes = ["activation_between=elu"]
        question, asked = new_study.ask("moved", "xception", changes, "smoke", source=source)
        path = small / "moved.py"
        path.write_text(study_file.write(question, asked))
        return markdown.docstring_points(path)

    own = source == new_study.OWN
    assert (", declared before training." in paper()) == own
    collect(small, "smoke", "xception")
    collect(small, "laptop", "elu_between")
    assert after not in paper()
    finish(small, "smoke", "elu_between")
    assert f"{after} smoke." in paper()
    assert "before training" not in paper()
    collect(small, "laptop", "xception")
    assert f"{after}s smoke and laptop." in paper()
    (small / "moved.py").rename(small / "experiments/moved.py")
    says = "the margin declared before the runs, unless a study below says otherwise ("
    assert says in markdown._how_to_read(2, ["borders", "moved"])
    assert "the margin declared before the runs (" in markdown._how_to_read(1, ["borders"])


def test_the_command_says_that_a_claim_is_declared_after_its_runs(small: Path) -> None:
    for name in ("xception", "elu_between"):
        collect(small, "smoke", name)
    base = ("new", "study", "elu", "--baseline", "xception", "--change", "activation_between=elu")
    done = sepablate(small, *base, "--scale", "smoke", "--claim", "equal", "--margin", "0.2")
    words = "declared after runs of both networks were there, at scale smoke"
    assert done.stdout.splitlines()[1:3] == [
        "margin: 20 points of accuracy",
        f"the claim is {words}: the report says so",
    ]
    assert words in " ".join((small / "experiments/elu.py").read_text().split())


def collect(project: Path, scale: str, variant: str) -> None:
    """Leave what a variant's collected runs have, as far as it says that they are there."""
    folder = project / "results" / scale / "runs" / variant
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")


def finish(project: Path, scale: str, variant: str) -> None:
    """Leave what a finished run has, as far as it says that it is there."""
    folder = project / ".sepablate/runs/0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"scale": scale, "variant": variant}))
    (folder / "done.json").write_text("{}")


def test_stages_are_added_and_every_other_line_stays(small: Path) -> None:
    before = {path: (small / path).read_text() for path in PIPELINES}
    for name in ("wide", "deep"):
        changes = {"hidden": 2} if name == "deep" else {"relative_width": 2.0}
        question = new_study.Question(name, study.XCEPTION, changes)
        asked = declared(question, DIFFER)
        new = new_stages.add(name, asked)
        (small / f"experiments/{name}.py").write_text(study_file.write(question, asked))
        for path, text in new.items():
            (small / path).write_text(text)
    for path in PIPELINES:
        old, lines = before[path].splitlines(), iter((small / path).read_text().splitlines())
        assert all(line in lines for line in old), path  # in this order
    content = yaml.safe_load((small / PIPELINES[1]).read_text())
    stages = content["stages"]
    assert {"wide": "wide", "deep": "deep"}.items() <= stages["train"]["foreach"].items()
    assert "xception" not in stages["train"]["foreach"]
    like = yaml.safe_load(before[PIPELINES[1]])["stages"]
    expected = yaml.safe_dump(like["norm_between"]).replace("norm_relu_between", "XX")
    expected = expected.replace("norm_between", "deep").replace("- results/${scale}/runs/XX\n", "")
    assert stages["deep"] == yaml.safe_load(expected)
    assert stages["own"]["cmd"].split()[-2:] == ["wide", "deep"]
    assert stages["own"]["deps"][-2:] == ["results/${scale}/wide", "results/${scale}/deep"]
    as_further = yaml.safe_dump(like["further"]["outs"]).replace("further", "own")
    assert stages["own"]["outs"] == yaml.safe_load(as_further.replace("FURTHER", "OWN"))
    plots = [key for each in content["plots"] for key in each]
    assert plots[-2:] == [f"../results/${{scale}}/{name}/curves.csv" for name in ("wide", "deep")]
    files = [each for each in stages["own"]["deps"] if each.startswith("experiments/")]
    assert {"experiments/wide.py", "experiments/deep.py"} <= {*files}
    assert files == sorted(files)
    assert (small / PIPELINES[0]).read_text() == before[PIPELINES[0]]
    others = [name for name in like if name != "train"]  # no report of others becomes stale
    assert {name: stages[name] for name in others} == {name: like[name] for name in others}
    with pytest.raises(UserError, match="study 'deep': a stage has that name"):
        new_stages.add("deep", study.load("deep"))


def test_a_pipeline_that_is_written_otherwise_is_refused(small: Path) -> None:
    path = small / PIPELINES[1]
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()), default_flow_style=True))
    with pytest.raises(UserError, match=r"experiments/dvc\.yaml: .*by hand"):
        new_stages.add("deep", study.load("borders"))


def test_a_command_that_lacks_its_second_word_names_the_choices() -> None:
    for words, line in (
        (("new",), "Missing command. Choose dataset, stages, study"),
        (
            ("new", "stdy"),
            "No such command 'stdy'. Did you mean 'study'? Choose dataset, stages, study",
        ),
    ):
        done = sepablate(ROOT, *words)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"sepablate: {line}\n")


def test_nothing_is_written_on_an_error(small: Path) -> None:
    before = contents(small / "experiments")
    done = sepablate(small, "new", "study", "deep", "--baseline", "xception", "--change", "hiden=2")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sepablate: --change 'hiden': did you mean hidden?; ")
    assert done.stderr.count("\n") == 1
    after = contents(small / "experiments")
    assert {name: after[name] for name in after if "__pycache__" not in name} == {
        name: before[name] for name in before if "__pycache__" not in name
    }


def test_a_study_in_no_pipeline_changes_no_report(small: Path) -> None:
    """Else `verify` would find other words in the committed reports."""
    text = "results: none"
    names = ["xception_vs_inception", "residual_connections"]
    part = study.load(names[1])
    before = markdown._other_studies(names), markdown._related_studies(names[1], part)
    path = small / "experiments/moved.py"
    shutil.copy(small / "experiments/residual_connections.py", path)
    path.write_text(path.read_text().replace("Effect of the residual", text))
    assert study.load("moved").title.startswith(text)
    assert (markdown._other_studies(names), markdown._related_studies(names[1], part)) == before
    assert "TensorFlow's borders" in before[0]
