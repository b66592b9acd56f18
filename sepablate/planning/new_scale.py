"""A scale for a data set of one's own: that of another scale, with as many gradient steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sepablate import scales
from sepablate.errors import UserError
from sepablate.scales import Scale
from sepablate.store import layout
from sepablate.store.datasets import Registered
from sepablate.store.params_file import read_params

FROM_FILES = 64  # pixels that a network gets of images in files, if the other scale's are in memory
MOST_EPOCHS = 100_000
AUGMENTATION = ("shift", "flip")
WIDE = 40  # pixels from which the stem has stride 2 then, so that a step takes no longer


def propose(base: str, dataset: str, registered: Registered) -> dict[str, Any]:
    """Return the fields of a scale that trains on a registered data set.

    All training images; of the others at most as many as the base evaluates on.

    Args:
        base: the scale that the other fields are from.
        dataset: the name of the data set.
        registered: the data set.
    """
    scale, limits = scales.load(base)[0], registered.limits
    values: dict[str, Any] = dict(read_params(layout.PARAMS)["scales"][base])
    values.pop("classes", None)
    values.pop("detection", None)
    values |= {"dataset": dataset, "images": limits.images}
    values["image_size"] = limits.image_size or _size_from_files(scale)
    if values["image_size"] > max(WIDE, scale.image_size):
        values["stem_stride"] = 2
    for key in ("validation_images", "test_images"):
        values[key] = min(getattr(scale, key), getattr(limits, key))
    if scale.batch_size > limits.images:
        values["batch_size"] = limits.images
        values.pop("micro_batch", None)
    per_epoch = limits.images // values["batch_size"]
    values["epochs"] = _epochs(scale, per_epoch)
    if scale.recipes:
        values["recipes"] = {
            name: _recipe_changes(scale, name, changes, per_epoch)
            for name, changes in values["recipes"].items()
        }
    return values


def _recipe_changes(
    scale: Scale, name: str, changes: Mapping[str, Any], per_epoch: int
) -> dict[str, Any]:
    """Return what a scale changes in a recipe, for as many steps of so many an epoch.

    An augmentation for images that are hardly seen twice is left out where they are seen often.
    """
    theirs = scale.with_recipe(name)
    epochs = _epochs(theirs, per_epoch)
    left_out = AUGMENTATION if theirs.epochs < 2 <= epochs else ()
    kept = {key: value for key, value in changes.items() if key not in left_out}
    return kept | ({"epochs": epochs} if "epochs" in changes else {})


def _size_from_files(scale: Scale) -> int:
    return max(scale.image_size, FROM_FILES)


def _epochs(scale: Scale, per_epoch: int) -> float:
    """Return the epochs of as many gradient steps as the scale has; whole if they are."""
    epochs = min(round(scale.steps / per_epoch, 6), MOST_EPOCHS)
    return int(epochs) if epochs == int(epochs) else epochs


def as_yaml(name: str, values: Mapping[str, Any], indent: int = 2) -> str:
    """Return the lines of a scale, as they stand in params.yaml."""
    text = yaml.safe_dump({name: dict(values)}, sort_keys=False, allow_unicode=True)
    return "".join(" " * indent + line for line in text.splitlines(keepends=True))


def exists(name: str) -> bool:
    """Return whether a scale has that name."""
    return name in read_params(layout.PARAMS)["scales"]


def check_name(name: str) -> None:
    """Raise UserError if a scale has that name."""
    if exists(name):
        valid = "leave out --add-scale to keep it, remove it there, or choose another name"
        raise UserError(f"{layout.PARAMS}: scales.{name}: exists already: {valid}")


def add(name: str, values: Mapping[str, Any], path: Path = layout.PARAMS) -> str:
    """Return the content of params.yaml with one more scale; every other line stays.

    Raises UserError if the file is not written like the project's.
    """
    text = path.read_text()
    root = yaml.compose(text, yaml.SafeLoader)
    entries = root.value if isinstance(root, yaml.MappingNode) else []
    node = next(value for key, value in entries if key.value == "scales")
    lines = text.splitlines(keepends=True)
    end = node.end_mark.line
    while end > 1 and lines[end - 1].lstrip()[:1] in ("", "#"):
        end -= 1
    indent = node.value[0][0].start_mark.column if node.value else 2
    comment = f"{' ' * indent}# Written by `sepablate new dataset {values['dataset']}`.\n"
    block = as_yaml(name, values, indent)
    changed = "".join([*lines[:end], "\n", comment, block, *lines[end:]])
    if not _is_added(changed, text, name, values):
        raise UserError(f"{path}: is not written like the project's: add by hand: {block!r}")
    return changed


def _is_added(changed: str, text: str, name: str, values: Mapping[str, Any]) -> bool:
    """Return whether the scale is in the changed file, and nothing else is different."""
    try:
        after, before = yaml.safe_load(changed), yaml.safe_load(text)
        added = after["scales"].pop(name)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return False
    return bool(added == dict(values) and after == before)
