"""Whether a claim is declared after runs of both its sides were there: its numbers may be known."""

from collections.abc import Collection, Sequence
from pathlib import Path

from sepablate.store import collected_runs, layout
from sepablate.store.files import MANIFEST, read_json


def scales_with_runs(variants: Collection[str], scales: Sequence[str]) -> list[str]:
    """Return the scales at which each of the variants, by name, has a finished or collected run."""
    finished = _finished()
    return [
        scale
        for scale in scales
        if {*variants} <= {*collected_runs.trained_variants(scale), *finished.get(scale, ())}
    ]


def words(scales: Sequence[str]) -> str:
    """Return when a claim is declared: "before training", or after which runs."""
    if not scales:
        return "declared before training"
    plural = "s" if len(scales) > 1 else ""
    return f"declared after runs of both networks were there, at scale{plural} {_listed(scales)}"


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _finished() -> dict[str, set[str]]:
    """Return the variants that have a finished run, collected or not, by scale."""
    found: dict[str, set[str]] = {}
    for path in layout.RUN_FOLDERS.glob(f"*/{MANIFEST}"):
        config: Path = path.parent / layout.RUN_CONFIG
        if config.is_file():
            content = read_json(config, dict)
            found.setdefault(str(content.get("scale")), set()).add(str(content.get("variant")))
    return found
