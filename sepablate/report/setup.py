"""What a report's runs have in common, what they differ in, and what the papers say of it."""

import json
from collections.abc import Mapping
from typing import Any

from sepablate.analysis.load_runs import RESULTS
from sepablate.analysis.summary_table import markdown, scientific
from sepablate.paper import xception as paper
from sepablate.study import Study

Config = Mapping[str, Any]
PER_RUN = {"variant", "label", "run_keys", "source_digest"}
OF_RMSPROP = {"rho", "epsilon"}
OF_THE_IMAGES = ("dataset", "model.classes", "image_size", "model.in_channels")


def trained(studies: Mapping[str, Study], configs: Mapping[str, Config]) -> str:
    """What was trained, on what and for how long; a line for each kind of images and networks.

    All runs of a scale have as many images, seeds and gradient steps.
    """
    kinds: dict[tuple[Any, ...], list[Study]] = {}
    for each in studies.values():
        first = configs[each.baseline.name]
        kind = (*(first[key] for key in OF_THE_IMAGES), first["model"])
        kinds.setdefault(kind, []).append(each)
    first = next(iter(configs.values()))
    alike = len(kinds) == 1
    parts = [
        f"{len(configs)} networks were trained from scratch, each {len(first['seeds'])} times "
        f"(seeds {text(first['seeds'])}), on {first['images']:,} images"
        f"{_images(first) if alike else ''}: {first['steps']:,} gradient steps, each on "
        f"{first['batch_size']} images (epochs: {text(first['epochs'])}).",
        *([_networks(list(studies.values()), configs)] if alike else []),
        f"The curves are measured on {first['validation_images']:,} images that are not trained "
        f"on; the final scores on {first['test_images']:,} test "
        "images, once, after the last step.",
    ]
    lines = [_line(each, configs) for each in kinds.values()]
    return " ".join(parts) + "\n" + ("" if alike else "\n" + "".join(lines))


def _line(studies: list[Study], configs: Mapping[str, Config]) -> str:
    titles = "; ".join(f"*{each.title}*" for each in studies)
    images = _images(configs[studies[0].baseline.name])
    return f"- {titles}: images{images}. {_networks(studies, configs)}\n"


def _images(config: Config) -> str:
    size, channels = config["image_size"], config["model.in_channels"]
    return (
        f" of `{config['dataset']}` in {config['model.classes']} classes, given as "
        f"{size} x {size} x {channels}"
    )


def _networks(studies: list[Study], configs: Mapping[str, Config]) -> str:
    """Sizes; the width is that of the first study's baseline."""
    baseline = studies[0].baseline
    first = configs[baseline.name]
    sizes = [
        configs[variant.name]["parameters"] for each in studies for variant in each.all_variants
    ]
    wide = f"{first['model.width']:g} times" if first["model.width"] != 1 else "just"
    return (
        f"{baseline.label} is {wide} as wide as published and has {first['parameters']:,} "
        f"parameters; the networks have {min(sizes):,} to {max(sizes):,}."
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
    """What the runs were trained on, if their measurements are on disk; no times, which vary."""
    files = [
        path
        for name in variants
        for path in sorted((RESULTS / scale / "measured" / name).glob("seed-*.json"))
    ]
    machines = [json.loads(path.read_text())["hardware"] for path in files]
    found = {
        each["processor"] if each.get("accelerator", "none") == "none" else each["accelerator"]
        for each in machines
    }
    return f"Trained on: {', '.join(sorted(found))}.\n" if found else ""


def text(value: object) -> str:
    """A setting as a person writes it."""
    if isinstance(value, float):
        return scientific(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
