"""The setup of a report's runs: shared settings, differences, and the paper's settings."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sepablate.analysis.formatting import markdown_table, scientific
from sepablate.analysis.load_runs import Config
from sepablate.errors import UserError
from sepablate.paper import xception as paper
from sepablate.report.at_scale import images, reading_of_decays
from sepablate.store import collected_runs, layout
from sepablate.store.files import read_json
from sepablate.study import Study

PER_RUN = {"variant", "label", "run_keys", "source_digest", layout.CONSTANT_SCORES}
RMSPROP_ONLY = {"rho", "epsilon", "initial_square"}
DESCRIBE_IMAGES = ("dataset", "model.classes", "image_size", "model.in_channels")


def trained(studies: Mapping[str, Study], configs: Mapping[str, Config]) -> str:
    """Return the networks, images and steps of the training, a line per kind of images and steps.

    All runs of a scale have as many seeds and images; gradient steps may depend on the recipe.
    """
    kinds: dict[tuple[object, ...], list[Study]] = {}
    for declared in studies.values():
        first = configs[declared.baseline.name]
        kind = (*(first[key] for key in DESCRIBE_IMAGES), first["model"], first["steps"])
        kinds.setdefault(kind, []).append(declared)
    first = next(iter(configs.values()))
    alike, same_steps = len(kinds) == 1, len({kind[-1] for kind in kinds}) == 1
    parts = [
        f"{len(configs)} networks were trained from scratch, each {_times(len(first['seeds']))} "
        f"(seeds {text(first['seeds'])}), on {first['images']:,} "
        f"{images(first) if alike else 'images'}{': ' + _steps(first) if same_steps else ''}.",
        *([_networks(list(studies.values()), configs)] if alike else []),
        f"The curves are measured on {first['validation_images']:,} images that are not trained "
        f"on; the final scores on {first['test_images']:,} test "
        "images, once, after the last step.",
    ]
    lines = [_line(of_kind, configs, not same_steps) for of_kind in kinds.values()]
    return " ".join(parts) + "\n" + ("" if alike else "\n" + "".join(lines))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _steps(config: Config) -> str:
    return (
        f"{config['steps']:,} gradient steps, each on {config['batch_size']} images "
        f"(epochs: {text(config['epochs'])})"
    )


def _line(studies: list[Study], configs: Mapping[str, Config], with_steps: bool) -> str:
    titles = "; ".join(f"*{declared.title}*" for declared in studies)
    first = configs[studies[0].baseline.name]
    steps = f"; {_steps(first)}" if with_steps else ""
    return f"- {titles}: {images(first)}{steps}. {_networks(studies, configs)}\n"


def _networks(studies: list[Study], configs: Mapping[str, Config]) -> str:
    """Return the sizes of the networks; the width is that of the first study's baseline."""
    baseline = studies[0].baseline
    first = configs[baseline.name]
    sizes = [
        configs[variant.name]["parameters"]
        for declared in studies
        for variant in declared.all_variants
    ]
    wide = f"{first['model.width']:g} times" if first["model.width"] != 1 else "just"
    differ = f"; the networks have {min(sizes):,} to {max(sizes):,}"
    others = differ if min(sizes) < max(sizes) else ", as the other networks"
    return (
        f"{baseline.label} is {wide} as wide as published and has {first['parameters']:,} "
        f"parameters{others}."
    )


def differences(declared: Study, configs: Mapping[str, Config]) -> str:
    """Return the settings of each variant that differ from the baseline's."""
    base = configs[declared.baseline.name]
    lines = []
    for variant in declared.variants:
        config = configs[variant.name]
        changed = [
            f"`{key}` {text(config.get(key, '–'))} ({text(base.get(key, '–'))})"
            for key in {**config, **base}
            if key not in PER_RUN and config.get(key) != base.get(key)
        ]
        lines.append(f"- {variant.label}: {', '.join(changed)}\n")
    return (
        f"Resolved settings that differ from {declared.baseline.label} (whose values are in "
        f"parentheses):\n\n{''.join(lines)}"
    )


def shared(studies: Mapping[str, Study], configs: Mapping[str, Config]) -> str:
    """Return a table per recipe: the settings that its runs share, and the Xception paper's.

    The settings that the paper gives are listed even if the runs differ in them. Recipes with which
    no study on the paper trains are without its column.
    """
    of_paper = {
        configs[variant.name]["recipe"]
        for declared in studies.values()
        if is_on_paper(declared)
        for variant in declared.all_variants
    }
    recipes: dict[str, list[Config]] = {}
    for config in configs.values():
        recipes.setdefault(config["recipe"], []).append(config)
    return "\n".join(
        f"Recipe `{recipe}`:\n\n" * (len(recipes) > 1)
        + _recipe_table(alike, paper.RECIPES.get(recipe, {}) if recipe in of_paper else {})
        + (
            f"\n{reading}"
            if recipe in of_paper and (reading := reading_of_decays(alike[0]))
            else ""
        )
        for recipe, alike in recipes.items()
    )


def is_on_paper(declared: Study) -> bool:
    """Return whether a study names the Xception paper, in any version, as its source."""
    return re.sub(r"v\d+$", "", paper.SOURCE) in declared.source


def _recipe_table(configs: Sequence[Config], printed: Mapping[str, str]) -> str:
    unused = RMSPROP_ONLY if configs[0]["optimizer"] == "sgd" else set()
    rows = []
    for key in {key: None for config in configs for key in config}:
        values = list(dict.fromkeys(text(config[key]) for config in configs if key in config))
        alike = len(values) == 1 and all(key in config for config in configs)
        if key not in PER_RUN | unused and (alike or key in printed):
            rows.append((f"`{key}`", " or ".join(values), printed.get(key, "")))
    header = ("Setting", "Here", "In the Xception paper")
    if not printed:
        return markdown_table(header[:2], [row[:2] for row in rows])
    return markdown_table(header, rows)


def hardware(scale: str, variants: Sequence[str]) -> str:
    """Return the hardware of the runs, if their measurements are on disk; no times, which vary."""
    paths = [
        collected_runs.seed_measurements(scale, variant, seed)
        for variant in variants
        for seed in collected_runs.collected_seeds(scale, variant)
    ]
    names = {_machine_name(path) for path in paths if path.is_file()}
    return f"Trained on: {', '.join(sorted(names))}.\n" if names else ""


def _machine_name(path: Path) -> str:
    """Return the accelerator that a run's measurements name, or else the processor."""
    hardware = read_json(path, dict).get("hardware")
    if not isinstance(hardware, dict) or "processor" not in hardware:
        raise UserError(f"{path}: names no hardware")
    accelerator = hardware.get("accelerator", "none")
    return str(hardware["processor"] if accelerator == "none" else accelerator)


def text(value: object) -> str:
    """Return the value of a setting in short form."""
    if isinstance(value, float):
        return scientific(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
