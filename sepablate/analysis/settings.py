"""What a report's runs have in common, what they differ in, and what the papers say of it."""

import json
from collections.abc import Mapping
from typing import Any

from sepablate.analysis.results import RESULTS
from sepablate.analysis.tables import markdown, scientific
from sepablate.paper import xception as paper
from sepablate.study import Study

Config = Mapping[str, Any]
PER_RUN = {"variant", "label", "run_keys", "source_digest"}
OF_RMSPROP = {"rho", "epsilon"}
SAME_TRAINING = (
    "images",
    "dataset",
    "model.classes",
    "image_size",
    "model.in_channels",
    "steps",
    "batch_size",
    "epochs",
    "validation_images",
    "test_images",
)


def trained(studies: Mapping[str, Study], configs: Mapping[str, Config]) -> str:
    """What was trained, on what and for how long; one line for each way of training."""
    ways: dict[tuple[Any, ...], list[Study]] = {}
    for each in studies.values():
        first = configs[each.baseline.name]
        way = (*(first[key] for key in SAME_TRAINING), first["model"])
        ways.setdefault(way, []).append(each)
    seeds = next(iter(configs.values()))["seeds"]
    head = (
        f"{len(configs)} networks were trained from scratch, each {len(seeds)} times "
        f"(seeds {text(seeds)})"
    )
    lines = [_way(alike, configs) for alike in ways.values()]
    if len(lines) == 1:
        return f"{head}, {lines[0]}\n"
    titles = ["; ".join(f"*{each.title}*" for each in alike) for alike in ways.values()]
    pairs = zip(titles, lines, strict=True)
    return f"{head}:\n\n" + "".join(f"- {title}: {line}\n" for title, line in pairs)


def _way(studies: list[Study], configs: Mapping[str, Config]) -> str:
    """Of studies whose runs are trained alike; the first one's baseline gives the width."""
    baseline = studies[0].baseline
    first = configs[baseline.name]
    sizes = [configs[variant.name]["parameters"] for each in studies for variant in each.all]
    wide = f"{first['model.width']:g} times" if first["model.width"] != 1 else "just"
    return (
        f"on {first['images']:,} images of `{first['dataset']}` in {first['model.classes']} "
        f"classes, given as {first['image_size']} x {first['image_size']} x "
        f"{first['model.in_channels']}: {first['steps']:,} gradient steps, each on "
        f"{first['batch_size']} images (epochs: {text(first['epochs'])}). {baseline.label} is "
        f"{wide} as wide as published and has {first['parameters']:,} parameters; the networks "
        f"have {min(sizes):,} to {max(sizes):,}. The curves are measured on "
        f"{first['validation_images']:,} images that are not trained on; the final scores on "
        f"{first['test_images']:,} test images, once, after the last step."
    )


def differences(each: Study, configs: Mapping[str, Config]) -> str:
    """What the resolved config of each variant has that the baseline's has not."""
    base = configs[each.baseline.name]
    lines = []
    for variant in each.variants:
        own = configs[variant.name]
        changed = [
            f"`{key}` {text(own.get(key, '–'))} ({text(base.get(key, '–'))})"
            for key in {**own, **base}
            if key not in PER_RUN and own.get(key) != base.get(key)
        ]
        lines.append(f"- {variant.label}: {', '.join(changed)}\n")
    return (
        f"Resolved settings that differ from {each.baseline.label} (its own):\n\n{''.join(lines)}"
    )


def shared(configs: list[Config]) -> str:
    """A table for each recipe: what all of its runs share, beside what the Xception paper says.

    What the paper speaks of stands there even if the runs differ in it.
    """
    recipes = dict.fromkeys(each["recipe"] for each in configs)
    return "\n".join(
        f"Recipe `{recipe}`:\n\n" * (len(recipes) > 1)
        + _of_recipe([each for each in configs if each["recipe"] == recipe])
        for recipe in recipes
    )


def _of_recipe(configs: list[Config]) -> str:
    told = paper.RECIPES.get(configs[0]["recipe"], {})
    unused = OF_RMSPROP if configs[0]["optimiser"] == "sgd" else set()
    rows = []
    for key in {key: None for each in configs for key in each}:
        found = list(dict.fromkeys(text(each[key]) for each in configs if key in each))
        alike = len(found) == 1 and all(key in each for each in configs)
        if key not in PER_RUN | unused and (alike or key in told):
            rows.append((f"`{key}`", " or ".join(found), told.get(key, "")))
    header = ("Setting", "Here", "In the Xception paper")
    return markdown(header, rows) if told else markdown(header[:2], [row[:2] for row in rows])


def hardware(scale: str, variants: list[str]) -> str:
    """The processors of the runs, if their measurements are on disk; no times, which vary."""
    files = [
        path
        for name in variants
        for path in sorted((RESULTS / scale / "measured" / name).glob("seed-*.json"))
    ]
    found = {json.loads(path.read_text())["hardware"]["processor"] for path in files}
    return f"Trained on: {', '.join(sorted(found))}.\n" if found else ""


def text(value: object) -> str:
    """A setting as a person writes it."""
    if isinstance(value, float):
        return scientific(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
