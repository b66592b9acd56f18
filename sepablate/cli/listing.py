"""The command `list`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sepablate import study
from sepablate.cli.options import JsonOption, print_json, require_project
from sepablate.execution import variant_options


def list_(as_json: JsonOption = False) -> None:
    """Name the studies and their variants; find typos in options and equal variants."""
    require_project()
    variants = study.variants()
    variant_options.check(variants.values())
    studies = _studies(variant_options.same(variants))
    if as_json:
        print_json({"studies": studies})
        return
    for each in studies:
        print(f"{each['name']}: {each['title']}")
        for part in [*each["variants"], *each["settings"]]:
            other = part.get("same_as")
            same = f" (network and recipe of {other})" if other else ""
            print(f"    {part['name']:27} {part['label']}{same}")


def _studies(same: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return all studies by kind: comparison, layers, robustness.

    same: of a variant whose network and recipe another has too, that other.
    """
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
        settings = [{"name": each.name, "label": pooled.label(each)} for each in pooled.settings]
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
