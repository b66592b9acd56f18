"""Trace a table, a figure or a report to its runs, and to the commands that make them again."""

import re
import textwrap
from pathlib import Path
from typing import Any

from sepablate import tracking
from sepablate.analysis import layer_costs, setting_effects
from sepablate.analysis.load_runs import Config
from sepablate.errors import UserError
from sepablate.provenance import embedded_keys
from sepablate.report import manifest
from sepablate.store import collected_runs, layout
from sepablate.store.files import read_json
from sepablate.store.run_key import NOT_IN_KEY
from sepablate.study import BASE, robustness_names, studies_with

CHOICES = (
    "a folder results/<scale>/<study> or results/<scale>/runs/<variant>, a file in it, a report "
    f"results/<scale>/REPORT.md, or {layout.ACROSS}"
)
NOT_ON_DISK = "not on disk"


def trace(path: Path) -> str:
    """Return the origin of `path`: a block per variant of its studies, in it a line per seed.

    A folder of a variant's runs may lie in an archive instead. ACROSS and its figure come from
    verdicts, whose reports are named.

    Raises UserError if it is no result, or names no runs.
    """
    if layout.ACROSS.is_file() and path.exists() and path.resolve() in _across_files():
        return _across()
    if runs := _runs(path):
        return runs
    scale, studies = _resolve(path)
    blocks = []
    for study in studies:
        folder = layout.study_folder(scale, study)
        if (folder / layout.LAYER_MEASUREMENTS).is_file():
            hardware = layer_costs.measured_on(layer_costs.read(scale, study))
            command = f"sepablate layers {study} --scale {scale}"
            blocks.append(f"{folder}\n\n  hardware  {hardware}\n  command   {command}\n")
            continue
        run_ids, remark = _mlflow_runs(study, scale)
        if (folder / layout.EFFECTS).is_file():
            for setting, keys in _setting_keys(folder / layout.EFFECTS).items():
                derived = scale if setting == BASE else f"{scale}.{setting}"
                blocks.append(f"{folder}, setting {setting}{remark}\n")
                blocks += [_variant(derived, *each, run_ids, study) for each in keys.items()]
            continue
        figure = path if path.suffix in (".png", ".svg") and len(studies) == 1 else None
        keys = embedded_keys.read_run_keys(figure or folder / layout.TABLE)
        blocks.append(f"{figure or folder}{remark}\n")
        blocks += [_variant(scale, *each, run_ids, study) for each in keys.items()]
    return "\n".join(blocks)


def _across_files() -> list[Path]:
    """Return ACROSS and its figures."""
    return [layout.ACROSS.resolve(), *map(Path.resolve, layout.RESULTS.glob("across.*"))]


def _across() -> str:
    """Return the command that writes ACROSS, and those that trace the reports it is made of."""
    heads = re.findall(r"^\| Claim \| Metric \| (.*) \|$", layout.ACROSS.read_text("utf-8"), re.M)
    columns = [head.split(" | ")[:-1] for head in heads]  # the last one is the paper's
    scales = list(dict.fromkeys(cell.partition(",")[0] for row in columns for cell in row))
    lines = [f"{layout.ACROSS}, from the verdicts of reports", ""]
    lines.append(f"  command   sepablate across {' '.join(scales)}")
    for scale in scales:
        for content in map(manifest.read, layout.manifests(scale)):
            report = layout.scale_folder(scale) / layout.report_text(content.report)
            lines += [f"  runs      sepablate trace {report}"] * (not content.times_layers)
    return "\n".join(lines) + "\n"


def _runs(path: Path) -> str:
    """Return the block of the variant whose runs lie in the path, or nothing."""
    try:
        below = path.resolve().relative_to(layout.RESULTS.resolve())
        scale, kind, name = layout.run_place(below)
    except (ValueError, IndexError):
        return ""
    if kind != layout.RUNS:
        return ""
    keys = _read(collected_runs.variant_config(scale, name)).get("run_keys", {})
    if not keys:
        return ""
    base, _, setting = scale.partition(".")
    studies = robustness_names() if setting else studies_with(name)
    found = [_mlflow_runs(each, base) for each in studies]
    run_ids = {key: run_id for ids, _ in found for key, run_id in ids.items()}
    remark = next((remark for _, remark in found if remark), "")
    seeds = {int(seed): key for seed, key in keys.items()}
    block = _variant(scale, name, seeds, run_ids, [*studies, name][0])
    return f"{layout.variant_runs(scale, name)}{remark}\n\n{block}"


def _resolve(path: Path) -> tuple[str, list[str]]:
    """Return scale and studies of a path; UserError with the valid choices."""
    try:
        scale, *rest = path.resolve().relative_to(layout.RESULTS.resolve()).parts
    except ValueError:
        raise UserError(f"{path}: choose {CHOICES}") from None
    if path.exists() and len(rest) in (1, 2):
        if _is_study(scale, rest[0]):
            return scale, rest[:1]
        if len(rest) == 1 and path.is_file():
            studies = _studies(path, scale)
            if studies:
                return scale, studies
    raise UserError(f"{path}: {'' if path.exists() else 'does not exist; '}choose {CHOICES}")


