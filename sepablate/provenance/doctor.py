"""Find what a crash, a full or a failing disk left, and repair it where that is safe.

A repair deletes no result, only damaged copies in DVC's cache. A broken dvc.lock is renamed; `dvc
repro` makes a new one and finds every finished run by its key, so that nothing is trained again.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from sepablate import data, study
from sepablate.data import download
from sepablate.errors import UserError, command, explain
from sepablate.provenance.finding import HINT, Finding
from sepablate.provenance.tracking_damage import tracking_damage
from sepablate.report import manifest
from sepablate.store import archive_files, datasets, layout
from sepablate.store.files import (
    NO_LOCKS,
    corrupt_files,
    is_regular,
    read_json,
    read_text,
    verify_manifest,
)
from sepablate.store.params_file import read_params

LOCKS = (Path("dvc.lock"), Path("experiments/dvc.lock"))
CACHE = Path(".dvc/cache/files/md5")
CACHED = re.compile(r"([0-9a-f]{30})(\.dir)?")  # the rest of the MD5, after the folder's two digits
RWLOCK = Path(".dvc/tmp/rwlock")  # DVC's note of who reads and writes what
REQUIREMENTS = Path("requirements.lock")


def examine(repair: bool = False) -> list[Finding]:
    """Return everything that is wrong in the current folder, after the repairs if asked for."""
    checks = {
        "params.yaml": _settings(),
        "locks": _disk(),
        "experiments": _studies(),
        **{str(path): _lock(path, repair) for path in LOCKS},
        str(RWLOCK): _rwlock(repair),
        "data": _data(),
        "runs": _runs(),
        "results": _results(),
        "MLflow": tracking_damage(repair),
        "DVC's cache": _cache(repair),
        "leftovers": _leftovers(repair),
        "versions": _versions(),
    }
    return [finding for name, check in checks.items() for finding in _completed(name, check)]


def _completed(name: str, check: Iterator[Finding]) -> Iterator[Finding]:
    """Yield a check's findings; where it cannot go on, the reason."""
    try:
        yield from check
    except (UserError, OSError) as error:
        yield Finding(_words(error, name))
    except (ValueError, RecursionError) as error:
        yield Finding(f"{name}: cannot be examined: {' '.join(str(error).split())}")


def _words(error: UserError | OSError, place: str | Path) -> str:
    explained = str(error) if isinstance(error, UserError) else explain(error)
    return explained or f"{place}: {error}"


def _settings() -> Iterator[Finding]:
    if layout.PARAMS.exists():
        read_params(layout.PARAMS)
    yield from ()


def _disk() -> Iterator[Finding]:
    """Yield a disk without one of the two kinds of locks; nothing is written to find out."""
    if not layout.PARAMS.is_file():
        return
    with layout.PARAMS.open() as file:
        for lock in (fcntl.flock, fcntl.lockf):  # of runs; of SQLite, which DVC and MLflow use
            try:
                lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    reason = f"this file system has no locks ({error.strerror})"
                    needed = "which training, DVC and MLflow need"
                    yield Finding(f"{Path.cwd()}: {reason}, {needed}: work on another disk")
                    return


def _studies() -> Iterator[Finding]:
    study.variants()
    yield from ()


def _lock(path: Path, repair: bool) -> Iterator[Finding]:
    if is_regular(path) and not _is_lock(path):
        renamed = path.with_name(f"{path.name}.broken")
        if repair:
            path.replace(renamed)
        done = f", kept as {renamed}; `dvc repro` makes a new one and trains nothing"
        yield Finding(f"{path}: corrupt{done if repair else HINT}", repair)


def _rwlock(repair: bool) -> Iterator[Finding]:
    if is_regular(RWLOCK) and not _is_json(RWLOCK):
        if repair:
            RWLOCK.unlink()
        yield Finding(f"{RWLOCK}: corrupt" + (", deleted" if repair else HINT), repair)


def _is_lock(path: Path) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(read_text(path)))
    except (yaml.YAMLError, UserError, Invalid, RecursionError):
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        json.loads(read_text(path))
    except (ValueError, RecursionError):
        return False
    return True


