"""The whole pipeline at smoke scale, through real DVC, read back with MLflow's own client."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from helpers.processes import dvc, forking, interrupt
from helpers.project import ROOT, TINY, contents, edit_params, sepablate
from mlflow import MlflowClient

from sepablate import scales, study
from sepablate.planning import forecast, pipeline

pytestmark = pytest.mark.slow
STUDIES = ("pointwise_activation", "residual_connections", "xception_vs_inception")
OTHERS = "experiments/dvc.yaml"
REDRAWN = (*STUDIES, "separable_cost", "report")  # after an edit to the analysis


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(.*?)'", output)


def test_smoke_pipeline_from_nothing_to_report(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Interrupted, planned, run, planned again, run again, shared, edited."""
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    shutil.copy(ROOT / ".gitignore", project)
    edit_params(project, **TINY, precision="auto")
    loaded = [study.load(name, project / "experiments") for name in STUDIES]
    variants = {variant.name for each in loaded for variant in each.all_variants}
    said = dvc(project, "repro", "train@xception")
    assert stages_run(said) == ["fetch", "train@xception"]
    interrupt(project, "no_residual")
    before = kept(project)
    rows = plan(project)
    assert kept(project) == before
    assert rows.pop("fetch")[0] == "unchanged"
    assert rows.pop("train@xception") == ["unchanged", "2", "0", "0"]
    state, ready, half, to_do = rows.pop("train@no_residual")
    assert (state, ready) == ("runs", "0")
    assert int(half) >= 1
    assert int(half) + int(to_do) == 2
    others = variants - {"xception", "no_residual"}
    assert rows == {f"train@{name}": ["runs", "0", "0", "2"] for name in others}

    rest = stages_run(dvc(project, "repro"))
    expected = [*(f"train@{name}" for name in variants - {"xception"}), *REDRAWN]
    assert sorted(rest) == sorted(expected)
    results = project / "results/smoke"
    check_results(project, results)
    # As at the end of `make repro`: a stage does not wait long for MLflow on a busy machine.
    assert sepablate(project, "publish").returncode == 0
    check_mlflow(project)
    check_metrics_and_plots(project)
    everything = f"all {len(expected) + 2} stages are up to date"
    assert sepablate(project, "plan").stdout == f"smoke: nothing to do, {everything}\n"
    again = dvc(project, "repro")
    assert stages_run(again) == []
    assert "Data and pipelines are up to date" in again
    commit(project)
    check_experiment(project)
    check_second_clone(project, tmp_path_factory.mktemp("elsewhere"))

    # An edit to what decides numbers: training and plan believe the run keys.
    model = project / "sepablate/models/xception.py"
    text = model.read_text()
    model.write_text(text + "\n# an edit\n")
    assert len(keys_to_train(project, "xception")) == 2
    assert keys_to_train(project, "inception_v3") == []
    model.write_text(text)
    edit_params(project, precision="auto", learning_rate=0.05)
    with pytest.MonkeyPatch.context() as patch:  # a whole plan takes a calibration
        patch.chdir(project)
        _, runs = forecast.mark_running(pipeline.query_dvc("smoke", False), "smoke")
    assert {stage.variant: len(runs[stage].unfinished) for stage in runs} == dict.fromkeys(
        variants, 2
    )
    git(project, "checkout", "-q", "params.yaml")

    # The code that draws, reports and starts processes retrains nothing; it draws the same bytes.
    drawn = contents(results)
    for room in ("execution", "plots", "report", "cli"):
        for path in (project / "sepablate" / room).glob("*.py"):
            path.write_text(path.read_text() + "\n# an edit\n")
    changed = json.loads(dvc(project, "status", "--json", "dvc.yaml").splitlines()[-1])
    assert {*changed} == {*REDRAWN}
    would = stages_run(dvc(project, "repro", "--dry"))
    assert sorted(would) == sorted(REDRAWN)
    assert stages_run(dvc(project, "repro", "residual_connections")) == ["residual_connections"]
    assert contents(results) == drawn

    # The same results leave the same lock: what differs between two trainings is not in it.
    lock = (project / "dvc.lock").read_bytes()
    shutil.rmtree(project / ".sepablate/runs")
    assert stages_run(dvc(project, "repro", "--force", "--single-item", "train@xception"))
    assert (project / "dvc.lock").read_bytes() == lock
    assert (results / "measured/xception/seed-0.json").is_file()

    # One more seed trains only that seed.
    runs = project / ".sepablate/runs"
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("*/result.csv")}
    edit_params(project, precision="auto", seeds=[0, 1, 2])
    assert stages_run(dvc(project, "repro", "train@xception")) == ["train@xception"]
    assert len(list(runs.glob("*/result.csv"))) == len(stamps) + 1
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


