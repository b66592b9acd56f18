"""params.yaml: whatever is wrong in it ends in one line with the value, the place, the choices."""

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from helpers.project import ROOT, contents, sepablate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sepablate import scales
from sepablate.errors import UserError
from sepablate.validation import parse

PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
RECIPES, SHORTCUTS = PARAMS["recipes"], ("residual_connections", "--scale", "smoke")
SMALL = {  # which YAML reads sooner
    "scale": "smoke",
    "scales": {"smoke": PARAMS["scales"]["smoke"]},
    "recipes": {"imagenet": RECIPES["imagenet"]},
}
FIELDS = [("imagenet", field.name) for field in dataclasses.fields(scales.Recipe)] + [
    ("smoke", field.name) for field in dataclasses.fields(scales.Scale)
]


def written(folder: Path, part: str, key: str, value: object) -> Path:
    params = copy.deepcopy(SMALL)
    params["recipes" if part in RECIPES else "scales"][part][key] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


@pytest.mark.parametrize("name", PARAMS["scales"])
def test_declared_scales_are_valid(name: str) -> None:
    scale, recipes = scales.load(name, ROOT / "params.yaml")
    assert scale.steps >= scale.evaluations
    recipe = recipes["imagenet"]
    assert (recipe.learning_rate, recipe.momentum, recipe.decay) == (0.045, 0.9, 0.94)
    assert recipe.optimizer == "sgd"


def test_laptop_is_the_default_and_has_the_seeds_that_a_test_needs() -> None:
    assert scales.current(ROOT / "params.yaml") == "laptop"
    assert len(scales.load("laptop", ROOT / "params.yaml")[0].seeds) >= 6


BAD: list[tuple[str, str, object, str]] = [
    ("smoke", "images", -5, "-5"),
    ("smoke", "images", 10**400, "at most 1000000000"),
    ("smoke", "images", 70_000, "50000"),
    ("smoke", "images", "many", "a whole number, more than 0"),
    ("smoke", "images", 10.5, "a whole number"),
    ("smoke", "images", True, "a whole number"),
    ("smoke", "batch_size", 1000, "512"),
    ("smoke", "epochs", 0, "more than 0"),
    ("smoke", "epochs", float("nan"), "nan"),
    ("smoke", "epochs", float("inf"), "inf"),
    ("smoke", "epochs", True, "a number"),
    ("smoke", "epochs", 10**400, "a number"),
    ("smoke", "epochs", 2e307, "at most 100000"),
    ("smoke", "width", 0, "0: choose a number, more than 0 and at most 16"),
    ("smoke", "evaluations", 1000, "steps (8)"),
    ("smoke", "seeds", [1, 2, 1], "1 is a duplicate"),
    ("smoke", "seeds", [], "list of 1 to 1000, each a whole number"),
    ("smoke", "seeds", [*range(1001)], "list of 1 to 1000, each a whole number"),
    ("smoke", "seeds", [-1], "seeds.0: -1: choose a whole number, at least 0"),
    ("smoke", "seeds", [1.0], "a whole number"),
    ("smoke", "seeds", {0, 1}, "list"),
    ("smoke", "seeds", 3, "list"),
    ("smoke", "padding", "reflect", "same, valid"),
    ("smoke", "precision", "fp16", "auto, fp32, bf16"),
    ("smoke", "dataset", "cifar", "fashion_mnist"),
    ("smoke", "shift", 4, "unknown: choose dataset"),
    ("smoke", "recipes", None, "recipes: None: choose a mapping by name"),
    ("smoke", "recipes", {"imagnet": {}}, "choose imagenet; did you mean imagenet?"),
    ("smoke", "recipes", {"imagenet": 15}, "recipes.imagenet: 15: choose a mapping of learning"),
    (
        "smoke",
        "recipes",
        {"imagenet": {"decay": 1}},
        "unknown: choose learning_rate, decays",
    ),
    ("smoke", "recipes", {"imagenet": {"decays": 0}}, "decays: 0: choose a whole number"),
    ("smoke", "recipes", {"imagenet": {"shift": 29}}, "at least 0 and at most 28, or null"),
    ("smoke", "recipes", {"imagenet": {"epochs": 0}}, "more than 0"),
    ("smoke", "recipes", {"imagenet": {"epochs": 0.3}}, "at most the steps (2)"),
    ("smoke", "stem_stride", 3, "at least 1 and at most 2"),
    ("smoke", "stem_stride", True, "at least 1 and at most 2"),
    ("smoke", "widht", 1, "width"),
    ("smoke", "widths", {"mobilenet_v1": -1}, "mobilenet_v1"),
    ("smoke", "widths", {1: 1}, "widths.1: 1: choose text"),
    ("smoke", "widths", {"a\nb": 17}, "at most 16"),
    ("smoke", "widths", 0.5, "mapping"),
    ("smoke", "micro_batch", 48, "divisor of batch_size (64)"),
    ("smoke", "multi_label_dataset", "jft", "garment_scenes"),
    ("imagenet", "learning_rate", -0.1, "-0.1: choose a finite number, more than 0"),
    ("imagenet", "learning_rate", float("inf"), "finite"),
    ("imagenet", "learning_rate", "fast", "a finite number"),
    ("imagenet", "dropout", 1.5, "at least 0 and less than 1"),
    ("imagenet", "dropout", 1.0, "less than 1"),
    ("imagenet", "flip", 1, "true or false"),
    ("imagenet", "shift", -1, "at least 0"),
    ("imagenet", "norm_momentum", 0, "more than 0"),
    ("imagenet", "optimizer", "adam", "sgd, rmsprop"),
]


