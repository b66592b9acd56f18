"""The files of a project, which `sepablate init` copies, and setup.py into the wheel."""

from pathlib import Path

PATTERNS = (
    "params.yaml",
    "params.schema.json",
    "dvc.yaml",
    "datasets/README.md",
    "experiments/*.py",
    "experiments/dvc.yaml",
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots/*.json",
    ".dvcignore",
    ".gitignore",
)
IN_WHEEL = "template"  # the folder of the installed package that has them


def project_files(root: Path) -> list[Path]:
    """Return the paths of a project's files, relative to its root folder."""
    found = (path for pattern in PATTERNS for path in sorted(root.glob(pattern)))
    return [path.relative_to(root) for path in found if path.name[0] != "#"]
