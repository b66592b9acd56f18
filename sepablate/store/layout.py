"""Where everything lies on disk, relative to the project's root folder, and how files are named."""

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
RESULTS = Path("results")
STATE = Path(".sepablate")  # of this machine; safe to delete
RUN_FOLDERS = STATE / "runs"  # checkpoints and finished runs, by run key
LAYER_TIMES = STATE / "layers"

# A run's own folder, RUN_FOLDERS/<run key>.
RUN_CONFIG, CURVE, RESULT, MEASURED = "run.json", "curve.csv", "result.csv", "measured.json"
SCORES = {"single_label": "correct.bin", "multi_label": "precision.bin"}  # by task
RUN_FILES = (RUN_CONFIG, CURVE, MEASURED, *SCORES.values(), RESULT)
LOCK, ERROR = "lock", "error.txt"

# A study's folder, results/<scale>/<study>.
TABLE, TABLE_MARKDOWN, CURVES, CLAIMS = "table.csv", "table.md", "curves.csv", "claims.json"
LAYER_MEASUREMENTS = "measured.csv"
FIGURE_KINDS = ("png", "svg")

MADE_BY = "made_by.json"  # of results/<scale>/: the commit that made results of older code
SPEEDS = "speed.csv"  # of `sepablate cost --save`; belongs to no report


def run_folder(key: str) -> Path:
    """Return the folder of a run's checkpoints and files."""
    return RUN_FOLDERS / key


def variant_runs(scale: str, variant: str) -> Path:
    """Return the folder of a variant's collected runs: config.json and files for each seed."""
    return RESULTS / scale / "runs" / variant


def variant_measurements(scale: str, variant: str) -> Path:
    """Return the folder of what was measured while a variant trained."""
    return RESULTS / scale / "measured" / variant


def seed_rows(scale: str, variant: str, seed: int | str) -> Path:
    """Return the CSV file of a collected run."""
    return variant_runs(scale, variant) / f"seed-{seed}.csv"


def seed_scores(scale: str, variant: str, seed: int | str, task: str) -> Path:
    """Return the file of a collected run's scores, one for each test image."""
    return variant_runs(scale, variant) / f"seed-{seed}.{SCORES[task]}"


def seed_measurements(scale: str, variant: str, seed: int | str) -> Path:
    """Return the JSON file of a collected run's times, memory, energy and hardware."""
    return variant_measurements(scale, variant) / f"seed-{seed}.json"


def variant_config(scale: str, variant: str) -> Path:
    """Return the file of the resolved config that a variant's runs share."""
    return variant_runs(scale, variant) / "config.json"


def study_folder(scale: str, study: str) -> Path:
    """Return the folder of a study's table, figure, curves and claims."""
    return RESULTS / scale / study


def figure(folder: Path, kind: str) -> Path:
    """Return the figure of a study's folder; kind: "png" or "svg"."""
    return folder / f"figure.{kind}"


def report_prefix(report: str) -> str:
    """Return what the names of a report's files begin with: none for REPORT, its own for others."""
    return "" if report == "REPORT" else f"{report.lower()}_"


def report_files(report: str, scorecard: bool = True) -> list[str]:
    """Return the names of a report's files but its manifest, which lists them."""
    prefix = report_prefix(report)
    names = [f"{report}.md", f"{report.lower()}.html"]
    names += [f"{prefix}metrics.json", f"{prefix}verdicts.json"]
    return names + [f"{prefix}scorecard.{kind}" for kind in FIGURE_KINDS if scorecard]


def manifest_name(report: str) -> str:
    """Return the name of a report's manifest, the SHA-256 of all its files."""
    return f"{report_prefix(report)}digests.json"
