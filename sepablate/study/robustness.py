"""A study of how far verdicts carry: claims of other studies, over settings around a scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sepablate.errors import UserError, choices
from sepablate.study.variant import check_name

BASE = "base"  # the setting that is the scale itself
FEWEST_SEEDS, FEWEST_SETTINGS = 3, 3


@dataclass(frozen=True)
class Times:
    """A factor on the number that the scale has."""

    factor: float

    def __post_init__(self) -> None:
        number = isinstance(self.factor, int | float) and 0 < self.factor < math.inf
        if not number or self.factor == 1:
            raise UserError(f"factor {self.factor!r}: choose a number above 0, not 1")


Change = Times | str | int | float
Changes = Mapping[str, Change]  # by field of a scale, or of the recipes that a scale may change


@dataclass(frozen=True)
class Factor:
    """Something in which settings may differ.

    Args:
        name: safe in a path; a tag in MLflow.
        label: in tables and figures.
        base: the label of its level at the scale itself.
        levels: the others by label, with what they change. Where all labels are numbers, such as
            "1/2", the factor counts as one number on a log scale, and else as categories.
        fields: of the resolved config, in which a setting that names the factor may differ.
    """

    name: str
    label: str
    base: str
    levels: Mapping[str, Changes]
    fields: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "factor")
        if not self.levels:
            raise UserError(f"factor {self.name!r}: levels: empty: choose one or more")
        if self.base in self.levels:
            raise UserError(f"factor {self.name!r}: level {self.base!r}: is the scale's own")
        if not self.fields:
            raise UserError(f"factor {self.name!r}: fields: empty: choose fields of a config")
        object.__setattr__(self, "levels", MappingProxyType(dict(self.levels)))


@dataclass(frozen=True)
class Setting:
    """A departure from a scale: the level of each factor that differs from the scale's."""

    name: str
    levels: Mapping[str, str]

    def __post_init__(self) -> None:
        check_name(self.name, "setting")
        if "." in self.name or self.name == BASE:
            raise UserError(f"setting {self.name!r}: choose a name without a dot, not {BASE!r}")
        if not self.levels:
            raise UserError(f"setting {self.name!r}: levels: empty: that is the scale itself")
        object.__setattr__(self, "levels", MappingProxyType(dict(self.levels)))


@dataclass(frozen=True)
class RobustnessStudy:
    """The claims of some studies, over settings: a scale itself, and departures from it.

    Args:
        title: of its report.
        source: the paper and the sections.
        studies: the names of those whose claims it takes.
        metric: the claims on this one.
        recipe: the one of their variants, whose fields settings may change.
        budget: the factor that a figure draws as images seen.
        factors: in which settings may differ.
        settings: the departures; the scale itself comes first in every table.
        seeds: trained of each departure, the first ones of the scale.
    """

    title: str
    source: str
    studies: tuple[str, ...]
    factors: tuple[Factor, ...]
    settings: tuple[Setting, ...]
    metric: str = "accuracy"
    recipe: str = "imagenet"
    budget: str = "budget"
    seeds: int = FEWEST_SEEDS

    def __post_init__(self) -> None:
        for kind in ("studies", "factors", "settings"):
            if not getattr(self, kind):
                raise UserError(f"{kind}: empty: choose one or more")
        if len(self.settings) + 1 < FEWEST_SETTINGS:
            raise UserError(f"settings: choose at least {FEWEST_SETTINGS - 1} departures")
        if not isinstance(self.seeds, int) or self.seeds < FEWEST_SEEDS:
            raise UserError(f"seeds {self.seeds!r}: choose a whole number, at least {FEWEST_SEEDS}")
        self._check_distinct("factor", [factor.name for factor in self.factors])
        self._check_distinct("setting", [setting.name for setting in self.settings])
        seen: dict[tuple[str, ...], str] = {}
        for setting in self.settings:
            first = seen.setdefault(tuple(self.levels(setting).values()), setting.name)
            if first != setting.name:
                raise UserError(f"settings {first!r} and {setting.name!r} are the same")

    @staticmethod
    def _check_distinct(kind: str, names: list[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{kind} {name!r}: a duplicate: choose different names")

    def levels(self, setting: Setting | None) -> dict[str, str]:
        """Return the level of every factor, by its name; of the scale itself for None.

        Raises UserError for an unknown factor or level.
        """
        named = {} if setting is None else dict(setting.levels)
        place = "" if setting is None else f"setting {setting.name!r}: "
        for name, level in named.items():
            if name not in self.factor_names:
                raise UserError(f"{place}factor {name!r}: {choices(name, self.factor_names)}")
            valid = self.factor(name).levels
            if level not in valid:
                raise UserError(f"{place}{name} {level!r}: {choices(str(level), valid)}")
        return {factor.name: named.get(factor.name, factor.base) for factor in self.factors}

    @property
    def factor_names(self) -> list[str]:
        """The names of the factors."""
        return [factor.name for factor in self.factors]

    def factor(self, name: str) -> Factor:
        """Return the factor of that name."""
        return self.factors[self.factor_names.index(name)]

    def changes(self, setting: Setting) -> list[tuple[str, Change]]:
        """Return what a setting changes: fields of the scale or of its recipes, in order."""
        return [
            change
            for name, level in setting.levels.items()
            for change in self.factor(name).levels[level].items()
        ]

    def fields(self, setting: Setting) -> set[str]:
        """Return the fields of a resolved config in which a setting may differ from the scale."""
        return {field for name in setting.levels for field in self.factor(name).fields}

    def label(self, setting: Setting | None) -> str:
        """Return what a table calls a setting: its levels, or "the scale itself"."""
        if setting is None:
            return "the scale itself"
        levels = setting.levels.items()
        return ", ".join(f"{self.factor(name).label.lower()} {level}" for name, level in levels)
