"""Paths and names of all files on disk, relative to the project's root folder."""

from collections.abc import Iterable
from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
DATASETS = Path("datasets")  # which images of the user's own are registered
RESULTS = Path("results")
PAPER_PIPELINE, FURTHER_PIPELINE = "dvc.yaml", "experiments/dvc.yaml"  # as DVC addresses them
PIPELINES = (PAPER_PIPELINE, FURTHER_PIPELINE)
MLFLOW_DATABASE = Path("mlflow.db")
MLFLOW_ARTIFACTS = Path("mlartifacts")
STATE = Path(".sepablate")  # of this machine; safe to delete
RUN_FOLDERS = STATE / "runs"  # checkpoints and finished runs, by run key
LAYER_TIMES = STATE / "layers"
UNPACKED = STATE / "archives"  # the runs in archives, by their digest

# A run's own folder, RUN_FOLDERS/<run key>.
RUN_CONFIG, CURVE, RESULT, MEASURED = "run.json", "curve.csv", "result.csv", "measured.json"
SCORES = {  # by task
    "single_label": "correct.bin",
    "multi_label": "precision.bin",
    "detection": "resampled.bin",
}
EXAMPLES = "examples.json"  # of a detector: some test images with true and predicted boxes
WEIGHTS_ENDING = ".safetensors"  # large: a finished folder may do without them
WEIGHTS = f"weights{WEIGHTS_ENDING}"
RAW_WEIGHTS = f"raw_weights{WEIGHTS_ENDING}"  # of the last step, not averaged; if asked for
RUN_FILES = (
    *(RUN_CONFIG, CURVE, MEASURED, *SCORES.values(), EXAMPLES),
    *(WEIGHTS, RAW_WEIGHTS, RESULT),
)
LOCK, ERROR = "lock", "error.txt"

# A scale's folder, results/<scale>. Git ignores the first three, which `dvc repro` makes.
RUNS, MEASUREMENTS = "runs", "measured"
ARCHIVE = "runs.tar.gz"  # the runs of a report; its name begins with the report's prefix
SETTINGS = "settings"  # a folder like a scale's for each setting of a robustness study
FETCHED = "fetched.json"
MADE_BY = "made_by.json"  # the commit that made results of older code
TUNING = "tuning.csv"  # of `sepablate tune`: how the recipe was chosen
DETECTORS = "detectors.csv"  # of `sepablate layers`: the counts next to table 13 of MobileNets
SPEEDS = "speed.csv"  # of `sepablate cost --save`; belongs to no report
REPORT, LAYER_REPORT = "REPORT", "COSTS"  # names of reports; others are the user's

CONSTANT_SCORES = "constant_scores"  # entry of a config.json: what a network that knows nothing has

# A robustness study's folder, results/<scale>/<study>, has these, figures and nothing else.
EFFECTS, CARRYING, BUDGET = "effects.json", "carrying.json", "budget.csv"
ACROSS = RESULTS / "ACROSS.md"  # every claim at every scale; its figure lies in the same folder

# A study's folder, results/<scale>/<study>.
TABLE, TABLE_MARKDOWN, CURVES, CLAIMS = "table.csv", "table.md", "curves.csv", "claims.json"
LAYER_MEASUREMENTS = "measured.csv"
FIGURE_KINDS = ("png", "svg")
LIKE_PAPER = "like_figure_"  # before the number of a figure of the paper
SCENES, LIKE_TABLE_13 = DETECTION = "scenes", "like_table_13"  # figures of detectors

BACKUP_ENDINGS = ("~", ".swp", ".bak", ".orig", ".rej", ".tmp")


def is_backup(path: Path) -> bool:
    """Return whether an editor or an operating system made a file, which is nobody's result."""
    return path.name.startswith((".", "#")) or path.name.endswith(BACKUP_ENDINGS)


def run_folder(key: str) -> Path:
    """Return the folder of a run's checkpoints and files."""
    return RUN_FOLDERS / key


def fetched(scale: str) -> Path:
    """Return the file that names the data set that was fetched for a scale, with its digest."""
    return scale_folder(scale) / FETCHED


def tuning(scale: str) -> Path:
    """Return the file with the trials that a scale's recipe was chosen from."""
    return scale_folder(scale) / TUNING


def scale_folder(scale: str) -> Path:
    """Return the folder of a scale's results; of a setting `<scale>.<setting>`, inside it."""
    base, _, setting = scale.partition(".")
    return RESULTS / base / SETTINGS / setting if setting else RESULTS / base


def run_place(path: Path) -> tuple[str, str, str]:
    """Return the scale, the kind and the variant of a folder of runs, or of a file in it.

    The kind is "runs" or "measured"; the path is relative to results/.
    """
    base, *rest = path.parts
    if rest[0] == SETTINGS:
        _, setting, *rest = rest
        base = f"{base}.{setting}"
    return base, rest[0], rest[1]


