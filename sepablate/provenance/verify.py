"""Whether the results follow from the runs, and the report from the results; trains nothing."""

import contextlib
import csv
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepablate.analysis import layer_costs, partial
from sepablate.analysis.load_runs import RESULTS
from sepablate.errors import UserError
from sepablate.provenance import differences, git_compare, self_check
from sepablate.report import manifest, outputs
from sepablate.store.run_key import run_key
from sepablate.study import AnyStudy

NOT_COMMITTED = ("runs", "measured")
OF_NO_REPORT = "speed.csv"  # of `sepablate cost --save`


@dataclass
class Findings:
    """What was checked and found, and a line for each thing that disagrees."""

    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def look(self, place: object, check: Callable[..., Iterator[str]], *arguments: Any) -> None:
        """Take up the lines of a check; a file that cannot be read is one more."""
        try:
            self.wrong += check(*arguments)
        except (ValueError, KeyError, TypeError, OSError) as error:
            said = str(error) if str(place) in str(error) else f"{place}: {error}"
            self.wrong.append(" ".join(said.split()))


def verify(scale: str) -> Findings:
    """Check results/<scale>/; UserError if there is nothing to check."""
    folder, found = RESULTS / scale, Findings()
    if not any(folder.glob("*.md")):
        raise UserError(f"{folder}/: no report; run `dvc repro`")
    found.look(folder, _covered, folder)
    found.look(folder / "runs", _run_keys, folder)
    studies: list[str] = []
    for path in sorted(folder.glob("*digests.json")):
        found.look(path, _digests, path)
        found.look(path, _report, path, scale, found.said, studies)
    found.look(folder, _reproduced, scale, studies, found.said)
    return found


def _covered(folder: Path) -> Iterator[str]:
    """Files that no report vouches for."""
    listings = sorted(folder.glob("*digests.json"))
    covered = {folder / name for path in listings for name in _read(path)["files"]}
    for path in sorted(folder.rglob("[!.]*")):
        own = path.is_file() and path.relative_to(folder).parts[0] not in (
            *NOT_COMMITTED,
            OF_NO_REPORT,
        )
        if own and path not in covered and path not in listings:
            yield f"{path}: in no digests.json; `sepablate report` writes one"


def _digests(path: Path) -> Iterator[str]:
    for name, digest in _read(path)["files"].items():
        file = path.parent / name
        if not file.is_file():
            yield f"{file}: missing, but {path} lists it"
        elif manifest.sha256(file) != digest:
            yield f"{file}: not the file that {path} lists"


def _run_keys(folder: Path) -> Iterator[str]:
    """Runs whose key is not the hash of their config, or not the one in their files."""
    for path in sorted(folder.glob("runs/*/config.json")):
        config = json.loads(path.read_text())
        for seed, key in config["run_keys"].items():
            if run_key(config, int(seed)) != key:
                yield f"{path}, seed {seed}: the hash is {run_key(config, int(seed))}, not {key}"
            rows = path.with_name(f"seed-{seed}.csv")
            with rows.open(newline="") as file:
                other = {row["run_key"] for row in csv.DictReader(file)} - {key}
            if other:
                yield f"{rows}: run key {', '.join(sorted(other))}, but config.json says {key}"
            measured = folder / "measured" / path.parent.name / f"seed-{seed}.json"
            if measured.is_file() and json.loads(measured.read_text()).get("run_key") != key:
                yield f"{measured}: not of the run {key}"


def _report(path: Path, scale: str, said: list[str], studies: list[str]) -> Iterator[str]:
    """What is wrong in a report and its studies; adds what was checked to `said`."""
    listing = _read(path)
    name, own = listing["report"], listing["studies"]
    shown = {each: partial.shown(each, path.parent / each) for each in own}
    variants = {variant.name for each in shown.values() for variant in each.all_variants}
    studies += own
    if all((RESULTS / scale / "runs" / each / "config.json").is_file() for each in variants):
        said.append(f"{name}: made again from the runs of {len(variants)} variants")
        for each, part in shown.items():
            if partial.trained(each, scale) != part:
                yield f"{path.parent / each}: leaves out variants that have runs; make it again"
        yield from _made_again(path, scale, name, shown)
    else:
        said.append(f"{name}: no runs on disk, so checked against itself (`dvc repro` makes them)")
        for each in own:
            yield from self_check.check_study(each, path.parent / each)
        yield from self_check.check_report(name, own, path.parent)


def _made_again(path: Path, scale: str, name: str, studies: dict[str, AnyStudy]) -> Iterator[str]:
    """Files that differ from what the study and report commands write now, in a folder aside."""
    with tempfile.TemporaryDirectory() as temporary:
        aside = Path(temporary)
        _furnish(aside, scale, [*studies])
        with contextlib.chdir(aside):
            for each, part in studies.items():
                outputs.study_outputs(each, scale, part)
            outputs.report_outputs([*studies], scale, name)
        made = aside / path.parent
        for name in sorted([path.name, *_read(made / path.name)["files"]]):
            expected = (made / name).read_bytes()
            yield from differences.in_bytes(path.parent / name, expected, "its runs")


def _furnish(aside: Path, scale: str, studies: list[str]) -> None:
    """Links to everything here but the results, to the runs, and the times of layers."""
    for path in Path().iterdir():
        if path.name != RESULTS.name:
            (aside / path.name).symlink_to(path.resolve())
    (aside / RESULTS / scale).mkdir(parents=True)
    for name in NOT_COMMITTED:
        (aside / RESULTS / scale / name).symlink_to((RESULTS / scale / name).resolve())
    for name in studies:
        times = RESULTS / scale / name / layer_costs.MEASURED
        if times.is_file():
            (aside / times.parent).mkdir()
            (aside / times).write_bytes(times.read_bytes())


def _reproduced(scale: str, studies: list[str], said: list[str]) -> Iterator[str]:
    found = git_compare.compare_with_head(scale, studies)
    said += [*found.within, found.summary]
    yield from found.lost


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
