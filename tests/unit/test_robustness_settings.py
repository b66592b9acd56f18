"""Settings: what a study file may declare, the scales that follow, and what is refused."""

import dataclasses
import functools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT, contents, sepablate

from sepablate import scales, study
from sepablate.errors import UserError
from sepablate.runs import settings
from sepablate.runs.run import resolve
from sepablate.study import Factor, RobustnessStudy, Setting, Times

NAME = "robustness"
GOOD = """\
from sepablate.study import Factor, RobustnessStudy, Setting, Times

STUDY = RobustnessStudy(
    title="Small",
    source="none",
    studies=("residual_connections",),
    factors=(
        Factor("budget", "Budget", "1", {"1/2": {"epochs": Times(0.5)}}, ("epochs", "steps")),
        Factor("recipe", "Recipe", "own", {"9 decays": {"decays": 9}}, ("decays",)),
    ),
    settings=(
        Setting("shorter", {"budget": "1/2"}),
        Setting("flatter", {"recipe": "9 decays"}),
    ),
)
"""


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@functools.cache
def config(variant: str, scale_name: str) -> dict[str, Any]:
    scale, recipes = settings.load(scale_name)
    return resolve(
        study.variant(variant), scale_name, scale, recipes, scale.seeds[0], "fp32"
    ).config


def declared() -> RobustnessStudy:
    return study.load_robustness(NAME)


def derived(scale: str, **changes: Any) -> scales.Scale:
    """A scale with one factor's level applied."""
    factor = Factor("f", "F", "base", {"other": changes}, ("any",))
    second = Factor("g", "G", "base", {"other": {"epochs": 1}}, ("any",))
    chosen = Setting("s", {"f": "other"})
    both = (chosen, Setting("t", {"g": "other"}))
    made = RobustnessStudy("t", "s", ("a",), (factor, second), both)
    return settings.derive(*scales.load(scale), made, chosen)


