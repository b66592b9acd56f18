"""A run: one variant at one scale with one seed, fully resolved, identified by a hash."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sepablate import data, models
from sepablate.errors import UserError
from sepablate.models.complexity import Cost, count_network, match_width
from sepablate.runs.source_hash import source_digest
from sepablate.scales import Recipe, Scale
from sepablate.store import layout
from sepablate.store.run_key import run_key
from sepablate.study import Variant

TOLERANCE = 0.05  # relative, of a parameter count to match: channels are whole numbers


@dataclass(frozen=True)
class Run:
    """Everything that determines a run's numbers.

    Args:
        options: all keyword arguments of the model's constructor.
        dataset, image_size: of the variant's task at its scale.
        recipe: with the scale's changes.
        precision: "fp32" or "bf16"; before a backend is selected also "auto".
        kernels: "torch", "fused" (C++, on a CPU) or "triton"; before that also "auto".
        threads: per process.
        parameters: trainable ones.
        mult_adds: multiply-adds (MACs) of one image's forward pass.
        learning_rates: the grid that the recipe's rate was chosen from; empty for a fixed rate.
        trial_images: of a run that helps to choose a recipe, the validation images of its final
            numbers, for it reads no test images; 0 for any other.
    """

    variant: str
    scale_name: str
    seed: int
    model: str
    options: dict[str, Any]
    weight_decay: float
    decay_depthwise: bool
    task: str
    dataset: str
    image_size: int
    scale: Scale
    recipe_name: str
    recipe: Recipe
    precision: str
    kernels: str
    threads: int
    parameters: int
    mult_adds: int
    learning_rates: tuple[float, ...] = ()
    trial_images: int = 0

    def with_seed(self, seed: int) -> "Run":
        """Return the same run with another seed."""
        return dataclasses.replace(self, seed=seed)

    def with_backend(self, precision: str, kernels: str) -> "Run":
        """Return the same run in fp32 or bf16, computed by these kernels."""
        return dataclasses.replace(self, precision=precision, kernels=kernels)

    def with_learning_rate(self, rate: float) -> "Run":
        """Return the same run at another learning rate."""
        return dataclasses.replace(
            self, recipe=dataclasses.replace(self.recipe, learning_rate=rate)
        )

    def as_trial(self, images: int) -> "Run":
        """Return the same run with final numbers on so many validation, not on test images."""
        return dataclasses.replace(self, trial_images=images)

    @property
    def classes(self) -> int:
        """Return the number of the network's classes."""
        return int(self.options["classes"])

    @property
    def image_counts(self) -> dict[str, tuple[str, int]]:
        """Return, for each split that is read, where its number of images stands, and that."""
        place, scale = f"{layout.PARAMS}: scales.{self.scale_name}", self.scale
        place += ".detection" * (self.task == "detection")
        counts = {
            "train": (f"{place}.images", scale.images),
            "validation": (f"{place}.validation_images", scale.validation_images),
        }
        if self.trial_images:
            return counts
        return {**counts, "test": (f"{place}.test_images", scale.test_images)}

    @property
    def in_channels(self) -> int:
        """Return the channels of the network's input."""
        return int(self.options["in_channels"])

    @property
    def dropout(self) -> float:
        """Return the network's dropout probability; 0 for a network without dropout."""
        return float(self.options.get("dropout", 0))

    @property
    def config(self) -> dict[str, Any]:
        """Return the resolved config, flat, as it is written to the results and to MLflow."""
        scale = {**dataclasses.asdict(self.scale), "seeds": list(self.scale.seeds)}
        # Left out: `resolve` turned these into options of the model, which are listed below.
        for key in ("width", "widths", "stem_stride", "padding", "precision", "kernels", "classes"):
            del scale[key]
        # `dataset` and `image_size` are the run's own, and the recipe has the scale's changes.
        del scale["multi_label_dataset"], scale["detection"]
        del scale["image_sizes"], scale["recipes"]
        if self.trial_images:
            del scale["test_images"]
            scale["trial_images"] = self.trial_images
        recipe = dataclasses.asdict(self.recipe)
        for key in ("dropout", "norm_epsilon", "norm_momentum"):
            del recipe[key]
        return {
            "variant": self.variant,
            "scale": self.scale_name,
            "model": self.model,
            **{f"model.{key}": value for key, value in self.options.items()},
            "parameters": self.parameters,
            "mult_adds": self.mult_adds,
            "weight_decay": self.weight_decay,
            "decay_depthwise": self.decay_depthwise,
            "task": self.task,
            **scale,
            "dataset": self.dataset,
            "image_size": self.image_size,
            "steps": self.scale.steps,
            "recipe": self.recipe_name,
            **recipe,
            "learning_rates": list(self.learning_rates),
            "precision": self.precision,
            "kernels": self.kernels,
            "threads": self.threads,
            "data_digest": data.digest(self.dataset),
            "source_digest": source_digest(self.model, self.dataset, self.kernels),
            "torch": torch.__version__,
        }

    @property
    def key(self) -> str:
        """Return a hash of config, data, training code and seed: 16 hexadecimal digits."""
        return run_key(self.config, self.seed)


