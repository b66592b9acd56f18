"""Folders of made-up runs, for the analysis."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.project import ROOT
from sepablate import scales, study
from sepablate.analysis import metrics
from sepablate.runs.run import resolve
from sepablate.store import layout, run_files

FINAL = {"xception": 0.87, "no_residual": 0.80, "relu_between": 0.869}
STEPS = (3, 6, 9)
IMAGES = 203
DATASETS = {"single_label": "toys", "multi_label": "heaps", "detection": "shelves"}
PIXELS = 8, 8


def write_examples(name, seed):
    """Three images of which one is empty; a right box, and in the second image a wrong one."""
    file = io.BytesIO()
    Image.new("L", PIXELS, 90).save(file, "png")
    png = base64.b64encode(file.getvalue()).decode()
    true = {"class": 3, "box": [1, 1, 6, 6]}
    right = {"class": 3, "score": 0.9, "box": [1, 1, 6, 5]}
    wrong = {"class": 4, "score": 0.4, "box": [0, 0, 7, 7]}
    images = [([true], [right]), ([true], [right, wrong]), ([], [])]
    examples = [{"png": png, "true": boxes, "predicted": found} for boxes, found in images]
    layout.seed_examples("tiny", name, seed).write_text(json.dumps(examples))


def make_runs(name, seeds=range(6), diverged=()):
    folder = Path("results/tiny/runs") / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keys = {str(seed): f"{seed:016d}" for seed in seeds}
    declared = study.variants()[name]
    measure = metrics.TASK_METRICS[declared.task]
    config = {"parameters": 1000, "weight_decay": 1e-5, "batch_size": 64}
    config |= {"mult_adds": int(2_500_000 * declared.relative_width**2)}
    config |= {"test_images": IMAGES, "seeds": list(seeds), "label": name, "run_keys": keys}
    config |= {
        "dataset": DATASETS[declared.task],
        "images": 12_000,
        "image_size": 28,
        "validation_images": 250,
    }
    config |= {"steps": 9, "epochs": 0.5, "model.width": 0.25, "model.classes": 10}
    config |= {"model": declared.model, "model.in_channels": 1, "task": declared.task}
    config |= {"model.segments": declared.options.get("segments", 0), "rho": 0.9}
    config |= {"recipe": declared.recipe}
    config |= {"learning_rate": 0.015 if declared.learning_rates else 0.045}
    config |= {"decays": 10 if declared.recipe == "jft" else 90}
    if declared.task == "multi_label":
        config[layout.CONSTANT_SCORES] = {"validation": 0.627, "test": 0.629}
    config |= {"optimizer": "rmsprop" if declared.recipe in ("jft", "example") else "sgd"}
    (folder / "config.json").write_text(json.dumps(config))
    for seed in seeds:
        draw = np.random.default_rng([seed, len(name)])
        steps = STEPS[:1] if seed in diverged else STEPS
        rows = [(step, measure.curve, draw.uniform(0.6, 0.9)) for step in steps]
        rate = config["learning_rate"]
        rows += [(step, run_files.LEARNING_RATE, rate * 0.94**step) for step in steps]
        if seed in diverged:
            rows.append((5, run_files.DIVERGED, 5.0))
        else:
            correct = draw.random(IMAGES) < FINAL.get(name, 0.85)
            content = np.packbits(correct).tobytes()
            if declared.task == "multi_label":
                correct = draw.random(IMAGES).astype("<f4")
                content = correct.tobytes()
            if measure.resampled:
                correct = draw.normal(0.4, 0.01, 50).astype("<f4")
                content = correct.tobytes()
                for number, column in enumerate(measure.details):
                    value = correct.mean() + number / 100
                    rows.append((9, run_files.final_metric(column, averaged=True), value))
                write_examples(name, seed)
            rows.append((9, measure.raw_final, correct.mean() - 0.01))
            rows.append((9, measure.final, correct.mean()))
            layout.seed_scores("tiny", name, seed, declared.task).write_bytes(content)
        text = "".join(f"{keys[str(seed)]},{name},{seed},{s},{m},{v}\n" for s, m, v in rows)
        (folder / f"seed-{seed}.csv").write_text(",".join(run_files.COLUMNS) + "\n" + text)


def configs(name: str, scale_name: str) -> dict[str, dict]:
    """The resolved fields of a study's variants that the texts use, without any data."""
    scale, recipes = scales.load(scale_name, ROOT / "params.yaml")
    found = {}
    for variant in study.load(name, ROOT / "experiments").all_variants:
        run = resolve(variant, scale_name, scale, recipes, 0, "fp32")
        found[variant.name] = {
            **{f"model.{key}": value for key, value in run.options.items()},
            **vars(run.scale),
            "dataset": run.dataset,
            "image_size": run.image_size,
            "steps": run.scale.steps,
            "model": run.model,
            "parameters": run.parameters,
            "mult_adds": run.mult_adds,
            "weight_decay": run.weight_decay,
        }
    return found
