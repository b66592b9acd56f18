"""What a crash, a full disk or a failing one leaves behind: found, and repaired where that is safe.

Repairing deletes no result, but damaged copies in DVC's cache. A broken dvc.lock is put aside; `dvc
repro` makes a new one and takes every finished run up by its key, so that nothing is trained again.
"""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from sepablate import data
from sepablate.data import download
from sepablate.errors import UserError
from sepablate.store.files import corrupt_files, verify_manifest

LOCKS = (Path("dvc.lock"), Path("experiments/dvc.lock"))
CACHE = Path(".dvc/cache/files/md5")
CACHED = re.compile(r"([0-9a-f]{30})(\.dir)?")  # the rest of the MD5, after the folder's two digits
RWLOCK = Path(".dvc/tmp/rwlock")  # DVC's note of who reads and writes what
REQUIREMENTS = Path("requirements.lock")
RUNS = Path(".sepablate/runs")
HINT = "; `sepablate doctor --repair`"


@dataclass(frozen=True)
class Finding:
    """One line on what is wrong, and whether it no longer is."""

    line: str
    repaired: bool = False


def examine(repair: bool = False) -> list[Finding]:
    """All that is wrong in the current folder; with `repair`, less of it afterwards."""
    checks = (
        _locks(repair),
        _data(),
        _runs(),
        _cache(repair),
        _leftovers(repair),
        _versions(),
    )
    return [finding for check in checks for finding in check]


def _locks(repair: bool) -> Iterator[Finding]:
    for path in LOCKS:
        if path.exists() and not _is_lock(path):
            aside = path.with_name(f"{path.name}.broken")
            if repair:
                path.replace(aside)
            said = f"kept as {aside}; `dvc repro` makes a new one and trains nothing"
            yield Finding(f"{path}: not whole" + (f", {said}" if repair else HINT), repair)
    if RWLOCK.exists() and not _is_json(RWLOCK):
        if repair:
            RWLOCK.unlink()
        yield Finding(f"{RWLOCK}: not whole" + (", deleted" if repair else HINT), repair)


def _is_lock(path: Path) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_text()))
    except Exception:  # whatever DVC's schema and YAML raise
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def _data() -> Iterator[Finding]:
    """Files that are there and wrong; one that is missing will be fetched."""
    for module in data.DATASETS.values():
        if not hasattr(module, "SOURCE"):
            continue  # made of another one, or of the user's own images
        for folder in data.FOLDER.glob("*/"):
            for name in module.SOURCE.expected:
                try:
                    if (folder / name).exists():
                        download.verified(module.SOURCE, folder, name)
                except UserError as error:
                    yield Finding(str(error))


def _runs() -> Iterator[Finding]:
    folders = [*RUNS.glob("*/"), *Path("results").glob("*/runs/*/")]
    for folder in sorted(folders):
        for name in corrupt_files(folder):
            yield Finding(f"{folder / name}: damaged; `dvc repro` or `sepablate train` renews it")


def _cache(repair: bool) -> Iterator[Finding]:
    """Files in DVC's cache that are not what their names say: DVC does not look again."""
    for path in sorted(CACHE.glob("??/*")):
        name = CACHED.fullmatch(path.name)
        if name is None:
            continue  # DVC's own temporary file
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != path.parent.name + name[1]:
            if repair:
                path.unlink()
            said = ", deleted; `dvc repro` makes it again where it is needed" if repair else HINT
            yield Finding(f"{path}: damaged in DVC's cache{said}", repair)


def _leftovers(repair: bool) -> Iterator[Finding]:
    """Temporary files of processes that are gone, and checkpoints of finished runs."""
    roots = (RUNS.parent, Path("results"), data.FOLDER)
    found = [path for root in roots for path in root.rglob(".*.tmp")]
    found += [*Path().glob("mlflow.db.*.tmp")]
    found = [path for path in found if not Path("/proc", path.name.split(".")[-2]).exists()]
    found += [path for path in RUNS.glob("*/checkpoint-*.pt") if verify_manifest(path.parent)]
    for path in sorted(found):
        if repair:
            path.unlink(missing_ok=True)
        yield Finding(f"{path}: left behind" + (", deleted" if repair else HINT), repair)


def _versions() -> Iterator[Finding]:
    """Packages that are not of the locked version."""
    text = REQUIREMENTS.read_text() if REQUIREMENTS.exists() else ""
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(name, set()).add(version)
    for name, versions in locked.items():
        try:
            found = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or an extra
        if found not in versions:
            expected = " or ".join(sorted(versions))
            yield Finding(f"{name} {found}: the lock has {expected}; `make env` installs it")
