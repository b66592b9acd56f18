"""A hook of MkDocs: the pages of the site are the repository's own files, at their own places."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PATTERNS = (
    "*.md",
    "LICENSE",
    "CITATION.cff",
    "docs/**/*.md",
    "docs/images/*.png",
    "docs/site.*",
    "docs/examples/*.py",
    "results/*.md",
    "notebooks/*.ipynb",
    "results/*/*.md",
    "results/**/*.png",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace what MkDocs found in docs/ by the files above; keep those of the theme."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    paths = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})
    pages = [
        File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
        for path in paths
    ]
    return Files([*kept, *pages])
