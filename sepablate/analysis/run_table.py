"""`sepablate.results`: all runs of a scale as one table, for a notebook or a script."""

import pandas as pd

from sepablate import study
from sepablate.analysis.load_runs import RAW, Config, Runs, load_runs
from sepablate.analysis.metrics import TASK_METRICS
from sepablate.errors import UserError, choices, command
from sepablate.store import collected_runs, layout
from sepablate.store.params_file import read_params
from sepablate.store.run_files import images_seen
from sepablate.study import SPEED, Variant

SCORES = [f"{kind}{task.name}" for task in TASK_METRICS.values() for kind in ("", "raw_")]
# Columns that are entries of a run's config under the same name.
CONFIG = (
    "parameters",
    "mult_adds",
    "dataset",
    "image_size",
    "images",
    "epochs",
    "steps",
    "batch_size",
    "recipe",
    "learning_rate",
    "weight_decay",
)


def results(scale: str | None = None) -> pd.DataFrame:
    """Return one row for each run of a scale that is on disk, in results/ or in its archives.

    The columns:

    * scale, variant, label, model, task, seed, run_key: what the run is. task: "single_label" or
      "multi_label". run_key: 16 hexadecimal digits.
    * accuracy, raw_accuracy, map_100, raw_map_100: the final score on the test images, a fraction
      from 0 to 1, of the averaged weights and (raw) of the weights themselves. accuracy is of
      single-label, map_100 (MAP@100) of multi-label runs; nan for the others.
    * speed: the mean of the same score over the points of the validation curve, raw weights, a
      fraction; higher means faster learning.
    * diverged_at: the gradient step at which the run diverged, which then has no scores; else nan.
    * images_seen: training images, repeats counted: steps times batch_size.
    * width: channels, as a multiple of the published network's. parameters: trainable ones.
      mult_adds: multiply-adds (MACs) of one image's forward pass.
    * dataset, image_size (pixels of a side), images (different training images), epochs, steps
      (gradient steps), batch_size (images), recipe, learning_rate (at the start), weight_decay.

    Args:
        scale: A scale that has runs, or a setting of one, such as "laptop"; default: the one that
            params.yaml selects. Paths are relative to the current folder, the project's root.

    Raises:
        UserError: The scale is unknown or has no runs, or a run on disk is damaged.
    """
    chosen = selected(scale)
    check_runs(chosen)
    declared = study.variants()
    tables = [
        _rows(name, declared.get(name), chosen) for name in collected_runs.trained_variants(chosen)
    ]
    return pd.concat(tables, ignore_index=True)


def selected(scale: str | None) -> str:
    """Return the scale of that name, or for None the name of the one that params.yaml selects."""
    return str(read_params(layout.PARAMS).get("scale") if scale is None else scale)


def check_runs(scale: str) -> None:
    """Raise UserError unless a scale, or a setting of one, has runs on disk."""
    folders = sorted(path.name for path in layout.RESULTS.glob("*") if path.is_dir())
    base = scale.partition(".")[0]
    if base in folders:
        known = collected_runs.trained_settings(base) if scale != base else [base]
        if scale in known and collected_runs.trained_variants(scale):
            return
    known = [each for each in folders if collected_runs.trained_variants(each)]
    known += [each for name in folders for each in collected_runs.trained_settings(name)]
    if not known:
        raise UserError(
            f"scale {scale!r}: there are no runs in {layout.RESULTS}/: go to the project's root "
            f"folder (os.chdir), or run {command('train VARIANT', scale)}"
        )
    raise UserError(f"scale {scale!r}: no runs in {layout.RESULTS}/: {choices(scale, known)}")


def _rows(name: str, declared: Variant | None, scale: str) -> pd.DataFrame:
    """Return a row for each run of a variant; one that no study has any more goes by its name."""
    variant = declared or Variant(name, name, model="", weight_decay=0)
    runs = load_runs([variant], scale)
    config = runs.configs[name]
    rows = {
        "scale": scale,
        "variant": name,
        "label": variant.label,
        "model": config.get("model"),
        "task": runs.metric.task,
        "seed": runs.seeds,
        "run_key": [config["run_keys"][str(seed)] for seed in runs.seeds],
        **_scores(name, runs),
        "images_seen": _images_seen(config),
        "width": config.get("model.width"),
        **{key: config.get(key) for key in CONFIG},
    }
    return pd.DataFrame(rows)


def _scores(name: str, runs: Runs) -> dict[str, list[float]]:
    """Return the columns of the scores, which are the same for every task."""
    nan = float("nan")
    scores = {column: [nan] * len(runs.seeds) for column in SCORES}
    own, diverged = runs.metric.name, runs.diverged
    for column, metric in ((own, own), (f"raw_{own}", RAW), (SPEED, SPEED)):
        scores[column] = [float(value) for value in runs.scores(metric)[name]]
    scores["diverged_at"] = [float(diverged.get((name, seed), nan)) for seed in runs.seeds]
    return scores


def _images_seen(config: Config) -> int | None:
    steps, batch = config.get("steps"), config.get("batch_size")
    return None if steps is None or batch is None else images_seen(steps, batch)
