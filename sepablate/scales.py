"""Scales and recipes: params.yaml as pydantic models.

`python -m sepablate.scales > params.schema.json` writes the schema that editors check it with.
"""

import dataclasses
import json
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveFloat, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic.json_schema import GenerateJsonSchema

from sepablate.errors import UserError, choices
from sepablate.recipes import LIST, STRICT, Count, CountOrZero, Epochs, Recipe, RecipeChange, Shift
from sepablate.store import datasets, layout
from sepablate.store.params_file import read_params
from sepablate.validation import parse

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # safe in a path and on a command line

MultiLabelDataset = Literal["garment_scenes", "labelled_images"]
DetectionDataset = Literal["coco", "garment_boxes"]
Precision = Literal["auto", "fp32", "bf16"]
Kernels = Literal["auto", "fused", "torch"]
ImageSize = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[float, Field(gt=0, le=16)]


def _known_dataset(value: object) -> object:
    """Return the name of a data set of the package, or of one that is registered."""
    names = [*datasets.SINGLE_LABEL, *datasets.registered_names()]
    if value not in names:
        own = "or register it with `sepablate new dataset`, or remove the scale"
        raise UserError(f"{choices(value, names)}; {own}")
    return value


NAMES: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "enum": [*datasets.SINGLE_LABEL]},
        {"type": "string", "pattern": f"^{datasets.NAME.pattern}$"},
    ]
}
Dataset = Annotated[str, BeforeValidator(_known_dataset), Field(json_schema_extra=NAMES)]

Seeds = Annotated[tuple[NonNegativeInt, ...], *LIST]


@dataclass(frozen=True, config=STRICT)
class Detection:
    """What a scale has for the detection of objects in place of its own data set and counts."""

    dataset: DetectionDataset
    """Data set of the task."""
    images: Count
    """Training images."""
    validation_images: Count
    """Images that the points of a training curve are measured on."""
    test_images: Count
    """Images that the final numbers are measured on."""
    batch_size: Count
    """Images of a gradient step."""
    evaluations: Count
    """Points of a training curve."""
    maps: Annotated[int, Field(ge=2, le=6)]
    """How many maps of a detector's base and of its further layers its heads see."""


