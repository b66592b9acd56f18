"""From a table, a figure or a report back to its runs, and to the command that makes them again."""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from sepablate import tracking
from sepablate.analysis import layer_costs
from sepablate.analysis.load_runs import RESULTS
from sepablate.errors import UserError
from sepablate.provenance import embedded_keys
from sepablate.store.run_key import NOT_IN_KEY

MEANS = "a folder results/<scale>/<study>, a file in it, or a report results/<scale>/REPORT.md"


def trace(path: Path) -> str:
    """What made `path`: a block per variant of its studies, in it a line per seed.

    Raises UserError if it is nothing that runs are behind, or names none.
    """
    scale, studies = _place(path)
    blocks = []
    for study in studies:
        folder = RESULTS / scale / study
        if (folder / layer_costs.MEASURED).is_file():
            told = layer_costs.measured_on(layer_costs.read(folder, study))
            command = f"sepablate study {study} --scale {scale}"
            blocks.append(f"{folder}\n\n  hardware  {told}\n  command   {command}\n")
            continue
        drawn = path if path.suffix in (".png", ".svg") and len(studies) == 1 else None
        keys = embedded_keys.read_run_keys(drawn or folder / "table.csv")
        published, said = _published(study, scale)
        blocks.append(f"{drawn or folder}{said}\n")
        blocks += [_variant(scale, name, seeds, published) for name, seeds in keys.items()]
    return "\n".join(blocks)


def _place(path: Path) -> tuple[str, list[str]]:
    """Scale and studies of a path; UserError with what would do."""
    try:
        scale, *rest = path.resolve().relative_to(RESULTS.resolve()).parts
    except ValueError:
        raise UserError(f"{path}: choose {MEANS}") from None
    if path.exists() and len(rest) in (1, 2):
        if _is_study(RESULTS / scale / rest[0]):
            return scale, rest[:1]
        if len(rest) == 1 and path.is_file():
            studies = _studies(path)
            if studies:
                return scale, studies
    raise UserError(f"{path}: {'' if path.exists() else 'does not exist; '}choose {MEANS}")


def _studies(path: Path) -> list[str]:
    """The studies of the report that a file beside the studies' folders belongs to."""
    for listing in sorted(path.parent.glob("*digests.json")):
        content = json.loads(listing.read_text())
        if path.name in (listing.name, *content["files"]):
            return content["studies"]
    linked = re.findall(r"\]\(([^()/]+)/figure\.", path.read_bytes().decode(errors="replace"))
    return [name for name in dict.fromkeys(linked) if _is_study(path.parent / name)]


def _is_study(folder: Path) -> bool:
    return (folder / "table.csv").is_file()


def _published(study: str, scale: str) -> tuple[dict[str, str], str]:
    """Run key -> MLflow run id, and a remark if MLflow cannot be asked."""
    try:
        return tracking.run_ids(study, scale), ""
    except OSError as error:
        return {}, f"  ({error})"


def _variant(scale: str, name: str, seeds: dict[int, str], published: dict[str, str]) -> str:
    """The block of a variant: what its runs share, then each run with what is its own."""
    folder = RESULTS / scale / "runs" / name
    config = _json(folder / "config.json")
    facts = {seed: _facts(scale, name, seed, key) for seed, key in seeds.items()}
    first, *others = facts.values()
    shared = {what: told for what, told in first.items() if all(o[what] == told for o in others)}
    lines = [name, *_settings(folder, config)]
    lines += [f"  {what:9} {told}" for what, told in shared.items()]
    lines.append(f"  {'command':9} {_command(scale, name, shared.get('commit', ''))}")
    for seed, key in seeds.items():
        here = config.get("run_keys", {}).get(str(seed), "")
        other = f"  runs/ has {here or 'no such seed'} in its place" * bool(config and here != key)
        own = "".join(f"  {w} {told}" for w, told in facts[seed].items() if w not in shared)
        run_id = published.get(key, "not published")
        lines.append(f"  seed {seed}  run {key}  MLflow {run_id}{other}{own}")
    return "\n".join(lines) + "\n"


def _settings(folder: Path, config: dict[str, Any]) -> list[str]:
    if not config:
        return ["  config    not on disk; the command below makes the runs"]
    decides = {key: each for key, each in config.items() if key not in (*NOT_IN_KEY, "variant")}
    digest = decides.pop("data_digest", "unknown")
    told = ", ".join(f"{key} {_text(each)}" for key, each in decides.items())
    indent = " " * 12
    wrapped = textwrap.wrap(told, 100, initial_indent=indent, subsequent_indent=indent)
    config_lines = [f"  config    {folder / 'config.json'}", *wrapped]
    return [*config_lines, f"  data      {config.get('dataset', 'unknown')}, digest {digest}"]


def _facts(scale: str, name: str, seed: int, key: str) -> dict[str, str]:
    """Commit, hardware and cost of a run, as it was measured."""
    measured = _json(RESULTS / scale / "measured" / name / f"seed-{seed}.json")
    if measured.get("run_key", key) != key:
        measured = {}
    hardware = ", ".join(f"{what} {told}" for what, told in measured.get("hardware", {}).items())
    commit = str(measured.get("commit", "not on disk"))
    if commit.endswith("+"):
        commit = f"{commit[:-1]}, with changes that were not committed"
    facts = {"commit": commit, "hardware": hardware or "not on disk"}
    return facts | {"took": _cost(measured) or "not on disk"}


def _cost(measured: dict[str, Any]) -> str:
    """Time, speed, memory, and energy where the machine told it."""
    units = {
        "seconds": "s",
        "images_per_second": "images/s",
        "peak_memory_mib": "MiB",
        "energy_joules": "J",
    }
    numbers = {key: measured.get(key) for key in units}
    told = [f"{value:.0f} {units[key]}" for key, value in numbers.items() if value is not None]
    return ", ".join(told)


def _command(scale: str, name: str, commit: str) -> str:
    """What trains the variant's runs again: at their commit, if they share one that is clean."""
    train = f"sepablate train {name} --scale {scale}"
    return f"git checkout {commit} && {train}" if re.fullmatch("[0-9a-f]{7,40}", commit) else train


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