def variant_runs(scale: str, variant: str) -> Path:
    """Return the folder of a variant's collected runs: config.json and files for each seed."""
    return scale_folder(scale) / RUNS / variant


def variant_measurements(scale: str, variant: str) -> Path:
    """Return the folder of what was measured while a variant trained."""
    return scale_folder(scale) / MEASUREMENTS / variant


def seed_rows(scale: str, variant: str, seed: int | str) -> Path:
    """Return the CSV file of a collected run."""
    return variant_runs(scale, variant) / f"seed-{seed}.csv"


def seed_scores(scale: str, variant: str, seed: int | str, task: str) -> Path:
    """Return the file of a collected run's scores, from which its spread over images follows."""
    return variant_runs(scale, variant) / f"seed-{seed}.{SCORES[task]}"


def seed_examples(scale: str, variant: str, seed: int | str) -> Path:
    """Return the file of some test images with the boxes that a collected run predicts."""
    return variant_runs(scale, variant) / f"seed-{seed}.{EXAMPLES}"


def seed_weights(scale: str, variant: str, seed: int | str) -> Path:
    """Return the file of a collected run's trained weights."""
    return variant_runs(scale, variant) / f"seed-{seed}{WEIGHTS_ENDING}"


def seed_measurements(scale: str, variant: str, seed: int | str) -> Path:
    """Return the JSON file of a collected run's times, memory, energy and hardware."""
    return variant_measurements(scale, variant) / f"seed-{seed}.json"


def variant_config(scale: str, variant: str) -> Path:
    """Return the file of the resolved config that a variant's runs share."""
    return variant_runs(scale, variant) / "config.json"


def study_folder(scale: str, study: str) -> Path:
    """Return the folder of a study's table, figure, curves and claims."""
    return scale_folder(scale) / study


def figure(folder: Path, kind: str) -> Path:
    """Return the figure of a study's folder; kind: "png" or "svg"."""
    return folder / f"figure.{kind}"


def like_paper(folder: Path, number: int, kind: str) -> Path:
    """Return the figure of a study's folder that is like one of the paper.

    Args:
        folder: of the study.
        number: of the paper's figure.
        kind: "png" or "svg".
    """
    return folder / f"{LIKE_PAPER}{number}.{kind}"


def named_figure(folder: Path, name: str, kind: str) -> Path:
    """Return a figure of a study's folder; kind: "png" or "svg"."""
    return folder / f"{name}.{kind}"


def figures(folder: Path) -> list[Path]:
    """Return the figures that a study's folder has."""
    paths = [figure(folder, kind) for kind in FIGURE_KINDS]
    paths += [path for kind in FIGURE_KINDS for path in folder.glob(f"{LIKE_PAPER}*.{kind}")]
    paths += [named_figure(folder, name, kind) for name in DETECTION for kind in FIGURE_KINDS]
    return _originals(path for path in paths if path.exists())


def report_prefix(report: str) -> str:
    """Return the prefix of the names of a report's files, which is empty for REPORT."""
    return "" if report == REPORT else f"{report.lower()}_"


def report_text(report: str) -> str:
    """Return the name of a report's Markdown file."""
    return f"{report}.md"


def report_page(report: str) -> str:
    """Return the name of a report's HTML file."""
    return f"{report.lower()}.html"


def verdicts_name(report: str) -> str:
    """Return the name of the file with a report's verdicts."""
    return f"{report_prefix(report)}verdicts.json"


def metrics_name(report: str) -> str:
    """Return the name of the file with a report's numbers for DVC."""
    return f"{report_prefix(report)}metrics.json"


def scorecard_name(report: str, kind: str) -> str:
    """Return the name of a report's forest plot; kind: "png" or "svg"."""
    return f"{report_prefix(report)}scorecard.{kind}"


def archive_name(report: str) -> str:
    """Return the name of the archive of the runs of a report."""
    return f"{report_prefix(report)}{ARCHIVE}"


def archives(scale: str) -> list[Path]:
    """Return the archives of the runs of a scale and of its settings, that of REPORT first."""
    base, *_ = scale.partition(".")
    found = _originals(scale_folder(base).glob(f"*{ARCHIVE}"))
    return sorted(found, key=lambda path: (path.name != ARCHIVE, path.name))


def manifest_name(report: str) -> str:
    """Return the name of a report's manifest, the SHA-256 of all its files."""
    return f"{report_prefix(report)}digests.json"


def manifests(scale: str) -> list[Path]:
    """Return the manifests of a scale's reports."""
    return _originals(scale_folder(scale).glob("*digests.json"))


def verdict_files(scale: str) -> list[Path]:
    """Return the files with the verdicts of a scale's reports."""
    return _originals(scale_folder(scale).glob("*verdicts.json"))


def carrying_files(scale: str) -> list[Path]:
    """Return the files that say how far a scale's verdicts carry."""
    return _originals(scale_folder(scale).glob(f"*/{CARRYING}"))


def _originals(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if not is_backup(path))
