"""A study that trains nothing: the cost of single layers."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sepablate.errors import UserError


@dataclass(frozen=True)
class LayerStudy:
    """The cost of standard and separable convolutions: counted, and timed without training.

    Args:
        title: of its section in the report.
        source: the paper and the section.
        kernels: sizes in pixels.
        widths: channels in and out.
        map_size: pixels.
        batch: images.
        repeats: timings of each layer.
        seconds: no further round of timings begins after this time.
        smaller: the fields that differ at a scale, by its name.
    """

    title: str
    source: str
    kernels: tuple[int, ...]
    widths: tuple[int, ...]
    map_size: int
    batch: int
    repeats: int
    seconds: float
    smaller: Mapping[str, Mapping[str, tuple[int, ...] | float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("kernels", "widths"):
            sizes = getattr(self, name)
            if not isinstance(sizes, tuple) or not sizes or sorted({*sizes}) != list(sizes):
                raise UserError(f"{name} {sizes!r}: choose a tuple of rising numbers")
        sizes = (*self.kernels, *self.widths, self.map_size, self.batch)
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise UserError(f"sizes {sizes!r}: choose whole numbers, at least 1")
        if not all(kernel % 2 for kernel in self.kernels):
            raise UserError(f"kernels {self.kernels!r}: choose odd sizes, which keep the map's")
        if self.repeats < 3 or not self.seconds > 0:
            chosen = f"repeats {self.repeats!r}, seconds {self.seconds!r}"
            raise UserError(f"{chosen}: choose at least 3 repeats and more than 0 seconds")
        for scale in self.smaller:
            self.at(scale)
        object.__setattr__(self, "smaller", MappingProxyType(dict(self.smaller)))

    def at(self, scale: str) -> "LayerStudy":
        """Return the study as it is run at a scale."""
        changes = self.smaller.get(scale, {})
        return dataclasses.replace(self, smaller={}, **changes)  # type: ignore[arg-type]