@pytest.mark.parametrize(("part", "key", "value", "hint"), BAD)
def test_bad_values(tmp_path: Path, part: str, key: str, value: object, hint: str) -> None:
    path = written(tmp_path, part, key, value)
    with pytest.raises(UserError, match=key) as error:
        scales.load("smoke", path)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "0.00001", "10e-6"])
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, "imagenet", "learning_rate", 0.5)
    path.write_text(path.read_text().replace("learning_rate: 0.5", f"learning_rate: {text}"))
    assert scales.load("smoke", path)[1]["imagenet"].learning_rate == 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "scale: !!timestamp x",
        "scale: !!bool x",
        "scale: !!int",
        "scale: " + "[" * 5000,
        "scale: &a [*a, *a]\nscales: *a",
        "scale: !!python/object:os.system x",
        "? [a]\n: 1",
    ],
)
def test_yaml_that_no_person_meant_ends_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml") as error:
        scales.load("smoke", path)
    assert "\n" not in str(error.value)


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    os.mkfifo(path)
    for _ in range(2):
        with pytest.raises(UserError, match="choose a regular file of at most 1,000,000 bytes"):
            scales.load("smoke", path)
        path.unlink()
        path.write_text("x: 1\n" * 200_001)


def test_references_between_aliases_are_harmless(tmp_path: Path) -> None:
    """A thousand million of them, if they were expanded."""
    path = written(tmp_path, "smoke", "seeds", [0])
    lists = ["a0: &a0 [1]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
    ]
    path.write_text("\n".join(lists) + "\n" + path.read_text().replace("- 0", "- *a9"))
    with pytest.raises(UserError, match=r"seeds\.0: .*choose a whole number"):
        scales.load("smoke", path)


@pytest.mark.parametrize(
    "override",
    ["scale=smoke", "recipes.jft.learning_rate=1e-5", "scales.laptop.recipes.imagenet.decays=15"],
)
def test_an_override_of_dvc_changes_one_line(tmp_path: Path, override: str) -> None:
    """`dvc exp run -S` writes the file again; comments and layout stay."""
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text()
    path.write_text(before)
    apply_overrides(str(path), [override])
    pairs = zip(before.splitlines(), path.read_text().splitlines(), strict=True)
    assert sum(old != new for old, new in pairs) == 1
    scales.load(scales.current(path), path)


def test_an_edit_to_a_recipe_reaches_that_recipe_only() -> None:
    """As `dvc exp run -S` does it, which expands anchors and merge keys."""
    text = (ROOT / "params.yaml").read_text()
    assert "<<" not in text
    assert "&" not in text
    assert len({id(recipe) for recipe in RECIPES.values()}) == len(RECIPES)


CIFAR: dict[str, Any] = {"dataset": "cifar10", "image_size": 32}


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"image_size": 28}, "image_size: 28: choose 32 for cifar10"),
        ({"images": 45_001}, "images: 45001: choose at most 45000"),
        ({"validation_images": 5_001}, "validation_images: 5001: choose at most 5000"),
        ({"test_images": 10_001}, "test_images: 10001: choose at most 10000"),
        ({"dataset": "fashion_mnist"}, "image_size: 32: choose 28 for fashion_mnist"),
        ({"dataset": "fashion_mnist", "image_size": 28, "images": 50_001}, "at most 50000"),
    ],
)
def test_the_limits_of_a_data_set(tmp_path: Path, changes: dict[str, object], hint: str) -> None:
    for scale in (CIFAR, CIFAR | {"images": 45_000}):
        params = {**PARAMS, "scales": {"smoke": PARAMS["scales"]["smoke"] | scale}}
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(params))
        assert scales.load("smoke", path)[0].dataset == scale["dataset"]
        params["scales"]["smoke"] |= changes
        path.write_text(yaml.safe_dump(params))
        with pytest.raises(UserError) as error:
            scales.load("smoke", path)
        assert str(error.value).endswith(hint)


def test_a_number_too_long_to_print_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^here\.images: a number of thousands of digits: choose"):
        parse(scales.Scale, PARAMS["scales"]["smoke"] | {"images": 16**5000}, "here")


