"""A study: variants beside a baseline, and the claims that a paper makes about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sepablate.errors import UserError
from sepablate.study.variant import Variant

COMPARISONS = (">", "<", "=")
METRICS = ("accuracy", "map_100", "speed")


@dataclass(frozen=True)
class Claim:
    """A statement of the paper that runs can contradict: `left` compares to `right` on `metric`.

    metric: "accuracy" or "map_100" (final, test images, averaged weights), or "speed" (mean of that
    metric over the validation curve, raw weights: the higher, the sooner the network learnt).
    margin: the smallest difference of interest, declared before the runs, as a fraction.
    statement: what the paper says, in one line of ours; section: where it says so.
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


@dataclass(frozen=True)
class Study:
    """One comparison made by a paper: a baseline, the variants beside it, and the claims.

    factors: the fields of the resolved config that the question is about.
    confounds: the other fields that may differ between variants, each with its reason.
    against: the field of the resolved config against which the figure draws the final scores.
    """

    title: str
    source: str
    baseline: Variant
    variants: tuple[Variant, ...]
    claims: tuple[Claim, ...]
    factors: tuple[str, ...]
    confounds: Mapping[str, str] = field(default_factory=dict)
    against: str = ""

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

    def pairs_with(self, name: str) -> set[tuple[str, str]]:
        """What is compared to the variant of that name: by a claim, or as baseline and variant."""
        pairs = {(claim.left, claim.right) for claim in self.claims}
        pairs |= {(self.baseline.name, variant.name) for variant in self.variants}
        return {pair for pair in pairs if name in pair}

    @property
    def all_variants(self) -> tuple[Variant, ...]:
        """The baseline and the variants beside it, in the order of tables and legends."""
        return (self.baseline, *self.variants)
