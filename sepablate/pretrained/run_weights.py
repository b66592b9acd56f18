"""The weights that a run has left: find them, build their network, measure it again."""

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from sepablate import data, models
from sepablate.errors import UserError
from sepablate.kernels.cpu import build
from sepablate.runs.run import Run
from sepablate.scales import Recipe, Scale
from sepablate.store import layout, run_files, weights
from sepablate.store.files import read_json
from sepablate.store.weights import Weights
from sepablate.training import engine
from sepablate.training.detection import by_task
from sepablate.training.step import TrainContext
from sepablate.validation import parse

NEAR = 3  # of the run keys like an unknown one
# Fields of a scale that became options of the network, or decide nothing any more.
RESOLVED = {"width": 1, "stem_stride": 1, "padding": "same", "precision": "auto"}


def load(run: str | Path) -> nn.Module:
    """Return the trained network of a run, in evaluation mode, on the CPU.

    Its input are images (N, C, H, W) in [-1, 1], x / 127.5 - 1 for bytes; its output are logits
    (N, classes). In fp32 it computes what a run in bf16 rounded.

    Args:
        run: a run key, which is looked up from the project's root folder, or a weights file.

    Raises UserError for an unknown key, and for a file that is damaged or no run's.
    """
    path = find(run)
    saved = weights.read(path)
    try:
        model = models.build(saved.config["model"], **network_options(saved))
        model.load_state_dict(dict(saved.tensors))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _of_another_version(path, error) from None
    return model.eval()


def find(run: str | Path) -> Path:
    """Return the weights file of a run key, or the path that is given instead of one.

    Raises UserError if no run of that key has weights here.
    """
    path = Path(run)
    if path.suffix or len(path.parts) > 1:
        return path
    known = _known()
    if str(run) in known:
        return known[str(run)]
    near = [
        f"{key}{_whose(known[key])}"
        for key in difflib.get_close_matches(str(run), known, NEAR, cutoff=0)
    ]
    found = f"the nearest of {len(known)} that have: {', '.join(near)}" if near else "none has"
    raise UserError(
        f"run {str(run)!r}: has no weights here; {found}; `dvc pull` or `sepablate train` brings "
        f"them; choose a run's key or a file of weights, or for `sepablate evaluate` a network"
    )


def _whose(path: Path) -> str:
    """Return the variant, the scale and the seed of a weights file, where they are known."""
    if path.name == layout.WEIGHTS:
        try:
            config = read_json(path.with_name(layout.RUN_CONFIG), dict)
            variant, scale, seed = (config[field] for field in ("variant", "scale", "seed"))
        except (OSError, UserError, KeyError):
            return ""
    else:
        variant, scale = path.parent.name, path.parts[-4]
        seed = path.stem.removeprefix("seed-")
    return f" ({variant}, {scale}, seed {seed})"


def _known() -> dict[str, Path]:
    """Return all weights files by run key, those in results/ rather than in .sepablate/."""
    found = {path.parent.name: path for path in layout.RUN_FOLDERS.glob(f"*/{layout.WEIGHTS}")}
    for config in sorted(layout.RESULTS.glob(f"*/{layout.RUNS}/*/config.json")):
        scale, variant = config.parts[-4], config.parent.name
        for seed, key in read_json(config, dict).get("run_keys", {}).items():
            if (path := layout.seed_weights(scale, variant, seed)).is_file():
                found[key] = path
    return found


def restore_run(saved: Weights, path: Path) -> Run:
    """Return the run that trained weights, as far as it decides numbers.

    Args:
        saved: the weights.
        path: their file, for errors.

    Raises UserError for weights of a version of this code with other options.
    """
    try:
        return _restore_run(saved, str(path))
    except (KeyError, TypeError, ValueError) as error:
        raise _of_another_version(path, error) from None