def test_whole_numbers_become_floats_where_a_field_is_one(tmp_path: Path) -> None:
    scale, _ = scales.load("smoke", written(tmp_path, "smoke", "widths", {"mobilenet_v1": 1}))
    values = [scale.epochs, scale.width, scale.widths["mobilenet_v1"]]
    assert values == [1, 0.0625, 1]
    assert {type(value) for value in values} == {float}  # what a run's key is a hash of
    assert scale.seeds == (0, 1)


def test_a_changed_copy_is_checked_as_well() -> None:
    scale, _ = scales.load("smoke", ROOT / "params.yaml")
    assert dataclasses.replace(scale, epochs=2).epochs == 2
    with pytest.raises(ValueError, match="padding"):
        dataclasses.replace(scale, padding="reflect")  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        scale.images = 1  # type: ignore[misc]


def test_the_schema_is_that_of_the_models() -> None:
    text = (ROOT / "params.schema.json").read_text()
    assert text == json.dumps(scales.json_schema(), indent=2) + "\n", "run make schema"
    first = (ROOT / "params.yaml").read_text().partition("\n")[0]
    assert first == "# yaml-language-server: $schema=params.schema.json"


@pytest.mark.parametrize(("part", "name"), [("recipes", "Recipe"), ("scales", "Scale")])
def test_the_schema_describes_params(part: str, name: str) -> None:
    schema = scales.json_schema()
    assert {*schema["required"]} < {*schema["properties"]} == {*PARAMS}
    assert schema["properties"][part]["additionalProperties"] == {"$ref": f"#/$defs/{name}"}
    model = schema["$defs"][name]
    assert not model["additionalProperties"]
    assert all("description" in field for field in model["properties"].values())
    for values in PARAMS[part].values():
        assert {*model["required"]} <= {*values} <= {*model["properties"]}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=st.sampled_from(FIELDS), value=anything)
def test_any_value_is_taken_or_refused_in_one_line(
    tmp_path: Path, field: tuple[str, str], value: object
) -> None:
    try:
        path = written(tmp_path, *field, value)
    except yaml.YAMLError:
        return
    refused = ""
    try:
        scale, recipes = scales.load("smoke", path)
    except UserError as error:
        refused = str(error)
    if refused:
        assert "\n" not in refused
        assert any(name in refused for name in (field[1], "batch_size", "evaluations"))
    else:
        taken = getattr(recipes.get(field[0], scale), field[1])
        assert taken == (tuple(value) if isinstance(value, list) else value)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=40) | anything.map(yaml.safe_dump))
def test_any_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for ask in (scales.current, lambda path: scales.load("smoke", path)):
        with pytest.raises(UserError, match=r"params\.yaml"):
            ask(path)


@pytest.mark.parametrize("key", ["batch_size", "seeds"])
def test_missing_field(tmp_path: Path, key: str) -> None:
    params = copy.deepcopy(PARAMS)
    del params["scales"]["smoke"][key]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match=f"{key}: missing"):
        scales.load("smoke", tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("arguments", "hints"),
    [
        (["train", "resnet"], ["'resnet'", "experiments/", "xception", "no_residual"]),
        (["train", "xception", "--scale", "huge"], ["--scale 'huge'", "smoke, laptop"]),
        (["train"], ["variant"]),
        (["tune", "huge"], ["tune 'huge'", "smoke, laptop"]),
        (["tune", "paper", "--dry-run"], ["search.paper: missing", "laptop"]),
        (["train", "xception", "--processes", "0"], ["--processes", "1"]),
        (["train", "xception", "--processes", "two"], ["--processes", "two"]),
        (["train", "xception", "--speed", "9"], ["--speed"]),
        (["study", "nothing"], ["'nothing'", "residual_connections"]),
        (["study", *SHORTCUTS], ["runs", "sepablate train xception --scale smoke`"]),
        (["report", "nothing"], ["'nothing'", "pointwise_activation"]),
        (["report", *SHORTCUTS], ["connections --scale smoke`"]),
        (["publish", "--scale", "huge"], ["'huge'", "smoke, laptop"]),
        (["fetch", "--scale", "huge"], ["'huge'", "smoke, laptop"]),
        (["ui", "--port", "70000"], ["70000"]),
        (["ui", "--port", "high"], ["high"]),
        (["cost", "xception", "--rounds", "few"], ["--rounds", "few", "at least 1"]),
        (["cost", "xception", "--batch", "-1"], ["--batch", "-1", "at least 1"]),
        (["evaluate", "xception", "--batch", "2.5"], ["--batch", "2.5", "at least 1"]),
        (["bench", "smal"], ["'smal'", "small, xception", "accuracy"]),
        (["dance"], ["dance", "train", "publish"]),
    ],
)
def test_commands_refuse_in_one_line(project: Path, arguments: list[str], hints: list[str]) -> None:
    before = contents(project)
    done = sepablate(project, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    for hint in hints:
        assert hint in done.stderr
    after = contents(project)
    assert {name for name in after if "__pycache__" not in name} == set(before)