def _studies(path: Path, scale: str) -> list[str]:
    """Return the studies of the report that a file belongs to."""
    for listing in layout.manifests(scale):
        content = manifest.read(listing)
        if path.name in (listing.name, *content.files):
            return content.studies
    linked = re.findall(r"\]\(([^()/]+)/figure\.", path.read_bytes().decode(errors="replace"))
    return [name for name in dict.fromkeys(linked) if _is_study(scale, name)]


def _is_study(scale: str, name: str) -> bool:
    folder = layout.study_folder(scale, name)
    return any((folder / name).is_file() for name in (layout.TABLE, layout.EFFECTS))


def _setting_keys(path: Path) -> dict[str, embedded_keys.Keys]:
    """Return the run keys of each setting of a robustness study, from its effects.json."""
    found: dict[str, embedded_keys.Keys] = {}
    for claim in setting_effects.read(path):
        for setting in claim.settings:
            for side, keys in setting.run_keys.items():
                seeds = {int(seed): key for seed, key in keys.items()}
                found.setdefault(setting.setting, {})[side] = seeds
    return found


def _mlflow_runs(study: str, scale: str) -> tuple[dict[str, str], str]:
    """Return run key -> MLflow run id, and a remark if MLflow does not answer."""
    try:
        return tracking.run_ids(study, scale), ""
    except OSError as error:
        return {}, f"  ({error})"


def _variant(
    scale: str, name: str, seeds: dict[int, str], run_ids: dict[str, str], study: str
) -> str:
    """Return the block of a variant: what its runs share, then each run with its own facts."""
    config = _read(collected_runs.variant_config(scale, name))
    facts = {seed: _facts(scale, name, seed, key) for seed, key in seeds.items()}
    first, *others = facts.values()
    shared = {
        fact: value
        for fact, value in first.items()
        if all(other[fact] == value for other in others)
    }
    lines = [name, *_settings(scale, name, config)]
    lines += [f"  {fact:9} {value}" for fact, value in shared.items()]
    trained = (scale, name) if "." not in scale else (scale.partition(".")[0], study)
    lines.append(f"  {'command':9} {_command(*trained, shared.get('commit', ''))}")
    for seed, key in seeds.items():
        current = config.get("run_keys", {}).get(str(seed), "")
        differs = f"  runs/ has {current or 'no such seed'} in its place" * bool(
            config and current != key
        )
        distinct = "".join(
            f"  {fact} {value}" for fact, value in facts[seed].items() if fact not in shared
        )
        run_id = run_ids.get(key, "not published")
        lines.append(f"  seed {seed}  run {key}  MLflow {run_id}{differs}{distinct}")
    return "\n".join(lines) + "\n"


def _settings(scale: str, name: str, config: Config) -> list[str]:
    """Return the lines on the resolved config and the data."""
    if not config:
        return [f"  config    {NOT_ON_DISK}; the command below makes the runs"]
    settings = {key: value for key, value in config.items() if key not in (*NOT_IN_KEY, "variant")}
    digest = settings.pop("data_digest", "unknown")
    text = ", ".join(f"{key} {_text(value)}" for key, value in settings.items())
    indent = " " * 12
    wrapped = textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent)
    lines = [f"  config    {_shown_config(scale, name)}", *wrapped]
    return [*lines, f"  data      {config.get('dataset', 'unknown')}, digest {digest}"]


def _shown_config(scale: str, name: str) -> str:
    """Return the path of a variant's config: on disk, or in the archive that has it."""
    path, source = layout.variant_config(scale, name), collected_runs.source(scale, name)
    return f"{path} in {source}" if source.is_file() else str(path)


def _facts(scale: str, name: str, seed: int, key: str) -> dict[str, str]:
    """Return commit, hardware and cost of a run, as they were measured."""
    measured = _read(collected_runs.seed_measurements(scale, name, seed))
    if measured.get("run_key", key) != key:
        measured = {}
    hardware = ", ".join(f"{part} {value}" for part, value in measured.get("hardware", {}).items())
    commit = str(measured.get("commit", NOT_ON_DISK))
    if commit.endswith("+"):
        commit = f"{commit[:-1]}, with changes that were not committed"
    facts = {"commit": commit, "hardware": hardware or NOT_ON_DISK}
    return facts | {"took": _cost(measured) or NOT_ON_DISK}


def _cost(measured: dict[str, Any]) -> str:
    """Return time, speed, memory, and energy where it could be measured."""
    units = {
        "seconds": "s",
        "images_per_second": "images/s",
        "peak_memory_mib": "MiB",
        "energy_joules": "J",
    }
    numbers = {key: measured.get(key) for key in units}
    texts = [f"{value:.0f} {units[key]}" for key, value in numbers.items() if value is not None]
    return ", ".join(texts)


def _command(scale: str, name: str, commit: str) -> str:
    """Return what trains the variant's runs again: at their commit, if they share a clean one."""
    train = f"sepablate train {name} --scale {scale}"
    return f"git checkout {commit} && {train}" if re.fullmatch("[0-9a-f]{7,40}", commit) else train


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, dict) if path.is_file() else {}
