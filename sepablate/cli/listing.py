"""The command `list`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sepablate import study
from sepablate.cli.options import JsonOption, ScaleOption, print_json, resolve_scale
from sepablate.execution import variant_options
from sepablate.store import layout


def list_(scale: ScaleOption = None, as_json: JsonOption = False) -> None:
    """Name the studies, their variants and the scales; find typos in options, equal variants.

    A robustness study has the settings that depart from the scale.
    """
    chosen = resolve_scale(scale)
    variants = study.variants()
    variant_options.check(variants.values())
    studies, scales = _studies(variant_options.same(variants), chosen), _scales()
    if as_json:
        print_json({"studies": studies, "scales": scales})
        return
    for each in studies:
        print(f"{each['name']}: {each['title']}")
        if each["settings"]:
            trains = f"`sepablate train {each['name']}` trains them"
            print(f"  settings, departures from scale {chosen}; {trains}:")
        for part in [*each["variants"], *each["settings"]]:
            other = part.get("same_as")
            same = f" (network and recipe of {other})" if other else ""
            print(f"    {part['name']:27} {part['label']}{same}")
    print(f"scales, for --scale, in {layout.PARAMS}:")
    for each in scales:
        print(f"    {each['name']:27} {each['images']:,} images of {each['dataset']}")


def _scales() -> list[dict[str, Any]]:
    """Return the scales with their data sets."""
    from sepablate import scales
    from sepablate.store.params_file import read_params

    loaded = {name: scales.load(name)[0] for name in read_params(layout.PARAMS)["scales"]}
    return [
        {"name": name, "dataset": each.dataset, "images": each.images}
        for name, each in loaded.items()
    ]


def _studies(same: Mapping[str, str], scale: str) -> list[dict[str, Any]]:
    """Return all studies by kind: comparison, layers, robustness.

    Args:
        same: of a variant whose network and recipe another has too, that other.
        scale: from which settings depart.
    """
    from sepablate.runs.settings import names

    studies = []
    for name in study.names():
        declared = study.load(name)
        variants = [
            {"name": each.name, "label": each.label, "same_as": same.get(each.name)}
            for each in declared.all_variants
        ]
        studies.append(_entry(name, "comparison", declared, variants=variants))
    for name in study.layer_names():
        studies.append(_entry(name, "layers", study.load_layers(name)))
    for name in study.robustness_names():
        pooled = study.load_robustness(name)
        there = names(pooled, scale)
        settings = [
            {"name": each.name, "label": pooled.label(each)}
            for each in pooled.settings
            if each.name in there
        ]
        studies.append(_entry(name, "robustness", pooled, settings=settings))
    return studies


def _entry(
    name: str,
    kind: str,
    declared: study.Study | study.LayerStudy | study.RobustnessStudy,
    variants: Sequence[Mapping[str, str | None]] = (),
    settings: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "title": declared.title,
        "source": declared.source,
        "variants": [*variants],
        "settings": [*settings],
    }
