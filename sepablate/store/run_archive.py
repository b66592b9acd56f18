"""Finished runs as one file: those of a report, in git, or on their way to another machine.

It is a tar.gz of results/<scale>/runs/ and measured/: what the analysis reads, without checkpoints
and weights. Each variant's manifest vouches for its files.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from sepablate.errors import UserError, command
from sepablate.store import collected_runs, layout
from sepablate.store.archive_files import pack, read, run_folders, unpacked
from sepablate.store.files import (
    MANIFEST,
    is_regular,
    manifest_text,
    verify_manifest,
    write_atomically,
)

LASTING = ("run_key", "hardware")  # of what was measured; the rest is another each time


def export_runs(scale: str, target: Path) -> dict[str, list[str]]:
    """Write the collected runs of a scale and of its settings to a file.

    Returns the variants by scale and setting. Raises UserError if there are none, or if files have
    changed since they were collected.
    """
    scales = [scale, *collected_runs.trained_settings(scale)]
    variants = {at: names for at in scales if (names := collected_runs.trained_variants(at))}
    if not variants:
        raise UserError(
            f"{layout.scale_folder(scale) / layout.RUNS}: no finished variant to export"
        )
    for at, names in variants.items():
        for name in names:
            folder = collected_runs.variant_runs(at, name)
            if not verify_manifest(folder):
                raise UserError(f"{folder}: damaged; {command(f'train {name}', at)} renews it")
    write_atomically(target, pack(_collect(variants)))
    return variants


def import_runs(source: Path) -> dict[str, list[str]]:
    """Put the runs in an archive into results/; return the variants by scale and setting.

    All is unpacked and verified before anything is put in its place. Raises UserError for another
    file, for a damaged one, and for a variant that has other runs here already.
    """
    root = unpacked(source)
    imported: dict[str, list[str]] = {}
    for folder in run_folders(root):
        scale, _, variant = layout.run_place(folder.relative_to(root))
        here = layout.variant_runs(scale, variant)
        if here.exists() and _manifest(here) != _manifest(folder):
            raise UserError(f"{here}: has other runs; move it away before you import these")
        imported.setdefault(scale, []).append(variant)
    for scale, variants in imported.items():
        for variant in variants:
            for kind in (layout.RUNS, layout.MEASUREMENTS):
                target = layout.scale_folder(scale) / kind / variant
                _copy(root / target.relative_to(layout.RESULTS), target)
    return imported


def renewed(variants: Mapping[str, Iterable[str]], path: Path) -> bytes:
    """Return the content of an archive of variants: as it is, if it has these runs already.

    A training that gives the same runs takes another time; that makes no other archive.

    Args:
        variants: whose runs are on disk, or in an archive; by scale, or setting of one.
        path: the archive, if there is one.
    """
    files = _collect(variants)
    try:
        if _lasting(read(path)) == _lasting(files):
            return path.read_bytes()
    except UserError:  # none, or damaged
        pass
    return pack(files)


def _collect(variants: Mapping[str, Iterable[str]]) -> dict[str, bytes]:
    """Return the files of variants, which are given by scale, by their names in an archive."""
    files: dict[str, bytes] = {}
    for scale, variant in ((scale, name) for scale, names in variants.items() for name in names):
        folder = collected_runs.variant_runs(scale, variant)
        names, runs = _wanted(folder), layout.variant_runs(scale, variant).as_posix()
        files |= {f"{runs}/{name}": (folder / name).read_bytes() for name in names}
        files[f"{runs}/{MANIFEST}"] = manifest_text(folder, names).encode()
        measured = collected_runs.variant_measurements(scale, variant)
        target = layout.variant_measurements(scale, variant).as_posix()
        found = (path for path in measured.glob("*.json") if is_regular(path))
        files |= {f"{target}/{path.name}": path.read_bytes() for path in found}
    return files


def _wanted(folder: Path) -> list[str]:
    """Return the names of a variant's files that an archive has, without the manifest."""
    return [
        path.name
        for path in sorted(folder.glob("*"))
        if path.name != MANIFEST
        and path.suffix != layout.WEIGHTS_ENDING
        and not layout.is_backup(path)
    ]


def _lasting(files: Mapping[str, bytes]) -> dict[str, object]:
    """Return what an equal training gives again: the runs, and on which hardware."""
    kept: dict[str, object] = {}
    for name, content in files.items():
        kept[name] = content
        if f"/{layout.MEASUREMENTS}/" in name:
            with contextlib.suppress(ValueError, AttributeError, RecursionError):  # damaged
                measured = json.loads(content)
                kept[name] = {key: measured.get(key) for key in LASTING}
    return kept


def _manifest(folder: Path) -> str:
    """Return the manifest that a folder has in an archive."""
    return manifest_text(folder, _wanted(folder)) if (folder / MANIFEST).is_file() else ""


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's files, the manifest last, so that a part is not taken for the whole."""
    paths = sorted(source.glob("*"), key=lambda path: (path.name == MANIFEST, path.name))
    for path in paths:
        write_atomically(target / path.name, path.read_bytes())
