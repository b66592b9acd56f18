"""A scale's finished runs as one file, to carry them from the machine that trained to another one.

It is a tar.gz of results/<scale>/runs/ and measured/, the same bytes each time: what the analysis
reads, without checkpoints. Each variant's manifest vouches for its files.
"""

import gzip
import io
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from sepablate.errors import UserError
from sepablate.store import layout
from sepablate.store.files import MANIFEST, read_json, verify_manifest, write_atomically

LARGEST = 1 << 28  # bytes of a file in an archive


def export_runs(scale: str, target: Path) -> list[str]:
    """Write the collected runs of a scale to a file; return the variants.

    Raises UserError if there are none, or if files have changed since they were collected.
    """
    variants = layout.trained_variants(scale)
    if not variants:
        raise UserError(
            f"{layout.scale_folder(scale) / layout.RUNS}: no finished variant to export"
        )
    paths: list[Path] = []
    for variant in variants:
        folder = layout.variant_runs(scale, variant)
        if not verify_manifest(folder):
            raise UserError(f"{folder}: damaged; `sepablate train {variant}` renews it")
        paths += [folder / name for name in [MANIFEST, *read_json(folder / MANIFEST, dict)]]
        paths += sorted(layout.variant_measurements(scale, variant).glob("*.json"))
    content = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=content, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(paths):
            member = tarfile.TarInfo(path.as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)
    write_atomically(target, content.getvalue())
    return variants


def import_runs(source: Path) -> dict[str, list[str]]:
    """Unpack what `export_runs` wrote; return the variants by scale.

    All is unpacked and verified before anything is put in its place. Raises UserError for another
    file, for a damaged one, and for a variant that has other runs here already.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        _unpack(source, root)
        found = [path.parent for path in sorted(root.glob(f"*/{layout.RUNS}/*/{MANIFEST}"))]
        if not found:
            raise UserError(f"{source}: has no runs; choose a file of `sepablate export-runs`")
        imported: dict[str, list[str]] = {}
        for folder in found:
            scale, variant = folder.parts[-3], folder.name
            if not verify_manifest(folder):
                raise UserError(f"{source}: {scale}/{variant}: files are not those of its manifest")
            here = layout.variant_runs(scale, variant)
            if here.exists() and _manifest(here) != _manifest(folder):
                raise UserError(f"{here}: has other runs; move it away before you import these")
            imported.setdefault(scale, []).append(variant)
        for scale, variants in imported.items():
            for variant in variants:
                for kind in (layout.RUNS, layout.MEASUREMENTS):
                    _copy(
                        root / scale / kind / variant, layout.scale_folder(scale) / kind / variant
                    )
    return imported


def _manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    return path.read_bytes() if path.is_file() else b""


def _unpack(source: Path, root: Path) -> None:
    """Write the archive's files below `root`, which stands for results/."""
    try:
        with tarfile.open(source, "r:gz") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.isdir():
                    continue
                if not member.isreg() or member.size > LARGEST or not _is_run_file(parts):
                    raise UserError(f"{source}: {member.name[:100]!r} is no file of a run")
                file = archive.extractfile(member)
                assert file is not None, "a regular file has content"
                path = root.joinpath(*parts[1:])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read())
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{source}: not an archive of runs: {error}") from None


def _is_run_file(parts: tuple[str, ...]) -> bool:
    """Return whether these are results, a scale, runs or measured, a variant and a file's name."""
    return (
        len(parts) == 5
        and parts[0] == layout.RESULTS.name
        and parts[2] in (layout.RUNS, layout.MEASUREMENTS)
        and not any(part.startswith(".") for part in parts)
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's files, the manifest last, so that a part is not taken for the whole."""
    paths = sorted(source.glob("*"), key=lambda path: (path.name == MANIFEST, path.name))
    for path in paths:
        write_atomically(target / path.name, path.read_bytes())