@pytest.mark.parametrize("name", ["data", "data/fashion-mnist"])
def test_the_data_may_be_a_link_to_another_disk(
    name: str, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    edit_params(project)
    disk = tmp_path_factory.mktemp("disk") / "data"
    shutil.move(project / name, disk)
    (project / name).symlink_to(disk)
    assert stages_run(dvc(project, "repro", "fetch")) == ["fetch"]
    assert stages_run(dvc(project, "repro", "fetch")) == []
    assert json.loads((project / "results/smoke/fetched.json").read_text())["digest"]


def test_a_question_takes_the_readmes_commands_or_the_pipeline(project: Path) -> None:
    """The README's example: written with its stages, listed and run; then by its own commands."""
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    edit_params(project, **TINY, evaluations=2)
    new, *others = readme_commands()
    name = new[3]
    pipelines = {path: (project / path).read_text() for path in ("dvc.yaml", OTHERS)}
    done = sepablate(project, *new[1:], "--pipeline")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].partition("  #")[0] == f"dvc repro {OTHERS}:own"
    assert f"\n{name}: ReLU moved, against Xception\n" in sepablate(project, "list").stdout
    listed = dvc(project, "stage", "list", "--name-only", OTHERS).splitlines()
    assert {f"{OTHERS}:{each}" for each in (name, f"train@{name}", "own")} <= {*listed}
    ran = stages_run(dvc(project, "repro", f"{OTHERS}:own"))
    own = [f"{OTHERS}:{each}" for each in (f"train@{name}", name, "own")]
    assert sorted(ran) == sorted(["fetch", "train@xception", *own])
    folder = project / "results/smoke" / name
    assert list(pd.read_csv(folder / "table.csv").variant) == ["xception", name]
    assert (folder / "figure.svg").exists()
    before = contents(folder)
    report = (project / "results/smoke/OWN.md").read_text()
    assert "*Xception ends more accurate than ReLU moved*" in report

    (project / f"experiments/{name}.py").unlink()
    for path, text in pipelines.items():
        (project / path).write_text(text)
    done = sepablate(project, *new[1:])
    lines = done.stdout.splitlines()
    facts = [line for line in lines if line.startswith(("margin: ", "the claim is "))]
    assert len(facts) == 2  # the runs of the file that was deleted are there
    said = [line.partition("#")[0].split() for line in lines if line not in facts]
    assert said == [["written:", f"experiments/{name}.py"], *others]
    for words in others:
        assert sepablate(project, *words[1:]).returncode == 0
    assert contents(folder) == before
    after = "declared after runs of both networks were there, at scale smoke."
    expected = report.replace("declared before training.", after)
    expected = expected.replace(
        "the runs (two", "the runs, unless a study below says otherwise (two"
    )
    expected = expected.replace("own_scorecard", f"{name}_scorecard")
    assert expected != report
    assert (project / "results/smoke" / f"{name.upper()}.md").read_text() == expected
    assert (project / "results/smoke/OWN.md").read_text() == report


def readme_commands() -> list[list[str]]:
    """The README's commands for a question of one's own."""
    _, _, text = (ROOT / "README.md").read_text().partition("<!-- own question -->\n```\n")
    lines = text.partition("```")[0].replace("\\\n", "").splitlines()
    assert len(lines) == 4
    return [shlex.split(line.partition("#")[0]) for line in lines]


def kept(project: Path) -> dict[str, bytes]:
    """All that a plan must not change: DVC has a folder for what is temporary."""
    free = (".sepablate/", ".dvc/tmp/", ".git/", ".dvc/cache/")
    return {
        name: content
        for name, content in contents(project).items()
        if not name.startswith(free) and "__pycache__" not in name
    }


def plan(project: Path) -> dict[str, list[str]]:
    """The cells of each stage that fetches or trains, without the time."""
    done = sepablate(project, "plan", **forking())  # it times the start of a stage
    assert done.returncode == 0, done.stderr
    assert all(f"\n{name} " in done.stdout for name in ("time", "memory", "disk"))
    rows = (line.split() for line in done.stdout.splitlines())
    found = {row[0]: row[1:] for row in rows if row and row[0].startswith(("fetch", "train@"))}
    return {name: row[:4] for name, row in found.items() if not name.endswith(":")}


def keys_to_train(project: Path, variant: str) -> list[str]:
    done = sepablate(project, "train", variant, "--keys")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def check_results(project: Path, results: Path) -> None:
    verdicts = json.loads((results / "verdicts.json").read_text())
    declared = [study.load(name, project / "experiments") for name in STUDIES]
    assert len(verdicts) == sum(len(each.claims) for each in declared)
    report = (results / "REPORT.md").read_text()
    for name, each in zip(STUDIES, declared, strict=True):
        folder = results / name
        made = {path.name for path in folder.iterdir()}
        names = ["figure", *(f"like_figure_{number}" for number in each.figures)]
        figures = {f"{figure}.{kind}" for figure in names for kind in ("png", "svg")}
        assert made == {"table.csv", "table.md", "claims.json", "curves.csv", *figures}
        table = pd.read_csv(folder / "table.csv")
        assert len(table) == len(each.all_variants)
        assert f"{name}/figure." in report
        assert each.title in report


