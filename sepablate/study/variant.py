"""A variant: one network with one training recipe."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sepablate.errors import UserError

# The name of the score of each task, in the rows of a run, in tables and in claims.
TASK_SCORES = {"single_label": "accuracy", "multi_label": "map_100", "detection": "map"}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # safe in a path and on a command line


@dataclass(frozen=True)
class Variant:
    """One network with one training recipe.

    Args:
        name: safe in a path and on a command line.
        label: in tables and figures.
        model: a name that `sepablate.models.build` knows.
        weight_decay: coupled L2, applied to convolution and dense kernels.
        options: the model's constructor arguments, except those that the scale decides (classes,
            image size, width).
        same_parameters_as: the variant whose parameter count this one matches. Its width is solved
            for, unless the two are different networks at width 1, which are compared as published.
        learning_rates: none for the recipe's; or a grid, of which validation accuracy chooses one.
        recipe: a recipe of params.yaml.
        task: "single_label", "multi_label" or "detection"; the scale names a data set for each.
        image_size: pixels, 0 for the scale's.
        relative_width: factor on the scale's width.
        decay_depthwise: whether weight decay acts on depthwise kernels too.
    """

    name: str
    label: str
    model: str
    weight_decay: float
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    same_parameters_as: "Variant | None" = None
    learning_rates: tuple[float, ...] = ()
    recipe: str = "imagenet"
    task: str = "single_label"
    image_size: int = 0
    relative_width: float = 1.0
    decay_depthwise: bool = True

    def __post_init__(self) -> None:
        check_name(self.name, "variant")
        if self.task not in TASK_SCORES:
            raise UserError(
                f"variant {self.name!r}: task {self.task!r}: choose {', '.join(TASK_SCORES)}"
            )
        for option, value in self.options.items():
            if not isinstance(value, str | int | float):
                raise UserError(
                    f"variant {self.name!r}: {option}: {value!r}: choose a string, number or bool"
                )
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def but(self, name: str, label: str, **changes: object) -> "Variant":
        """Return the same variant with `changes`: fields of a variant or options of its model."""
        names = {field.name for field in dataclasses.fields(self)}
        fields = {key: value for key, value in changes.items() if key in names}
        options = {key: value for key, value in changes.items() if key not in names}
        fields.setdefault("options", {**self.options, **options})
        return dataclasses.replace(self, name=name, label=label, **fields)  # type: ignore[arg-type]


def check_name(name: str, kind: str) -> None:
    """Raise UserError unless the name is safe in a path and on a command line."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{kind} {name!r}: choose letters, digits, _ . + -; no dot or sign first")


XCEPTION = Variant("xception", "Xception", model="xception", weight_decay=1e-5)
INCEPTION_V3 = Variant(
    "inception_v3",
    "Inception V3",
    model="inception_v3",
    weight_decay=4e-5,
    same_parameters_as=XCEPTION,
)
INCEPTION_V3_2016 = INCEPTION_V3.but(  # the one that table 3 counts
    "inception_v3_2016",
    "Inception V3, Keras 2016",
    keras_2016=True,
    borders="tensorflow",
    same_parameters_as=None,
)
POINTWISE_FIRST = XCEPTION.but("pointwise_first", "Pointwise first", pointwise_first=True)
