"""Recipes that a scale has of its own, and the search that chooses them."""

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.project import ROOT
from helpers.tiny_runs import tiny

from sepablate import data, scales, study
from sepablate.data import fashion_mnist
from sepablate.errors import UserError
from sepablate.execution import tune
from sepablate.planning import tuning
from sepablate.report import tuning as tuning_report
from sepablate.runs.run import resolve
from sepablate.store import layout, tuning_file
from sepablate.store.tuning_file import Candidate, TuningRow
from sepablate.training import engine


def edited(folder: Path, changes: dict[str, object], **search: object) -> Path:
    """params.yaml whose smoke scale has these changes of recipes, and this search."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["scales"]["smoke"]["recipes"] = changes
    params["search"] = {"smoke": search}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder / "params.yaml"


def test_a_scale_changes_a_recipe_for_itself_alone(tmp_path: Path) -> None:
    changes: dict[str, object] = {"imagenet": {"decays": 15, "learning_rate": 1}}
    scale, recipes = scales.load("smoke", edited(tmp_path, changes))
    declared = study.variant("xception", ROOT / "experiments")
    changed = resolve(declared, "smoke", scale, recipes, 0, "fp32")
    expected = dataclasses.replace(recipes["imagenet"], decays=15, learning_rate=1)
    assert (changed.recipe, recipes["imagenet"].decays) == (expected, 90)
    assert (changed.config["decays"], changed.config["learning_rate"]) == (15, 1)
    assert "recipes" not in changed.config
    plain = resolve(declared, "smoke", dataclasses.replace(scale, recipes={}), recipes, 0, "fp32")
    assert plain.recipe == recipes["imagenet"]
    assert plain.key != changed.key
    assert plain.key == resolve(declared, "smoke", *unchanged(), 0, "fp32").key


def unchanged() -> tuple[scales.Scale, dict[str, scales.Recipe]]:
    """The smoke scale with changes that change nothing."""
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    same = scales.RecipeChange(decays=recipes["imagenet"].decays)
    return dataclasses.replace(scale, recipes={"imagenet": same, "jft": same}), recipes


@pytest.mark.parametrize(
    ("search", "hint"),
    [
        ({}, "empty: give values of learning_rate or decays or batch_size or shift or flip"),
        ({"seeds": [7]}, "empty: give values"),
        ({"decays": []}, "decays: []: choose a list of 1 to 1000, each a whole number"),
        ({"decays": [30, 30]}, "30 is a duplicate"),
        ({"decays": 30}, "decays: 30: choose a list"),
        ({"decays": [0.5]}, "decays.0: 0.5: choose a whole number"),
        ({"epochs": [1, 2]}, "epochs: unknown: choose learning_rate, decays, batch_size, shift, "),
        ({"learning_rate": [0.1, -1]}, "learning_rate.1: -1: choose a finite number"),
        ({"shift": [-1]}, "shift.0: -1: choose"),
        ({"flip": [2]}, "flip.0: 2: choose true or false"),
        ({"batch_size": [513]}, "batch_size: 513: choose at most the images (512)"),
        ({"batch_size": [512]}, "evaluations: 4: choose at most the steps (1)"),
        ({"decays": [30], "seeds": [5, 1]}, "seeds: 1: choose seeds that are not the scale's"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(
    tmp_path: Path, search: dict[str, object], hint: str
) -> None:
    path = edited(tmp_path, {}, **search)
    scale, _ = scales.load("smoke", path)
    with pytest.raises(UserError, match=r"params\.yaml: search\.smoke") as error:
        scales.load_search("smoke", scale, path)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)
    for searches in ({}, None, {"laptop": search}, [1]):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"search": searches}))
        with pytest.raises(UserError, match=r"search.*(: missing: .*for (no scale|laptop)|choose)"):
            scales.load_search("smoke", scale, path)


def test_the_declared_searches_go_with_their_scales() -> None:
    for name in yaml.safe_load((ROOT / "params.yaml").read_text())["search"]:
        scale, _ = scales.load(name, ROOT / "params.yaml")
        search = scales.load_search(name, scale, ROOT / "params.yaml")
        assert not set(search.seeds) & set(scale.seeds)


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trials_are_all_combinations_with_seeds_of_their_own(project_folder: Path) -> None:
    changes: dict[str, object] = {"imagenet": {"decays": 7, "shift": 2}}
    rates = [0.1, 0.2]
    edited(project_folder, changes, learning_rate=rates, batch_size=[32, 128], seeds=[8, 9])
    trials = tune.make_trials("smoke")
    expected = [Candidate(rate, 7, size, 2, True) for rate in rates for size in (32, 128)]
    assert [tune.candidate_of(job.run) for job in trials[::2]] == expected
    assert [job.run.seed for job in trials] == [8, 9] * 4
    assert len({job.key for job in trials}) == len({job.name for job in trials}) == 8
    assert {job.run.variant for job in trials} == {"xception"}
    assert {job.run.trial_images for job in trials} == {10_000}
    assert [each.accuracies for each in tune.results(trials)] == [()] * 4
    edited(project_folder, changes, shift=[0, 3], flip=[True, False], seeds=[8])
    augmented = [tune.candidate_of(job.run) for job in tune.make_trials("smoke")]
    assert augmented == [Candidate(0.045, 7, 64, *each) for each in product((0, 3), (True, False))]


def test_what_is_to_be_set_gives_the_candidate_and_its_run(project_folder: Path) -> None:
    path = edited(project_folder, {}, decays=[2, 3])
    scale, recipes = scales.load("smoke", path)
    assert tune.current(scale, recipes) == (0.045, 90, 64, 1, True)
    lines = yaml.safe_load(tuning.params_lines("smoke", Candidate(1e-5, 3, 32, 4, False)))
    params = yaml.safe_load(path.read_text())
    params["scales"]["smoke"] |= lines["scales"]["smoke"]
    path.write_text(yaml.safe_dump(params))
    scale, recipes = scales.load("smoke", path)
    assert tune.current(scale, recipes) == (1e-5, 3, 32, 4, False)
    run = resolve(study.XCEPTION, "smoke", scale, recipes, 1000, "fp32")
    trial = tune.make_trials("smoke")[2].run  # the second candidate's, with the first seed
    assert (
        dataclasses.replace(trial, trial_images=0, scale=run.scale)
        .with_backend("fp32", "torch")
        .config
        == run.with_backend("fp32", "torch").config
    )


def test_neither_stages_nor_run_keys_depend_on_a_search() -> None:
    for path in ("dvc.yaml", "experiments/dvc.yaml"):
        stages = yaml.safe_load((ROOT / path).read_text())["stages"].values()
        used = {name for stage in stages for name in stage.get("do", stage).get("params", [])}
        assert used == {"recipes", "scales.${scale}", "scales.${scale}.dataset"} & used
        assert "recipes" in used
    config = tiny().config
    assert not [key for key in config if "search" in key or "trial" in key]
    assert config["test_images"] == 30
    trial = tiny().as_trial(60)
    assert trial.key != tiny().key
    assert "test_images" not in trial.config
    assert "test" not in trial.image_counts


def test_a_trial_needs_no_test_images(tmp_path: Path, data_folder: Path) -> None:
    splits = fashion_mnist.load(data_folder, test=False)
    assert [*splits] == ["train", "validation"]
    trial = tiny().as_trial(60)
    outcome = engine.fit(trial, splits, tmp_path / "trial", engine.Monitor())
    plain = engine.fit(tiny(), fashion_mnist.load(data_folder), tmp_path / "run", engine.Monitor())
    assert not [name for _, name, _ in outcome.rows if "test" in name]
    assert outcome.rows[:-2] == plain.rows[:-2]
    assert outcome.scores is not None
    step, metric, value = outcome.rows[-1]
    assert (step, metric) == (trial.scale.steps, "final/validation_accuracy_averaged")
    assert (len(outcome.scores), value) == (60, outcome.scores.mean().item())
    held_out: Any = {**splits, "test": splits["validation"].first(60)}
    again = dataclasses.replace(tiny().scale, test_images=60)
    same = engine.fit(
        dataclasses.replace(tiny(), scale=again), held_out, tmp_path / "same", engine.Monitor()
    )
    assert same.rows[-1][2] == value


@pytest.mark.parametrize("name", ["fashion_mnist", "garment_scenes"])
def test_the_other_splits_are_the_same_without_the_test_images(
    name: str, data_folder: Path
) -> None:
    whole, part = (data.dataset(name).load(data_folder, test=test) for test in (True, False))
    assert [*part] == [*whole][:2]
    for split, images in part.items():
        assert images.labels.equal(whole[split].labels)


TRIALS = [
    TuningRow(rate, decays, 32, 1, True, seed, 9, 10_000, accuracy, f"{seed:016d}")
    for rate, decays, seed, accuracy in [
        (0.045, 30, 1000, 0.871),
        (0.045, 30, 1001, 0.873),
        (0.1, 15, 1000, 0.9),
        (0.1, 15, 1001, 0.85),
        (1e-5, 90, 1000, 0.0),
    ]
]


def report(folder: Path, rows: list[TuningRow] = TRIALS, **changes: object) -> str:
    config = {"learning_rate": 0.1, "decays": 15, "batch_size": 32, "steps": 9, "seeds": [0, 1]}
    config |= {"shift": 1, "flip": True}
    layout.tuning("tiny").parent.mkdir(parents=True, exist_ok=True)
    layout.tuning("tiny").write_text(tuning_file.format_rows(rows))
    return tuning_report.chosen("tiny", {"xception": config | changes})


def test_a_report_says_how_the_recipe_was_chosen(project_folder: Path) -> None:
    text = report(project_folder)
    assert tuning_file.read_rows(layout.tuning("tiny")) == TRIALS
    assert "`sepablate tune tiny` compared candidates by Xception only" in text
    assert "with seeds 1000, 1001, and read no test image" in text
    assert "on 10,000 validation images. The runs of this report have the best" in text
    assert "have the best candidate, and other seeds." in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| 0.1 | 15 | 32 | 1 | yes | 9 | 2 | 87.50 | 3.54 | yes |",
        "| 0.045 | 30 | 32 | 1 | yes | 9 | 2 | 87.20 | 0.14 |  |",
        "| 1e-5 | 90 | 32 | 1 | yes | 9 | 1 | 0.00 | – |  |",
    ]


def test_a_report_says_what_is_not_as_it_was_chosen(project_folder: Path) -> None:
    other = report(project_folder, decays=30, seeds=[1001, 5])
    assert (
        "do not have the best candidate, but learning_rate 0.1, decays 30, batch_size 32" in other
    )
    assert "and share seeds 1001 with it." in other
    assert "| yes |\n" not in other
    longer = report(project_folder, steps=12)
    assert longer.count(" They have 12 gradient steps, its trials 9.") == 1
    assert tuning_report.chosen("tiny", {"xception_multilabel": {}}) == ""
    assert tuning_report.chosen("none", {"xception": {}}) == ""


@pytest.mark.parametrize("content", ["", "seed\n1", "a,b\n", "\x00", ",".join(TuningRow._fields)])
def test_damaged_trials_are_one_line(project_folder: Path, content: str) -> None:
    report(project_folder)
    layout.tuning("tiny").write_text(content)
    with pytest.raises(UserError, match=r"results/tiny/tuning\.csv: not the trials") as error:
        tuning_report.chosen("tiny", {"xception": {}})
    assert "\n" not in str(error.value)
