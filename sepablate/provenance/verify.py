"""Verify that the results follow from the runs, and reports from results; trains nothing."""

import contextlib
import functools
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

from sepablate.analysis import partial
from sepablate.analysis.load_runs import Config
from sepablate.errors import UserError, command
from sepablate.provenance import git_compare, self_check
from sepablate.provenance.differences import byte_differences
from sepablate.report import manifest, outputs, robustness
from sepablate.store import collected_runs, git, layout, run_archive, run_files
from sepablate.store.files import read_json, sha256
from sepablate.store.made_by import read_made_by, whole_scale
from sepablate.store.run_key import run_key
from sepablate.study import Study

P = ParamSpec("P")
MEASURED = layout.LAYER_MEASUREMENTS
# Entries of results/<scale>/ that belong to no report.
NOT_IN_REPORTS = (
    layout.RUNS,
    layout.MEASUREMENTS,
    layout.SETTINGS,
    layout.FETCHED,
    layout.SPEEDS,
    layout.TUNING,
    layout.MADE_BY,
)


@dataclass
class Findings:
    """What was checked, what is wrong, and what could not be checked: a line each."""

    checked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def run(
        self, path: Path, check: Callable[P, Iterator[str]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Add the lines of a check; a file that cannot be read or parsed gives one more.

        Args:
            path: named where the error does not name its file.
            check: yields a line for each thing that is wrong.
            args: of the check.
            kwargs: of the check.
        """
        try:
            self.wrong += check(*args, **kwargs)
        except (UserError, OSError) as error:
            line = str(error) if str(path) in str(error) else f"{path}: {error}"
            self.wrong.append(" ".join(line.split()))


def verify(scale: str) -> Findings:
    """Check results/<scale>/; UserError if there is nothing to check."""
    folder, findings = layout.scale_folder(scale), Findings()
    if not any(folder.glob("*.md")):
        raise UserError(f"{folder}/: no report; begin with {command('train --all', scale)}")
    collected_runs.trained_variants(scale)  # a damaged archive ends it
    made_by = read_made_by(scale)
    if made_by:
        findings.checked.append(str(made_by))
    findings.run(folder, _check_coverage, scale)
    for each in (scale, *collected_runs.trained_settings(scale)):
        runs = layout.scale_folder(each) / layout.RUNS
        findings.run(runs, _check_run_keys, each, recompute=whole_scale(scale) is None)
    compared: list[str] = []
    for path in layout.manifests(scale):
        findings.run(path, _check_digests, path)
        if made_by and manifest.read(path).report in made_by.reports:
            continue  # all that this code can check is that nothing has changed since
        findings.run(path, _check_report, path, scale, findings.checked, compared)
    findings.run(folder, _check_reproduction, scale, compared, findings)
    return findings


def _check_coverage(scale: str) -> Iterator[str]:
    """Yield the files that no manifest lists."""
    folder, manifests = layout.scale_folder(scale), layout.manifests(scale)
    covered = {folder / name for path in manifests for name in manifest.read(path).files}
    covered |= {*manifests, *layout.archives(scale)}
    for path in sorted(folder.rglob("*")):
        expected = path.is_file() and path.relative_to(folder).parts[0] not in NOT_IN_REPORTS
        expected = expected and not layout.is_backup(path)
        if expected and path not in covered:
            yield f"{path}: in no digests.json; {command('report STUDIES', scale)} writes one"


def _check_digests(path: Path) -> Iterator[str]:
    """Yield the files that are not those that a manifest lists."""
    for name, digest in manifest.read(path).files.items():
        file = path.parent / name
        if not file.is_file():
            yield f"{file}: missing, but {path} lists it"
        elif sha256(file) != digest:
            yield f"{file}: not the file that {path} lists"


def _check_run_keys(scale: str, recompute: bool) -> Iterator[str]:
    """Yield runs whose key is not the hash of their config, or not the one in their files.

    Args:
        scale: the name of the scale.
        recompute: whether to check the hash, which the code that made the results decides.
    """
    for variant in collected_runs.trained_variants(scale):
        path = collected_runs.variant_config(scale, variant)
        config = read_json(path, dict)
        for seed, key in _read_keys(config, path).items():
            if recompute and run_key(config, int(seed)) != key:
                yield f"{path}, seed {seed}: the hash is {run_key(config, int(seed))}, not {key}"
            rows = collected_runs.seed_rows(scale, variant, seed)
            others = {row.run_key for row in run_files.read_run(rows)} - {key}
            if others:
                yield f"{rows}: run key {', '.join(sorted(others))}, but config.json says {key}"
            measured = collected_runs.seed_measurements(scale, variant, seed)
            if measured.is_file() and read_json(measured, dict).get("run_key") != key:
                yield f"{measured}: not of the run {key}"


def _read_keys(config: Config, path: Path) -> dict[str, str]:
    """Return the run keys of a config by seed; UserError if it has none."""
    keys = config.get("run_keys")
    if not isinstance(keys, dict) or not all(seed.isdecimal() for seed in keys):
        raise UserError(f"{path}: no run_keys by seed")
    return keys


def _check_report(path: Path, scale: str, checked: list[str], compared: list[str]) -> Iterator[str]:
    """Yield what is wrong in a report and its studies.

    Args:
        path: the report's manifest.
        scale: the name of the scale.
        checked: gets a line on how the report was checked.
        compared: gets the report's studies, if it is on comparisons.
    """
    listing = manifest.read(path)
    report, studies = listing.report, listing.studies
    if listing.times_layers:
        checked.append(f"{report}: made again from the times in {layout.LAYER_MEASUREMENTS}")
        inputs = [layout.study_folder(scale, name) / MEASURED for name in studies]
        inputs.append(path.with_name(layout.DETECTORS))
        yield from _check_again(
            path, scale, inputs, lambda: outputs.layer_outputs(studies, scale, report)
        )
        return
    if listing.pools_settings:
        yield from _check_settings(path, scale, listing, checked)
        return
    compared += studies
    parts = {name: partial.tabulated_part(name, scale) for name in studies}
    variants = {variant.name for part in parts.values() for variant in part.all_variants}
    if not variants <= set(collected_runs.trained_variants(scale)):
        trains = command("train VARIANT", scale)
        checked.append(f"{report}: no runs on disk, so checked against itself ({trains} trains)")
        for name in studies:
            yield from self_check.check_study(name, scale)
        yield from self_check.check_report(report, studies, scale)
        return
    checked.append(f"{report}: made again from the runs of {_sources(scale, variants)}")
    for name, part in parts.items():
        if partial.trained_part(name, scale) != part:
            folder = layout.study_folder(scale, name)
            yield f"{folder}: leaves out variants that have runs; make it again"
    yield from _check_again(path, scale, (), lambda: _write_again(scale, report, parts))
    archive = path.with_name(layout.archive_name(report))
    yield from _check_archive(archive, {scale: variants}, listing.remedy(scale))


def _check_settings(
    path: Path, scale: str, listing: manifest.Manifest, checked: list[str]
) -> Iterator[str]:
    """Yield what is wrong in the report on a robustness study.

    It is made again from the runs of the settings, or without them from what was read from them.
    """
    (study,) = listing.studies
    effects = layout.study_folder(scale, study) / layout.EFFECTS
    settings = layout.scale_folder(scale) / layout.SETTINGS
    archive = path.with_name(layout.archive_name(listing.report))

    def from_runs() -> None:
        robustness.effects_outputs(study, scale)
        robustness.report_outputs(study, scale)

    runs = robustness.departures(robustness.read(study, scale), scale)
    needed = {scale: next(iter(runs.values()))} | runs
    if all(set(names) <= set(collected_runs.trained_variants(at)) for at, names in needed.items()):
        source = settings if settings.is_dir() else archive
        checked.append(f"{listing.report}: made again from the runs in {source}")
        yield from _check_again(path, scale, [settings], from_runs)
        yield from _check_archive(archive, runs, listing.remedy(scale))
    else:
        checked.append(f"{listing.report}: no runs on disk, so made again from {effects}")
        write = functools.partial(robustness.report_outputs, study, scale)
        yield from _check_again(path, scale, [effects], write)


def _check_archive(
    archive: Path, variants: Mapping[str, Iterable[str]], remedy: str
) -> Iterator[str]:
    """Yield a line if an archive has other runs of variants, which are given by scale."""
    if archive.is_file():
        expected = run_archive.renewed(variants, archive)
        if sha256(archive) != hashlib.sha256(expected).hexdigest():  # none if it is far too large
            yield f"{archive}: has other runs; {remedy} writes it again"


def _sources(scale: str, variants: Iterable[str]) -> str:
    """Return how many variants' runs are read, and where: on disk, or in which archives."""
    counts = Counter(collected_runs.source(scale, variant) for variant in sorted(variants))
    return " and ".join(f"{n} variant{'s' * (n > 1)} in {path}" for path, n in counts.items())


def _write_again(scale: str, report: str, parts: Mapping[str, Study]) -> None:
    for name, part in parts.items():
        outputs.study_outputs(name, scale, part)
    outputs.report_outputs([*parts], scale, report)


def _check_again(
    path: Path, scale: str, inputs: Sequence[Path], write: Callable[[], None]
) -> Iterator[str]:
    """Yield the files of a report that differ from those that the code here writes.

    Args:
        path: the report's manifest.
        scale: the name of the scale.
        inputs: what it needs in addition to the runs and what belongs to no report.
        write: writes the studies and the report, in a copy of the project.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        _link_project(copy, scale, inputs)
        with contextlib.chdir(copy):
            write()
        written = copy / path
        for name in sorted([path.name, *manifest.read(written).files]):
            expected = (written.parent / name).read_bytes()
            origin = "its times" if MEASURED in {each.name for each in inputs} else "its runs"
            yield from byte_differences(path.parent / name, expected, origin)


def _link_project(copy: Path, scale: str, further: Sequence[Path]) -> None:
    """Link the project except its results, the runs, and the files that no run can give again."""
    for path in Path().iterdir():
        if path.name != layout.RESULTS.name:
            (copy / path.name).symlink_to(path.resolve())
    folder = layout.scale_folder(scale)
    (copy / folder).mkdir(parents=True)
    names = (layout.RUNS, layout.MEASUREMENTS, layout.MADE_BY, layout.TUNING)
    inputs = [folder / name for name in names]
    inputs += [*layout.archives(scale), *further]
    for path in inputs:
        if path.exists():
            (copy / path).parent.mkdir(exist_ok=True)
            (copy / path).symlink_to(path.resolve())


def _check_reproduction(scale: str, studies: Sequence[str], findings: Findings) -> Iterator[str]:
    """Yield the numbers that are not those of git's HEAD; adds the others to the findings."""
    try:
        reproduction = git_compare.compare_with_head(scale, studies)
    except git.GitRefused as reason:
        yield f"{layout.scale_folder(scale)}: not compared with git's HEAD: {reason}"
        return
    if reproduction.not_compared:
        findings.unchecked.append(f"not compared with a commit: {reproduction.not_compared}")
        return
    findings.checked += [*reproduction.within, reproduction.summary]
    yield from reproduction.lost