def resolve(
    variant: Variant,
    scale_name: str,
    scale: Scale,
    recipes: Mapping[str, Recipe],
    seed: int,
    precision: str,
) -> Run:
    """Resolve a variant at a scale: width, parameter count, multiply-adds, options of the model.

    A variant with a grid of learning rates starts with the recipe's; see `with_learning_rate`.

    Raises UserError for an unknown recipe, model or option, or if no width gives equal parameters.
    """
    if variant.recipe not in recipes:
        choices = ", ".join(recipes)
        raise UserError(f"variant {variant.name!r}: recipe {variant.recipe!r}: choose {choices}")
    scale = scale.for_task(variant.task, f"{layout.PARAMS}: scales.{scale_name}")
    recipe = scale.changed(variant.recipe, recipes[variant.recipe])
    scale = scale.with_recipe(variant.recipe)
    options, parameters, mult_adds = _build_options(variant, scale, recipe)
    return Run(
        variant=variant.name,
        scale_name=scale_name,
        seed=seed,
        model=variant.model,
        options=options,
        weight_decay=variant.weight_decay,
        decay_depthwise=variant.decay_depthwise,
        task=variant.task,
        dataset=scale.dataset_of(variant.task),
        image_size=_image_size(variant, scale),
        scale=scale,
        recipe_name=variant.recipe,
        recipe=recipe,
        precision=precision,
        kernels=scale.kernels,
        threads=1,
        parameters=parameters,
        mult_adds=mult_adds,
        learning_rates=variant.learning_rates,
    )


def _image_size(variant: Variant, scale: Scale) -> int:
    fixed_size = data.dataset(scale.dataset_of(variant.task)).IMAGE_SIZE
    own_size = scale.image_sizes.get(variant.model, scale.image_size)
    return variant.image_size or fixed_size or own_size


def _build_options(
    variant: Variant, scale: Scale, recipe: Recipe
) -> tuple[dict[str, Any], int, int]:
    dataset, defaults = data.dataset(scale.dataset_of(variant.task)), models.defaults(variant.model)
    common = {
        "classes": (scale.classes if variant.task != "detection" else 0) or dataset.CLASSES,
        "in_channels": dataset.CHANNELS,
        "width": scale.widths.get(variant.model, scale.width) * variant.relative_width,
        "stem_stride": scale.stem_stride,
        "padding": scale.padding,
        "dropout": recipe.dropout,
        "norm_epsilon": recipe.norm_epsilon,
        "norm_momentum": recipe.norm_momentum,
        "maps": scale.detection.maps if scale.detection else 0,
    }
    chosen = {key: common[key] for key in defaults if key in common}
    options = {**defaults, **chosen, **variant.options}
    reference = variant.same_parameters_as
    published = scale.width == 1  # different networks are then compared as they were published
    if reference is not None and not (published and reference.model != variant.model):
        target = _build_options(reference, scale, recipe)[1]
        rest = {key: value for key, value in options.items() if key != "width"}
        options["width"] = match_width(variant.model, target, TOLERANCE, **rest)
    cost = _cost(variant.model, _image_size(variant, scale), **options)
    return options, cost.parameters, cost.mult_adds


@functools.cache
def _cost(model: str, image_size: int, **options: Any) -> Cost:
    return count_network(model, image_size, **options).total
