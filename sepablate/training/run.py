"""A run: one variant at one scale with one seed, resolved to the last number, named by a hash."""

import dataclasses
import functools
import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sepablate import data, models
from sepablate.keys import run_key
from sepablate.models.cost import count, match_width
from sepablate.scales import Recipe, Scale
from sepablate.study import Variant

PACKAGE = Path(__file__).parents[1]
COMPUTES = (
    "data/fashion_mnist.py",
    "models/layers.py",
    "training/batches.py",
    "training/engine.py",
    "training/recipe.py",
)


@dataclass(frozen=True)
class Run:
    """Everything that decides a run's numbers. options: all arguments of the model's constructor.

    parameters: trainable; mult_adds: of one image's forward pass; threads: per process.
    learning_rates: the grid that the recipe's rate was chosen from, if it was.
    """

    variant: str
    scale_name: str
    seed: int
    model: str
    options: dict[str, Any]
    weight_decay: float
    scale: Scale
    recipe: Recipe
    precision: str
    threads: int
    parameters: int
    mult_adds: int
    learning_rates: tuple[float, ...] = ()

    def with_seed(self, seed: int) -> "Run":
        """The same run with another seed."""
        return dataclasses.replace(self, seed=seed)

    def with_precision(self, precision: str) -> "Run":
        """The same run in fp32 or bf16."""
        return dataclasses.replace(self, precision=precision)

    def with_learning_rate(self, rate: float) -> "Run":
        """The same run at another learning rate."""
        return dataclasses.replace(
            self, recipe=dataclasses.replace(self.recipe, learning_rate=rate)
        )

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config, flat, as it is written beside the results and into MLflow."""
        scale = {**dataclasses.asdict(self.scale), "seeds": list(self.scale.seeds)}
        # Solved for or passed on by `resolve`: the model's options tell what was really built.
        for key in ("width", "stem_stride", "padding", "precision"):
            del scale[key]
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
            **scale,
            "steps": self.scale.steps,
            **recipe,
            "learning_rates": list(self.learning_rates),
            "precision": self.precision,
            "threads": self.threads,
            "data_digest": data.dataset(self.scale.dataset).DIGEST,
            "source_digest": source_digest(self.model),
            "torch": torch.__version__,
        }

    @property
    def key(self) -> str:
        """A hash of the config, the data, the training code and the seed: 16 hexadecimal digits."""
        return run_key(self.config, self.seed)


def resolve(
    variant: Variant, scale_name: str, scale: Scale, recipe: Recipe, seed: int, precision: str
) -> Run:
    """Fill in what variant and scale leave to each other: width, counts, the model's options.

    A variant with a grid of learning rates has the recipe's until `with_learning_rate`.

    Raises ValueError for an unknown model or option, or if no width gives equal parameters.
    """
    options, parameters, mult_adds = _build_options(variant, scale, recipe)
    return Run(
        variant=variant.name,
        scale_name=scale_name,
        seed=seed,
        model=variant.model,
        options=options,
        weight_decay=variant.weight_decay,
        scale=scale,
        recipe=recipe,
        precision=precision,
        threads=1,
        parameters=parameters,
        mult_adds=mult_adds,
        learning_rates=variant.learning_rates,
    )


def _build_options(
    variant: Variant, scale: Scale, recipe: Recipe
) -> tuple[dict[str, Any], int, int]:
    source = data.dataset(scale.dataset)
    options = {
        **models.defaults(variant.model),
        "classes": source.CLASSES,
        "in_channels": source.CHANNELS,
        "width": scale.width,
        "stem_stride": scale.stem_stride,
        "padding": scale.padding,
        "dropout": recipe.dropout,
        "norm_epsilon": recipe.norm_epsilon,
        "norm_momentum": recipe.norm_momentum,
        **variant.options,
    }
    if variant.same_parameters_as is not None:
        target = _build_options(variant.same_parameters_as, scale, recipe)[1]
        rest = {key: value for key, value in options.items() if key != "width"}
        options["width"] = match_width(variant.model, target, **rest)
    with torch.device("meta"):
        cost = count(models.build(variant.model, **options), scale.image_size)
    return options, cost.parameters, cost.mult_adds


@functools.cache
def source_digest(model: str) -> str:
    """A hash of the source that decides the numbers of a run of `model`."""
    digest = hashlib.sha256(Path(inspect.getfile(models.MODELS[model])).read_bytes())
    for path in COMPUTES:
        digest.update((PACKAGE / path).read_bytes())
    return digest.hexdigest()[:16]