def check_metrics_and_plots(project: Path) -> None:
    shown = json.loads((project / "results/smoke/metrics.json").read_text())
    messages = json.loads(dvc(project, "metrics", "show", "--json", "results/smoke/metrics.json"))
    for name, rows in messages[""]["data"]["results/smoke/metrics.json"]["data"].items():
        assert rows == without_null(shown[name])
    dvc(project, "plots", "show")
    page = (project / "dvc_plots/index.html").read_text()
    for name in STUDIES:
        table = pd.read_csv(project / f"results/smoke/{name}/curves.csv", dtype=str)
        assert f"results_smoke_{name}_curves_csv" in page
        assert all(f'"{value}"' in page for value in table.validation_accuracy)


def git(project: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.org")
    subprocess.run(["git", *who, *arguments], cwd=project, check=True)


def commit(project: Path) -> None:
    """All but results, with a place of one's own for DVC."""
    dvc(project, "remote", "add", "-q", "-d", "storage", "storage")
    git(project, "add", "-A", "--", ".", ":!results", ":!storage")
    git(project, "commit", "-q", "-m", "A project")


def check_experiment(project: Path) -> None:
    """One line of params.yaml is another, and DVC keeps the numbers with the experiment."""
    rho = "recipes.example.rho"
    dvc(project, "exp", "run", "-n", "mine", "-f", "-s", "report", "-S", f"{rho}=0.8")
    command = ["git", "diff", "--numstat", "params.yaml"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout == "1\t1\tparams.yaml\n"
    git(project, "checkout", "-q", "params.yaml", "dvc.lock")
    path = "results/smoke/metrics.json"
    numbers = json.loads((project / path).read_text())
    _, base = json.loads(dvc(project, "exp", "show", "--json").splitlines()[-1])
    (found,) = [rev["data"] for each in base["experiments"] for rev in each["revs"]]
    shown = {key: value["data"] for key, value in found["metrics"].items()}
    assert shown == {path: {key: without_null(numbers[key]) for key in numbers}}


def check_second_clone(project: Path, elsewhere: Path) -> None:
    """What was pushed is not trained again."""
    dvc(project, "push")
    clone = elsewhere / "clone"
    git(elsewhere, "clone", "-q", str(project), str(clone))
    (clone / "storage").symlink_to(project / "storage")
    (clone / "data").symlink_to(project / "data")
    dvc(clone, "pull", "--allow-missing")  # the runs of the other pipeline
    assert stages_run(dvc(clone, "repro", "train")) == ["fetch"]
    assert contents(clone / "results/smoke/runs") == contents(project / "results/smoke/runs")
    assert not (clone / ".sepablate/runs").exists()


def without_null(numbers: dict[str, object]) -> dict[str, object]:
    """DVC shows no number that is null."""
    return {key: value for key, value in numbers.items() if value is not None}


def check_mlflow(project: Path) -> None:
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    scale, _ = scales.load("smoke", project / "params.yaml")
    named = {each.name.partition(" ")[0]: each for each in client.search_experiments()}
    experiments = [named[name] for name in STUDIES]
    for experiment in named.values():
        found = client.search_runs([experiment.experiment_id])
        assert {run.info.status for run in found} <= {"FINISHED"}
        shown = {run.data.tags["variant"] for run in found if "variant" in run.data.tags}
        assert len(shown) != 1  # none holds a baseline and nothing else
    for experiment in experiments:
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run is not parent]
        name = next(each for each in STUDIES if each in experiment.name)
        variants = study.load(name, project / "experiments").all_variants
        places = {(run.data.tags["variant"], run.data.tags["seed"]) for run in children}
        assert places == {(each.name, str(seed)) for each in variants for seed in scale.seeds}
        assert len(children) == len(places)
        artifacts = {each.path for each in client.list_artifacts(parent.info.run_id)}
        assert {"table.md", "figure.png"} <= artifacts
        for run in children:
            check_run(project, client, run)


def check_run(project: Path, client: MlflowClient, run: object) -> None:
    tags, run_id = run.data.tags, run.info.run_id  # type: ignore[attr-defined]
    path = project / "results/smoke/runs" / tags["variant"] / f"seed-{tags['seed']}.csv"
    rows = pd.read_csv(path, dtype={"run_key": str})  # a key may be all digits
    assert run.info.status == "FINISHED"  # type: ignore[attr-defined]
    for metric, group in rows.groupby("metric"):
        history = client.get_metric_history(run_id, metric)
        steps = 0 * group.step if metric.startswith("final/") else group.step
        assert sorted((point.step, point.value) for point in history) == sorted(
            zip(steps, group.value, strict=True)
        )
    config = json.loads((path.parent / "config.json").read_text())
    parameters = run.data.params  # type: ignore[attr-defined]
    assert parameters["weight_decay"] == str(config["weight_decay"])
    assert config["run_keys"][tags["seed"]] == rows.run_key.unique().item()
    assert tags["data_digest"] == config["data_digest"]
    (used,) = run.inputs.dataset_inputs  # type: ignore[attr-defined]
    assert used.dataset.name
