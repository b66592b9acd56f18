"""COSTS.md: the layer studies, counted and timed, and the costs of detectors."""

from collections.abc import Sequence

from sepablate import study
from sepablate.analysis import detector_costs, layer_costs
from sepablate.report.markdown import study_head
from sepablate.store import layout
from sepablate.store.files import read_text


def write(studies: Sequence[str], scale: str) -> str:
    """Return the report on layer studies at `scale`, from their tables, times and counts."""
    parts = [f"# Cost of layers, scale `{scale}`\n"]
    for name in studies:
        declared = study.load_layers(name)
        parts += [
            study_head(name, declared.title, declared.source),
            layer_costs.sentences(layer_costs.read(scale, name)),
            read_text(layout.study_folder(scale, name) / layout.TABLE_MARKDOWN),
        ]
    detectors = layout.scale_folder(scale) / layout.DETECTORS
    if detectors.is_file():  # older code counted none
        parts.append(detector_costs.to_markdown(detector_costs.read(detectors)))
    return "\n".join(parts)
