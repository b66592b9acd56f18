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

FOLDER = Path("experiments")
COMPARISONS = (">", "<", "=")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # safe in a path and on a command line


@dataclass(frozen=True)
class Variant:
    """One network with one training recipe.

    model: a name that `sepablate.models.build` knows; options: its constructor arguments, beside
    those that the scale decides (classes, image size, width).
    weight_decay: coupled L2, applied to convolution and dense kernels.
    same_parameters_as: the variant whose parameter count this one matches; its width is solved for.
    learning_rates: none for the recipe's; or a grid, of which validation accuracy chooses one.
    """

    name: str
    label: str
    model: str
    weight_decay: float
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    same_parameters_as: "Variant | None" = None
    learning_rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "variant")
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

    metric: "accuracy" (final test accuracy, averaged weights) or "speed" (mean of the validation
    accuracy over the training curve, raw weights: the higher, the sooner the network learnt).
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
        if self.metric not in ("accuracy", "speed"):
            raise ValueError(f"claim metric {self.metric!r}: choose accuracy, speed")
        if not 0 < self.margin < 1:
            raise ValueError(f"claim margin {self.margin!r}: choose a fraction between 0 and 1")


@dataclass(frozen=True)
class Study:
    """One comparison made by a paper: a baseline, the variants beside it, and the claims.

    asks: the fields of the resolved config that the question is about.
    confounds: the other fields that may differ between variants, each with its reason.
    """

    title: str
    source: str
    baseline: Variant
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    asks: tuple[str, ...]
    confounds: Mapping[str, str] = field(default_factory=dict)

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


def load(name: str, folder: Path = FOLDER) -> Study:
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
    if not isinstance(study, Study):
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
    """The variant of that name; ValueError with the valid names."""
    declared = variants(folder)
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
