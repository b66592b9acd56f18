"""A study: a baseline, variants of it, and the claims that a paper makes about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sepablate.errors import UserError
from sepablate.study.variant import TASK_SCORES, Variant

COMPARISONS = (">", "<", "=")
SPEED = "speed"
PER_COST = "per_cost"
METRICS = (*TASK_SCORES.values(), SPEED, PER_COST)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper that runs can contradict: `left` compares to `right` on `metric`.

    Args:
        left: the name of a variant.
        comparison: ">", "<" or "=".
        right: the name of another variant.
        metric: "accuracy", "map_100" or "map" (final, test images, averaged weights), "speed" (mean
            of that metric over the validation curve, raw weights: higher means faster learning) or
            "per_cost" (the final metric times the baseline's multiply-adds over the variant's).
        margin: the smallest difference of interest, declared before the runs, as a fraction.
        section: of the paper.
        statement: of the paper, in one line of ours.
    """

    left: str
    comparison: str
    right: str
    metric: str
    margin: float
    section: str
    statement: str

    def __post_init__(self) -> None:
        if self.comparison not in COMPARISONS:
            raise UserError(
                f"claim comparison {self.comparison!r}: choose {', '.join(COMPARISONS)}"
            )
        if self.metric not in METRICS:
            raise UserError(f"claim metric {self.metric!r}: choose {', '.join(METRICS)}")
        if not 0 < self.margin < 1:
            raise UserError(f"claim margin {self.margin!r}: choose a fraction between 0 and 1")


def compared_variants(claims: Iterable[Claim]) -> list[str]:
    """Return the names of the variants that claims compare, each once, in the claims' order."""
    return list(dict.fromkeys(side for claim in claims for side in (claim.left, claim.right)))


@dataclass(frozen=True)
class Study:
    """One comparison made by a paper: a baseline, variants of it, and the claims.

    Args:
        title: of its section in the report.
        source: the paper and the section.
        baseline: the variant that the others are compared to.
        variants: the others.
        claims: of the paper, on two variants each.
        factors: the fields of the resolved config that the question is about.
        confounds: the other fields that may differ between variants, each with its reason.
        against: the field of the resolved config against which the figure draws the final scores.
        figures: of the paper, whose like is drawn: by number, the variants whose curves it shows.
    """

    title: str
    source: str
    baseline: Variant
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    factors: tuple[str, ...]
    confounds: Mapping[str, str] = field(default_factory=dict)
    against: str = ""
    figures: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.all_variants]
        if len(set(names)) < len(names):
            raise UserError(f"study {self.title!r}: duplicate variant among {', '.join(names)}")
        for claim in self.claims:
            for name in (claim.left, claim.right):
                if name not in names:
                    raise UserError(
                        f"study {self.title!r}: claim on {name!r}: choose {', '.join(names)}"
                    )
        for number, shown in self.figures.items():
            for name in shown:
                if name not in names:
                    place = f"study {self.title!r}: figure {number} of {name!r}"
                    raise UserError(f"{place}: choose {', '.join(names)}")

    def pairs_with(self, name: str) -> set[tuple[str, str]]:
        """Return the pairs with that variant which a claim, or the baseline, compares."""
        pairs = {(claim.left, claim.right) for claim in self.claims}
        pairs |= {(self.baseline.name, variant.name) for variant in self.variants}
        return {pair for pair in pairs if name in pair}

    @property
    def all_variants(self) -> tuple[Variant, ...]:
        """The baseline and the other variants, in the order of tables and legends."""
        return (self.baseline, *self.variants)