def _data() -> Iterator[Finding]:
    """Yield data files that are wrong; one that is missing will be fetched."""
    for module in data.DATASETS.values():
        if not hasattr(module, "SOURCE"):
            continue  # made of another one, or of the user's own images
        for folder in layout.DATA.glob("*/"):
            for name in module.SOURCE.expected:
                try:
                    if (folder / name).exists():
                        data.refuse_large(folder / name, data.LARGEST_DOWNLOAD)
                        download.verified(module.SOURCE, folder, name)
                except (UserError, OSError) as error:
                    yield Finding(_words(error, folder / name))
    for name in datasets.registered_names():
        try:
            data.check_registered(name)
        except UserError as error:
            yield Finding(str(error))


def _runs() -> Iterator[Finding]:
    below = (layout.RUNS, f"{layout.SETTINGS}/*/{layout.RUNS}")
    folders = [folder for name in below for folder in layout.RESULTS.glob(f"*/{name}/*/")]
    for folder in sorted([*layout.RUN_FOLDERS.glob("*/"), *folders]):
        for name in corrupt_files(folder):
            yield Finding(f"{folder / name}: damaged; {_renewal(folder)} renews it")


def _renewal(folder: Path) -> str:
    """Return the command that trains the damaged runs of a folder again.

    Those of a setting are trained with all others of its study.
    """
    if folder.parent != layout.RUN_FOLDERS:
        scale, _, variant = layout.run_place(folder.relative_to(layout.RESULTS))
    else:
        try:
            config = read_json(folder / layout.RUN_CONFIG, dict)
            scale, variant = str(config["scale"]), str(config["variant"])
        except (UserError, OSError, KeyError):
            return "`sepablate train VARIANT`"
    base, _, setting = scale.partition(".")
    pooling = study.robustness_names() if setting else []
    return command(f"train {pooling[0] if pooling else variant}", base)


def _results() -> Iterator[Finding]:
    """Yield archives of runs that are damaged, and the files of reports that are gone."""
    scales = sorted(folder.name for folder in layout.RESULTS.glob("*/"))
    for archive in (path for scale in scales for path in layout.archives(scale)):
        try:
            archive_files.unpacked(archive)
        except UserError as error:
            yield Finding(str(error))
    for at, path in ((scale, path) for scale in scales for path in layout.manifests(scale)):
        try:
            content = manifest.read(path)
        except UserError as error:
            yield Finding(f"{error}; {command('report STUDIES', at)} writes it")
            continue
        for name in content.files:
            if not (path.parent / name).is_file():
                folder = Path(name).parent.name
                remedy = content.remedy(at, folder or None)
                yield Finding(f"{path.parent / name}: missing, but {path} lists it; {remedy}")


def _cache(repair: bool) -> Iterator[Finding]:
    """Yield files in DVC's cache whose content does not have its name; DVC does not check again."""
    for path in sorted(CACHE.glob("??/*")):
        name = CACHED.fullmatch(path.name)
        if name is None:
            continue  # DVC's own temporary file
        try:
            is_regular(path)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "md5").hexdigest()
        except (UserError, OSError) as error:
            yield Finding(_words(error, path))
            continue
        if digest != path.parent.name + name[1]:
            if repair:
                path.unlink()
            done = ", deleted; `dvc repro` makes it again where it is needed"
            yield Finding(f"{path}: damaged in DVC's cache{done if repair else HINT}", repair)


def _leftovers(repair: bool) -> Iterator[Finding]:
    """Yield temporary files of processes that have ended, and checkpoints of finished runs."""
    roots = (layout.STATE, layout.RESULTS, layout.DATA)
    paths = [path for root in roots for path in root.rglob(".*.tmp")]
    paths = [path for path in paths if not Path("/proc", path.name.split(".")[-2]).exists()]
    checkpoints = layout.RUN_FOLDERS.glob("*/checkpoint-*.pt")
    paths += [path for path in checkpoints if verify_manifest(path.parent)]
    for path in sorted(paths):
        if repair:
            path.unlink(missing_ok=True)
        yield Finding(f"{path}: not needed any more" + (", deleted" if repair else HINT), repair)


def _versions() -> Iterator[Finding]:
    """Yield packages that do not have the locked version."""
    text = read_text(REQUIREMENTS) if is_regular(REQUIREMENTS) else ""
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(name, set()).add(version)
    for name, versions in locked.items():
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or an extra
        if installed not in versions:
            expected = " or ".join(sorted(versions))
            yield Finding(f"{name} {installed}: the lock has {expected}; `make env` installs it")
