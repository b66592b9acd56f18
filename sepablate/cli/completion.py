"""Names that the shell completes after `sepablate --install-completion`: of the current folder.

Nothing is executed for it: studies go by their files, variants by the pipelines that train them.
"""

from pathlib import Path
from typing import Any

from sepablate import study
from sepablate.store import layout


def studies(incomplete: str) -> list[str]:
    """Return the studies whose names begin so."""
    return _begin(incomplete, [path.stem for path in study.FOLDER.glob("[!_.#]*.py")])


def variants(incomplete: str) -> list[str]:
    """Return the variants whose names begin so."""
    trained: list[str] = []
    for path in map(Path, layout.PIPELINES):
        trained += _mapping(path, "stages", "train", "foreach")
    return _begin(incomplete, trained)


def scales(incomplete: str) -> list[str]:
    """Return the scales whose names begin so."""
    return _begin(incomplete, _mapping(layout.PARAMS, "scales"))


def _mapping(path: Path, *keys: str) -> dict[str, Any]:
    """Return a mapping inside of a YAML file; an empty one where there is none."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
        for key in keys:
            content = content[key]
        return dict(content)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return {}  # a shell that completes has no place for errors


def _begin(incomplete: str, names: list[str] | dict[str, Any]) -> list[str]:
    return sorted(name for name in map(str, names) if name.startswith(incomplete))
