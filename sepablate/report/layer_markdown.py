"""COSTS.md: the layer studies, counted and timed."""

from collections.abc import Sequence

from sepablate import study
from sepablate.analysis import layer_costs
from sepablate.report.markdown import study_head
from sepablate.store import layout
from sepablate.store.files import read_text


def write(studies: Sequence[str], scale: str) -> str:
    """Return the report on layer studies at `scale`, from their tables and times."""
    parts = [f"# Cost of layers, scale `{scale}`\n"]
    for name in studies:
        declared = study.load_layers(name)
        parts += [
            study_head(name, declared.title, declared.source),
            layer_costs.sentences(layer_costs.read(scale, name)),
            read_text(layout.study_folder(scale, name) / layout.TABLE_MARKDOWN),
        ]
    return "\n".join(parts)