@dataclass(frozen=True, config=STRICT)
class Scale:
    """A named budget: data set, image size, width, epochs, seeds."""

    dataset: Dataset
    """Data set of the single-label task."""
    multi_label_dataset: MultiLabelDataset
    """Data set of the multi-label task."""
    images: Count
    """Training images."""
    image_size: ImageSize
    """Height and width of an image, in pixels."""
    validation_images: Count
    """Images that the points of a training curve are measured on."""
    test_images: Count
    """Images that the final numbers are measured on."""
    width: Width
    """Channels of every layer, as a multiple of the published network's."""
    stem_stride: Annotated[int, Field(ge=1, le=2)]
    """Stride of the first convolution."""
    padding: Literal["same", "valid"]
    """valid: as in the published networks; same: what is unpadded there is padded."""
    batch_size: Count
    """Images of a gradient step."""
    epochs: Epochs
    """Passes over the training images; need not be whole."""
    evaluations: Count
    """Points of a training curve."""
    precision: Precision
    """auto: bf16 where a check on the machine finds it fast and right."""
    seeds: Seeds
    """Every variant is trained once with each."""
    widths: dict[str, Width] = Field(default_factory=dict)
    """Widths of the networks, by name, whose width is not `width`."""
    image_sizes: dict[str, ImageSize] = Field(default_factory=dict)
    """Heights and widths of the images of networks, by name, where not `image_size`."""
    classes: CountOrZero = 0
    """Classes of the data set; 0 where the data set knows."""
    micro_batch: CountOrZero = 0
    """Images of a forward pass and its batch norm; 0 for the whole batch."""
    workers: CountOrZero = 0
    """Processes that read images from disk, for each accelerator."""
    kernels: Kernels = "auto"
    """Layers in training: PyTorch's or fused ones; auto: fused where a check finds them fast."""
    recipes: dict[str, RecipeChange] = Field(default_factory=dict)
    """What this scale changes in recipes, by their names."""
    detection: Detection | None = None
    """What differs for networks that detect objects; none are trained where it is missing."""

    @property
    def steps(self) -> int:
        """Gradient steps of one run; the last, incomplete batch of an epoch is dropped."""
        return max(1, round(self.epochs * (self.images // self.batch_size)))

    def dataset_of(self, task: str) -> str:
        """Return the name of the data set of a task."""
        if task == "detection":
            assert self.detection is not None, "`for_task` refuses a scale without it"
            return self.detection.dataset
        return self.dataset if task == "single_label" else self.multi_label_dataset

    def for_task(self, task: str, place: str) -> "Scale":
        """Return this scale with the counts of a task.

        Args:
            task: One of a variant.
            place: Where the scale stands, for an error.

        Raises:
            UserError: The scale has none for it.
        """
        if task != "detection":
            return self
        if self.detection is None:
            names = ", ".join(field.name for field in dataclasses.fields(Detection))
            raise UserError(f"{place}.detection: missing: choose a mapping of {names}")
        counts = dataclasses.asdict(self.detection)
        del counts["dataset"], counts["maps"]
        return dataclasses.replace(self, **counts)

    def changed(self, name: str, recipe: Recipe) -> Recipe:
        """Return the recipe of that name as it is at this scale."""
        changes = dataclasses.asdict(self.recipes.get(name, RecipeChange()))
        del changes["epochs"]
        changes = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(recipe, **changes)

    def with_recipe(self, name: str) -> "Scale":
        """Return this scale with the epochs of the recipe of that name."""
        epochs = self.recipes.get(name, RecipeChange()).epochs
        return self if epochs is None else dataclasses.replace(self, epochs=epochs)


@dataclass(frozen=True, config=STRICT)
class Search:
    """The candidates for a scale's recipe: every combination of these values.

    A field without values stays as the scale has it.
    """

    learning_rate: Annotated[tuple[PositiveFloat, ...], *LIST] = ()
    """Learning rates at the start of a run."""
    decays: Annotated[tuple[Count, ...], *LIST] = ()
    """How often the learning rate is decayed over a whole run."""
    batch_size: Annotated[tuple[Count, ...], *LIST] = ()
    """Images of a gradient step."""
    shift: Annotated[tuple[Shift, ...], *LIST] = ()
    """Pixels by which images are shifted at most."""
    flip: Annotated[tuple[bool, ...], *LIST] = ()
    """Whether half of the images are mirrored."""
    seeds: Seeds = (1000, 1001)
    """Each candidate is trained once with each; none of them is a seed of the scale."""


@dataclass(config=ConfigDict(use_attribute_docstrings=True))
class Params:
    """Every number that a person may want to turn."""

    scale: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    """The scale that commands use by default."""
    recipes: Annotated[dict[str, Recipe], Field(min_length=1)]
    """Recipes by the names that studies give them."""
    scales: dict[str, Scale]
    """Scales by name."""
    search: dict[str, Search] = Field(default_factory=dict)
    """Searches of `sepablate tune`, by the scale's name."""


def current(path: Path = layout.PARAMS) -> str:
    """Return the name of the scale that params.yaml selects."""
    params = read_params(path)
    return _scale_name(params, params.get("scale"), f"{path}: scale:")


def load(
    name: str, path: Path = layout.PARAMS, origin: str = ""
) -> tuple[Scale, dict[str, Recipe]]:
    """Return the scale of that name, and all recipes before its changes to them.

    Args:
        name: The scale.
        path: The file.
        origin: Where the name comes from, for an error; default: the file.

    Raises:
        UserError: The name, a field of the scale or a recipe is invalid. The other scales are not
            checked.
    """
    params = read_params(path)
    place = f"{path}: scales.{_scale_name(params, name, origin or f'{path}: scale:')}"
    recipes = params.get("recipes")
    if not isinstance(recipes, dict) or not recipes:
        raise UserError(f"{path}: recipes: {recipes!r}: choose a mapping by name")
    scale = _parse_scale(params["scales"][name], place, list(recipes))
    check_together(scale, place)
    return scale, {
        key: parse(Recipe, value, f"{path}: recipes.{key}") for key, value in recipes.items()
    }


def load_search(name: str, scale: Scale, path: Path = layout.PARAMS) -> Search:
    """Return the search of that scale.

    Raises:
        UserError: There is none, a field is invalid, it has no candidates, one of them does not go
            with the scale, or a seed is the scale's.
    """
    searches = read_params(path).get("search") or {}
    if not isinstance(searches, dict):
        raise UserError(f"{path}: search: {reprlib.repr(searches)}: choose a mapping by scale")
    place = f"{path}: search.{name}"
    if name not in searches:
        names = ", ".join(map(str, searches)) or "no scale"
        raise UserError(f"{place}: missing: a search stands there for {names}")
    search = parse(Search, searches[name], place)
    tried = {key: values for key, values in dataclasses.asdict(search).items() if key != "seeds"}
    if not any(tried.values()):
        fields = " or ".join(tried)
        raise UserError(f"{place}: empty: give values of {fields}")
    for size in search.batch_size:
        check_together(dataclasses.replace(scale, batch_size=size), place)
    for seed in search.seeds:
        if seed in scale.seeds:
            raise UserError(f"{place}.seeds: {seed}: choose seeds that are not the scale's")
    return search


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of params.yaml."""

    class WithoutTitles(GenerateJsonSchema):
        """Leaves out titles, which would repeat the names of the fields."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    schema = TypeAdapter(Params).json_schema(schema_generator=WithoutTitles)
    return {"$schema": WithoutTitles.schema_dialect, **schema}


def _parse_scale(values: object, place: str, recipes: list[object]) -> Scale:
    """Return a scale, whose changes are of these recipes."""
    if isinstance(values, dict) and "recipes" in values:
        changes, key = values["recipes"], f"{place}.recipes"
        if not isinstance(changes, dict):
            raise UserError(f"{key}: {reprlib.repr(changes)}: choose a mapping by name")
        for name in changes:
            if name not in recipes:
                valid = choices(name, map(str, recipes))
                raise UserError(f"{key}: {reprlib.repr(name)}: {valid}")
        changes = {
            name: parse(RecipeChange, change, f"{key}.{name}") for name, change in changes.items()
        }
        values = {**values, "recipes": changes}
    if isinstance(values, dict) and values.get("detection") is not None:
        detection = parse(Detection, values["detection"], f"{place}.detection")
        values = {**values, "detection": detection}
    return parse(Scale, values, place)


def check_together(scale: Scale, place: str) -> None:
    """Raise UserError for fields that do not go with each other."""
    _check_steps(scale, place)
    _check_limits(scale, scale.dataset, place)
    if scale.detection is not None:
        detection = scale.for_task("detection", place)
        _check_steps(detection, f"{place}.detection")
        _check_limits(detection, scale.detection.dataset, f"{place}.detection")


def _check_steps(scale: Scale, place: str) -> None:
    """Raise UserError for batches or evaluations that do not go with the images or steps."""
    steps = min(scale.with_recipe(name).steps for name in ("", *scale.recipes))
    limits = {"batch_size": ("images", scale.images), "evaluations": ("steps", steps)}
    for key, (name, limit) in limits.items():
        if getattr(scale, key) > limit:
            raise UserError(
                f"{place}.{key}: {getattr(scale, key)}: choose at most the {name} ({limit})"
            )
    if scale.micro_batch and scale.batch_size % scale.micro_batch:
        raise UserError(
            f"{place}.micro_batch: {scale.micro_batch}: choose a divisor of batch_size "
            f"({scale.batch_size})"
        )


def _check_limits(scale: Scale, dataset: str, place: str) -> None:
    """Raise UserError for more images than a data set has, or others than it has."""
    known = datasets.limits(dataset)
    for key, limit in known._asdict().items() if known else ():
        value = getattr(scale, key)
        if key == "image_size" and limit not in (None, value):
            raise UserError(f"{place}.{key}: {value}: choose {limit} for {dataset}")
        if key != "image_size" and value > limit:
            raise UserError(f"{place}.{key}: {value}: choose at most {limit}")


def _scale_name(params: dict[str, Any], name: object, origin: str) -> str:
    if not isinstance(name, str) or name not in params["scales"]:
        raise UserError(f"{origin} {name!r}: {choices(name, map(str, params['scales']))}")
    if not NAME.fullmatch(name):
        raise UserError(f"{origin} {name!r}: choose a name of letters, digits, - and _")
    return name


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