def _restore_run(saved: Weights, place: str) -> Run:
    config, options = saved.config, network_options(saved)
    trial = config.get("trial_images", 0)
    names = {field.name for field in dataclasses.fields(Scale)} - {"kernels"}
    scale = {key: value for key, value in config.items() if key in names} | RESOLVED
    scale |= {
        "dataset": config["dataset"] if config["task"] == "single_label" else "fashion_mnist",
        "multi_label_dataset": (
            config["dataset"] if config["task"] == "multi_label" else "garment_scenes"
        ),
        "test_images": config.get("test_images", trial),
        "seeds": [saved.seed],
    }
    recipe = {key: options.get(key, 0.1) for key in ("dropout", "norm_epsilon", "norm_momentum")}
    fields = {field.name for field in dataclasses.fields(Recipe)}
    recipe |= {key: value for key, value in config.items() if key in fields}
    return Run(
        variant=config["variant"],
        scale_name="",
        seed=saved.seed,
        model=config["model"],
        options=options,
        weight_decay=config["weight_decay"],
        decay_depthwise=config["decay_depthwise"],
        task=config["task"],
        dataset=config["dataset"],
        image_size=config["image_size"],
        scale=parse(Scale, scale, place),
        recipe_name=config["recipe"],
        recipe=parse(Recipe, recipe, place),
        precision=config["precision"],
        kernels=config["kernels"],
        threads=config["threads"],
        parameters=config["parameters"],
        mult_adds=config["mult_adds"],
        trial_images=trial,
    )


def network_options(saved: Weights) -> dict[str, Any]:
    """Return the keyword arguments of the network's constructor."""
    start = "model."
    items = saved.config.items()
    return {key.removeprefix(start): value for key, value in items if key.startswith(start)}


def _of_another_version(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{path}: not of a network that this version has ({reason})")


def measure(
    source: str,
    split: str | None,
    device: str = "cpu",
    why_no_kernels: Callable[[], str | None] = build.load_library,
) -> list[str]:
    """Return the lines of a report: the score of a run's weights, and the one that it recorded.

    Where the machine, the code and torch are those of the run, the two are the same number.

    Args:
        source: a run key, or a weights file.
        split: "test" or "validation"; by default the one of the run's final numbers.
        device: that computes, unless the run's kernels are the CPU's.
        why_no_kernels: returns why this machine cannot use the CPU's kernels; None if it can.

    Raises UserError for a bad source or split, or if the images are missing.
    """
    path = find(source)
    saved = weights.read(path)
    run = restore_run(saved, path)
    final = "validation" if run.trial_images else "test"
    chosen = split or final
    if chosen not in ("test", "validation"):
        raise UserError(f"--split {chosen!r}: choose test or validation")
    if run.trial_images and chosen == "test":
        raise UserError("--split test: this run helped to choose a recipe; choose validation")
    missing = why_no_kernels() if run.kernels == "fused" else device == "cpu"
    used = run.with_backend(run.precision, "torch") if missing else run
    score, images, name = _score(used, saved, chosen, device)
    metric = run_files.final_metric(name, saved.averaged, trial=bool(run.trial_images))
    raw = "" if saved.averaged else ", raw weights"
    lines = [
        f"{run.variant} seed {run.seed}, run {saved.run_key}{raw}: {path}",
        f"{chosen} {name} of {images} images: {score!r}",
    ]
    if chosen == final:
        recorded = saved.final[metric]
        lines.append(f"recorded by the run: {recorded!r}, {_compared(score, recorded, saved, run)}")
    return lines


def _compared(score: float, recorded: float, saved: Weights, run: Run) -> str:
    if score == recorded:
        return "the same"
    if run.key != saved.run_key:
        return f"{score - recorded:+.2g} here, by other code, data or torch than the run's"
    return f"{score - recorded:+.2g} here, on another machine or by other kernels than the run's"


def _score(run: Run, saved: Weights, chosen: str, device: str) -> tuple[float, int, str]:
    """Return the mean score, the number of images and the score's name.

    The network is set up as for training, in the run's precision and by its kernels: so are the
    numbers.
    """
    if run.kernels == "fused":
        device = "cpu"
    splits = data.load(run.dataset, test=chosen == "test")
    if chosen == "validation":
        images = splits["validation"].first(run.trial_images or run.scale.validation_images)
    else:
        images = splits["test"].first(run.scale.test_images)
    objective = by_task.make_objective(run, splits["train"].first(run.scale.images).labels)
    model = engine.start(run, device).average.model
    model.load_state_dict(dict(saved.tensors))
    score = by_task.score(model, images, TrainContext(run, objective, device))
    return score, len(images), objective.score