@pytest.mark.parametrize("scale_name", ["smoke", "laptop", "workstation"])
def test_every_setting_gives_a_valid_scale_and_differs_in_what_it_declares(scale_name: str) -> None:
    names = settings.names(declared(), scale_name)
    assert len(names) >= 9
    base = config("xception", scale_name)
    keys = set()
    for setting in declared().settings:
        if setting.name not in names:
            data = {"fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}[base["dataset"]]
            own = {f"{base['decays']} decays", data}
            if (base["shift"], base["flip"]) == (1, True):
                own.add("shifted, mirrored")
            assert own & set(setting.levels.values())
            continue
        ours = config("xception", names[setting.name])
        differ = {
            field for field in base.keys() | ours.keys() if base.get(field) != ours.get(field)
        }
        assert differ - set(settings.FOLLOWS) <= declared().fields(setting)
        for name, level in setting.levels.items():
            assert any(ours[field] != base[field] for field in declared().factor(name).fields), (
                level
            )
        keys.add(str({key: value for key, value in ours.items() if key != "scale"}))
    assert len(keys) == len(names) - 1


def test_a_setting_has_the_first_seeds_and_the_whole_schedule() -> None:
    base, _ = scales.load("laptop")
    half, _ = settings.load("laptop.budget_half")
    own = config("xception", "laptop")
    assert half.seeds == base.seeds[:3]
    assert half.steps == pytest.approx(base.steps / 2, abs=1)
    assert (
        config("xception", "laptop.budget_half")["decays"] == config("xception", "laptop")["decays"]
    )
    flatter = config("xception", "laptop.decays_90")
    assert flatter["decays"] == 90
    faster = config("xception", "laptop.rate_double")
    assert faster["learning_rate"] == 2 * own["learning_rate"]


def test_images_follow_the_data_set_and_as_many_are_seen() -> None:
    base, _ = scales.load("workstation")
    other = derived("workstation", dataset="fashion_mnist")
    assert (other.image_size, other.images) == (28, base.images)
    other = derived("workstation", dataset="fashion_mnist", images=50_000, epochs=1)
    assert other.images == 50_000
    other = derived("laptop", dataset="cifar10", images=50_000, epochs=1)
    assert (other.image_size, other.images) == (32, 45_000)
    assert other.images * other.epochs == pytest.approx(50_000)


def test_the_scale_itself_shares_the_runs_of_the_studies() -> None:
    """A key has no scale's name in it."""
    from sepablate.store.run_key import run_key

    same = derived("laptop", epochs=scales.load("laptop")[0].epochs)
    variant, (_, recipes) = study.variant("xception"), scales.load("laptop")
    run = resolve(variant, "laptop.s", same, recipes, 0, "fp32")
    assert run.key == run_key(config("xception", "laptop"), 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": Times(2)}, ("'epoch'", "epochs")),
        ({"seeds": 3}, ("'seeds'", "choose")),
        ({"dataset": Times(2)}, ("fashion_mnist", "number")),
        ({"dataset": "cifar"}, ("cifar", "cifar10", "fashion_mnist")),
        ({"batch_size": Times(1 / 3)}, ("batch_size", "whole number")),
        ({"decays": 0}, ("decays", "0")),
        ({"width": -1}, ("width", "-1")),
        ({"batch_size": 50_000}, ("batch_size", "50000", "at most")),
    ],
)
def test_a_bad_change_is_one_line(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        derived("laptop", **changes)
    assert "\n" not in str(error.value)
    for word in ("setting 's'", *words):
        assert word in str(error.value)


def test_a_bad_declaration_is_refused() -> None:
    good = declared()
    first = good.settings[0]
    for field, value, words in (
        ("settings", (), "settings: empty"),
        ("factors", (), "factors: empty"),
        ("studies", (), "studies: empty"),
        ("seeds", 2, "seeds 2"),
        ("settings", (first, dataclasses.replace(first, name="again")), "'again' are the same"),
        ("settings", (first, first), "duplicate|same"),
        ("settings", (first, Setting("x", {"budgets": "2"})), "factor 'budgets'.*budget"),
        ("settings", (first, Setting("x", {"budget": "3"})), "budget '3'.*1/4"),
    ):
        with pytest.raises(UserError, match=words):
            dataclasses.replace(good, **{field: value})
    for levels, name in (({}, "x"), ({"budget": "2"}, "a.b"), ({"budget": "2"}, "base")):
        with pytest.raises(UserError, match="setting"):
            Setting(name, levels)
    for factor in (1, 0, -2, float("inf"), "2"):
        with pytest.raises(UserError, match="above 0"):
            Times(factor)


def test_a_claim_of_no_study_and_an_unknown_setting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"setting 'budget_hal'.*budget_half"):
        settings.load("laptop.budget_hal")
    for name in ("residual_connections", NAME):
        text = (study.FOLDER / f"{name}.py").read_text()
        (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(UserError, match="pools settings"):
        study.load(NAME)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one study, a robustness study of its claim, and params.yaml."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "experiments").mkdir()
    shutil.copy(ROOT / "experiments/residual_connections.py", tmp_path / "experiments")
    (tmp_path / "experiments/robustness.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    config.cache_clear()
    return tmp_path


def test_a_small_study_is_accepted(small: Path) -> None:
    settings.check(NAME, "smoke", config)
    assert list(settings.names(declared(), "smoke")) == ["base", "shorter", "flatter"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"budget": "1/2"}', '"budgte": "1/2"}', ("'budgte'", "budget")),
        ('{"decays": 9}', '{"decays": 9, "batch_size": 32}', ("flatter", "batch_size", "64", "32")),
        ('{"decays": 9}', '{"epochs": 0.5}', ("'shorter'", "'flatter'", "the same")),
        ('"epochs": Times(0.5)', '"epoch": Times(0.5)', ("'epoch'", "epochs")),
        ('("residual_connections",)', '("residual",)', ("'residual'", "residual_connections")),
        ('"residual_connections"', '"robustness"', ("'robustness'", "pools settings")),
    ],
)
def test_a_bad_study_is_refused_before_training(
    small: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert old in GOOD
    (small / "experiments/robustness.py").write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as error:
        settings.check(NAME, "smoke", config)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_confound_within_a_setting_is_refused(small: Path) -> None:
    """The studies' own guard sees each setting."""
    path = small / "experiments/residual_connections.py"
    bad = path.read_text().replace("residual=False)", "residual=False, weight_decay=3e-5)")
    path.write_text(bad)
    with pytest.raises(UserError, match=r"residual_connections in setting base.*weight_decay"):
        settings.check(NAME, "smoke", config)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (r"settings=\(.*\),", "settings=(),", "settings: empty"),
        ('"epochs": T', '"epoch": T', "epochs"),
    ],
)
def test_train_says_it_in_one_line_and_writes_nothing(
    small: Path, old: str, new: str, word: str
) -> None:
    text = re.sub(old, new, GOOD, flags=re.DOTALL)
    (small / "experiments/robustness.py").write_text(text)
    (small / "sepablate").symlink_to(ROOT / "sepablate")
    before = contents(small)
    done = sepablate(small, "train", NAME, "--no-mlflow")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert word in done.stderr
    after = {name: data for name, data in contents(small).items() if "__pycache__" not in name}
    assert after == before
