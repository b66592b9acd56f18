"""What a study is: variants to compare and the claims that a paper makes about them.

Data only. This module imports neither torch nor anything else of the package, so that a study file
loads in milliseconds and never decides how it is trained.
"""

import dataclasses
import importlib.util
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

FOLDER = Path("experiments")
COMPARISONS = (">", "<", "=")
TASKS = ("single_label", "multi_label")
METRICS = ("accuracy", "map_100", "speed")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # safe in a path and on a command line


@dataclass(frozen=True)
class Variant:
    """One network with one training recipe.

    model: a name that `sepablate.models.build` knows; options: its constructor arguments, beside
    those that the scale decides (classes, image size, width).
    weight_decay: coupled L2, applied to convolution and dense kernels.
    same_parameters_as: the variant whose parameter count this one matches; its width is solved for,
    unless the two are different networks at width 1: those are compared as they were published.
    learning_rates: none for the recipe's; or a grid, of which validation accuracy chooses one.
    recipe: a recipe of params.yaml. task: "single_label" or "multi_label"; the scale names a data
    set for each. image_size: pixels, 0 for the scale's. relative_width: factor on the scale's.
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
        if self.task not in TASKS:
            raise ValueError(f"variant {self.name!r}: task {self.task!r}: choose {_list(TASKS)}")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def but(self, name: str, label: str, **changes: object) -> "Variant":
        """The same variant but for `changes`: fields of a variant or options of its model."""
        own = {f.name for f in dataclasses.fields(self)}
        fields = {key: value for key, value in changes.items() if key in own}
        options = {key: value for key, value in changes.items() if key not in own}
        fields.setdefault("options", {**self.options, **options})
        return dataclasses.replace(self, name=name, label=label, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper that runs can contradict: `left` compares to `right` on `metric`.

    metric: "accuracy" or "map_100" (final, on the test images, averaged weights), or "speed" (mean of
    that metric over the validation curve, raw weights: the higher, the sooner the network learnt).
    margin: the smallest difference of interest, declared before the runs, as a fraction.
    words: what the paper says, in one line of ours; section: where it says so.
    """

    left: str
    comparison: str
    right: str
    metric: str
    margin: float
    section: str
    words: str

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            raise ValueError(f"claim comparison {self.comparison!r}: choose {_list(COMPARISONS)}")
        if self.metric not in METRICS:
            raise ValueError(f"claim metric {self.metric!r}: choose {_list(METRICS)}")
        if not 0 < self.margin < 1:
            raise ValueError(f"claim margin {self.margin!r}: choose a fraction between 0 and 1")


@dataclass(frozen=True)
class Study:
    """One comparison made by a paper: a baseline, the variants beside it, and the claims.

    asks: the fields of the resolved config that the question is about.
    confounds: the other fields that may differ between variants, each with its reason.
    against: the field of the resolved config against which the figure draws the final scores.
    """

    title: str
    source: str
    baseline: Variant
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    asks: tuple[str, ...]
    confounds: Mapping[str, str] = field(default_factory=dict)
    against: str = ""

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.all]
        if len(set(names)) < len(names):
            raise ValueError(f"study {self.title!r}: duplicate variant among {_list(names)}")
        for claim in self.claims:
            for name in (claim.left, claim.right):
                if name not in names:
                    raise ValueError(
                        f"study {self.title!r}: claim on {name!r}: choose {_list(names)}"
                    )

    def pairs_with(self, name: str) -> set[tuple[str, str]]:
        """What is compared to the variant of that name: by a claim, or as baseline and variant."""
        pairs = {(claim.left, claim.right) for claim in self.claims}
        pairs |= {(self.baseline.name, variant.name) for variant in self.variants}
        return {pair for pair in pairs if name in pair}

    @property
    def all(self) -> tuple[Variant, ...]:
        """The baseline and the variants beside it, in the order of tables and legends."""
        return (self.baseline, *self.variants)


def check_name(name: str, kind: str) -> None:
    """ValueError unless the name is safe in a path and on a command line."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{kind} {name!r}: choose letters, digits, _ . + -; no dot or sign first")


def names(folder: Path = FOLDER) -> list[str]:
    """The declared studies: the file names of `folder`."""
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def load(name: str, folder: Path = FOLDER) -> "AnyStudy":
    """The study that `experiments/<name>.py` declares as STUDY; ValueError if there is none."""
    check_name(name, "study")
    if name not in names(folder):
        raise ValueError(f"study {name!r} in {folder}/: choose {_list(names(folder))}")
    path = folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiments.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(_located(error, path)) from None
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study | LayerStudy):
        raise ValueError(f"{path}: declares no STUDY = Study(...)")
    return study


def _located(error: Exception, path: Path) -> str:
    """What is wrong in a study file, and in which line, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    line = getattr(error, "lineno", None) or [1, *lines][-1]
    said = error.msg if isinstance(error, SyntaxError) else error
    return " ".join(f"{path}:{line}: {type(error).__name__}: {said}".split())


