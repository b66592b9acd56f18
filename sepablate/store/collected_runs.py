"""Where a variant's collected runs are read: in results/<scale>/, or else in a report's archive.

A scale may be a setting, `<scale>.<setting>`. Runs on disk win over archives. The functions of
`layout` of the same names say where the pipeline writes.
"""

from pathlib import Path

from sepablate.store import layout
from sepablate.store.archive_files import unpacked


def trained_variants(scale: str) -> list[str]:
    """Return the variants that have collected runs with a config.

    Raises UserError for a damaged archive.
    """
    roots = [layout.scale_folder(scale)]
    roots += [_in_archive(path, scale) for path in layout.archives(scale)]
    configs = (path for root in roots for path in root.glob(f"{layout.RUNS}/*/config.json"))
    return sorted({path.parent.name for path in configs})


def trained_settings(scale: str) -> list[str]:
    """Return the settings of a scale, `<scale>.<setting>`, that have collected runs.

    Raises UserError for a damaged archive.
    """
    roots = [layout.scale_folder(scale)]
    roots += [_in_archive(path, scale) for path in layout.archives(scale)]
    found = (path for root in roots for path in root.glob(f"{layout.SETTINGS}/*"))
    names = sorted({f"{scale}.{path.name}" for path in found})
    return [name for name in names if trained_variants(name)]


def collected_seeds(scale: str, variant: str) -> list[str]:
    """Return the seeds of a variant's collected runs."""
    files = sorted(variant_runs(scale, variant).glob("seed-*.csv"))
    return [path.stem.removeprefix("seed-") for path in files]


def source(scale: str, variant: str, kind: str = layout.RUNS) -> Path:
    """Return the folder of a scale's runs, or the archive that has a variant's runs instead.

    Args:
        scale: the name of the scale.
        variant: its name.
        kind: "runs" or "measured", which `dvc pull` does not bring.

    Raises UserError for a damaged archive.
    """
    folder = layout.scale_folder(scale) / kind
    if not (folder / variant).is_dir():
        for archive in layout.archives(scale):
            if (_in_archive(archive, scale) / kind / variant).is_dir():
                return archive
    return folder


def variant_runs(scale: str, variant: str) -> Path:
    """Return the folder of a variant's runs."""
    return _located(layout.variant_runs(scale, variant))


def variant_measurements(scale: str, variant: str) -> Path:
    """Return the folder of what was measured while a variant trained."""
    return _located(layout.variant_measurements(scale, variant))


def variant_config(scale: str, variant: str) -> Path:
    """Return the file of the resolved config that a variant's runs share."""
    return _located(layout.variant_config(scale, variant))


def seed_rows(scale: str, variant: str, seed: int | str) -> Path:
    """Return the CSV file of a run."""
    return _located(layout.seed_rows(scale, variant, seed))


def seed_scores(scale: str, variant: str, seed: int | str, task: str) -> Path:
    """Return the file of a run's scores, from which its spread over test images follows."""
    return _located(layout.seed_scores(scale, variant, seed, task))


def seed_examples(scale: str, variant: str, seed: int | str) -> Path:
    """Return the file of some test images with the boxes that a run predicts."""
    return _located(layout.seed_examples(scale, variant, seed))


def seed_measurements(scale: str, variant: str, seed: int | str) -> Path:
    """Return the JSON file of a run's times, memory, energy and hardware."""
    return _located(layout.seed_measurements(scale, variant, seed))


def _located(path: Path) -> Path:
    """Return a path in a variant's folder of results/, or its like in an unpacked archive."""
    below = path.relative_to(layout.RESULTS)
    scale, kind, variant = layout.run_place(below)
    found = source(scale, variant, kind)
    return unpacked(found) / below if found.is_file() else path


def _in_archive(archive: Path, scale: str) -> Path:
    """Return the folder of a scale, or of a setting, in an unpacked archive."""
    return unpacked(archive) / layout.scale_folder(scale).relative_to(layout.RESULTS)