def variants(folder: Path = FOLDER) -> dict[str, Variant]:
    """Every variant of every study by name, each once; ValueError if two differ under one name."""
    found: dict[str, Variant] = {}
    for name in names(folder):
        for variant in load(name, folder).all:
            if found.setdefault(variant.name, variant) != variant:
                raise ValueError(
                    f"variant {variant.name!r} in {folder}/{name}.py: the name is taken"
                )
    return found


def variant(name: str, folder: Path = FOLDER) -> Variant:
    """The variant of that name, of a study or only counted; ValueError with the valid names."""
    declared = {**variants(folder), INCEPTION_V3_2016.name: INCEPTION_V3_2016}
    if name not in declared:
        raise ValueError(f"variant {name!r} in {folder}/: choose {_list(declared)}")
    return declared[name]


def studies_with(variant_name: str, folder: Path = FOLDER) -> list[str]:
    """The studies that compare the variant of that name."""
    return [
        name
        for name in names(folder)
        if variant_name in [each.name for each in load(name, folder).all]
    ]


def _list(choices: Iterable[str]) -> str:
    return ", ".join(choices)


XCEPTION = Variant("xception", "Xception", model="xception", weight_decay=1e-5)
INCEPTION_V3 = Variant(
    "inception_v3",
    "Inception V3",
    model="inception_v3",
    weight_decay=4e-5,
    same_parameters_as=XCEPTION,
)
INCEPTION_V3_2016 = INCEPTION_V3.but(  # the one that table 3 counts
    "inception_v3_2016", "Inception V3, Keras 2016", keras_2016=True, same_parameters_as=None
)
POINTWISE_FIRST = XCEPTION.but("pointwise_first", "Pointwise first", pointwise_first=True)


@dataclass(frozen=True)
class LayerStudy:
    """Standard against separable convolutions: what a layer costs on paper and in time, untrained.

    kernels: sizes in pixels; widths: channels in and out; map_size: pixels; batch: images;
    repeats: timings of each layer; seconds: no further round of timings begins after so long.
    smaller: the fields that are other at a scale, by its name.
    """

    title: str
    source: str
    kernels: tuple[int, ...]
    widths: tuple[int, ...]
    map_size: int
    batch: int
    repeats: int
    seconds: float
    smaller: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    # It trains nothing: whoever walks over the studies finds no variants and no claims here.
    all: ClassVar[tuple[Variant, ...]] = ()
    variants: ClassVar[tuple[Variant, ...]] = ()
    claims: ClassVar[tuple[Claim, ...]] = ()
    asks: ClassVar[tuple[str, ...]] = ()
    confounds: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __post_init__(self) -> None:
        for name in ("kernels", "widths"):
            sizes = getattr(self, name)
            if not isinstance(sizes, tuple) or not sizes or sorted({*sizes}) != list(sizes):
                raise ValueError(f"{name} {sizes!r}: choose a tuple of rising numbers")
        sizes = (*self.kernels, *self.widths, self.map_size, self.batch)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise ValueError(f"sizes {sizes!r}: choose whole numbers, at least 1")
        if not all(kernel % 2 for kernel in self.kernels):
            raise ValueError(f"kernels {self.kernels!r}: choose odd sizes, which keep the map's")
        if self.repeats < 3 or not self.seconds > 0:
            chosen = f"repeats {self.repeats!r}, seconds {self.seconds!r}"
            raise ValueError(f"{chosen}: choose at least 3 repeats and more than 0 seconds")
        for scale in self.smaller:
            self.at(scale)
        object.__setattr__(self, "smaller", MappingProxyType(dict(self.smaller)))

    def at(self, scale: str) -> "LayerStudy":
        """The study as it is run at that scale."""
        return dataclasses.replace(self, smaller={}, **self.smaller.get(scale, {}))

    def pairs_with(self, _: str) -> set[tuple[str, str]]:
        """None: no variants are compared."""
        return set()


AnyStudy = Study | LayerStudy
