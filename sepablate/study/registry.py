"""The studies that `experiments/` declares, one in each file.

Most are comparisons (Study), which train networks; some time single layers (LayerStudy), and one
takes the claims of comparisons to further settings (RobustnessStudy).
"""

import functools
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sepablate.errors import UserError, choices
from sepablate.study.layer_study import LayerStudy
from sepablate.study.robustness import RobustnessStudy, Setting
from sepablate.study.study import Claim, Study, compared_variants
from sepablate.study.variant import INCEPTION_V3_2016, Variant, check_name

FOLDER = Path("experiments")
LARGEST = 1_000_000  # bytes of a study
Declared = Study | LayerStudy | RobustnessStudy
Kind = TypeVar("Kind", Study, LayerStudy, RobustnessStudy)
COMMANDS = {
    Study: "compares trained networks: run `sepablate study {}`",
    LayerStudy: "times layers: run `sepablate layers {}`",
    RobustnessStudy: "pools settings: run `sepablate robustness {}`",
}


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the comparisons in `folder`, which are the names of their files."""
    return list(_comparisons(folder))


def layer_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the studies in `folder` that time layers."""
    declared = _all_declared(folder).items()
    return [name for name, study in declared if isinstance(study, LayerStudy)]


def robustness_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the studies in `folder` that take claims to further settings."""
    declared = _all_declared(folder).items()
    return [name for name, study in declared if isinstance(study, RobustnessStudy)]


def load(name: str, folder: Path = FOLDER) -> Study:
    """Return the comparison that `experiments/<name>.py` declares; UserError if there is none."""
    return _of_kind(Study, name, names, folder)


def load_layers(name: str, folder: Path = FOLDER) -> LayerStudy:
    """Return the layer study that `experiments/<name>.py` declares; UserError if there is none."""
    return _of_kind(LayerStudy, name, layer_names, folder)


def load_robustness(name: str, folder: Path = FOLDER) -> RobustnessStudy:
    """Return the robustness study of `experiments/<name>.py`; UserError if there is none."""
    return _of_kind(RobustnessStudy, name, robustness_names, folder)


def robustness_claims(name: str, folder: Path = FOLDER) -> list[tuple[str, Claim]]:
    """Return the claims that a robustness study takes to its settings, each with its own study.

    Raises UserError for an unknown study, or if none of its claims is on the metric.
    """
    declared = load_robustness(name, folder)
    pairs = [(each, claim) for each in declared.studies for claim in load(each, folder).claims]
    claims = [(each, claim) for each, claim in pairs if claim.metric == declared.metric]
    if not claims:
        raise UserError(f"study {name!r}: its studies have no claim on {declared.metric!r}")
    return claims


def robustness_variants(name: str, folder: Path = FOLDER) -> list[str]:
    """Return the variants that the claims of a robustness study compare, in their order.

    Raises UserError as `robustness_claims` does.
    """
    return compared_variants(claim for _, claim in robustness_claims(name, folder))


def setting(name: str, folder: Path = FOLDER) -> tuple[RobustnessStudy, Setting]:
    """Return the setting of that name, and the study that declares it; UserError if none does."""
    declared = [load_robustness(each, folder) for each in robustness_names(folder)]
    by_name = {each.name: (study, each) for study in declared for each in study.settings}
    if name not in by_name:
        raise UserError(f"setting {name!r} in {folder}/: {choices(name, by_name)}")
    return by_name[name]


def variants(folder: Path = FOLDER) -> dict[str, Variant]:
    """Return every variant of every study by name; UserError if two differ under one name."""
    by_name: dict[str, Variant] = {}
    for name, declared in _comparisons(folder).items():
        for variant in declared.all_variants:
            if by_name.setdefault(variant.name, variant) != variant:
                raise UserError(
                    f"variant {variant.name!r} in {folder}/{name}.py: the name is taken"
                )
    return by_name


def variant(name: str, folder: Path = FOLDER) -> Variant:
    """Return the variant of that name, of a study or only counted; UserError if there is none."""
    declared = {**variants(folder), INCEPTION_V3_2016.name: INCEPTION_V3_2016}
    if name not in declared:
        if name in _comparisons(folder):
            own = ", ".join(each.name for each in _comparisons(folder)[name].all_variants)
            raise UserError(f"variant {name!r}: is a study; choose a variant of it: {own}")
        raise UserError(f"variant {name!r} in {folder}/: {choices(name, declared)}")
    return declared[name]


def studies_with(variant_name: str, folder: Path = FOLDER) -> list[str]:
    """Return the studies that compare the variant of that name."""
    return [
        name
        for name, declared in _comparisons(folder).items()
        if any(variant.name == variant_name for variant in declared.all_variants)
    ]


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("[!_.#]*.py"))


def _comparisons(folder: Path) -> dict[str, Study]:
    """Return the comparisons in `folder` by name."""
    declared = _all_declared(folder).items()
    return {name: study for name, study in declared if isinstance(study, Study)}


def _all_declared(folder: Path) -> dict[str, Declared]:
    """Return what the files in `folder` declare, by name."""
    return {name: _declared(name, folder) for name in _stems(folder)}


def _of_kind(kind: type[Kind], name: str, valid: Callable[[Path], list[str]], folder: Path) -> Kind:
    """Return the study of that name; UserError, with the command that it is for, for another."""
    declared = _checked(name, valid, folder)
    if not isinstance(declared, kind):
        raise UserError(f"study {name!r} {COMMANDS[type(declared)].format(name)}")
    return declared


def _checked(name: str, valid: Callable[[Path], list[str]], folder: Path) -> Declared:
    """Return what the file of that name declares; UserError, with the valid names, if none has."""
    check_name(name, "study")
    if name not in _stems(folder):
        raise UserError(f"study {name!r} in {folder}/: {choices(name, valid(folder))}")
    return _declared(name, folder)


def _declared(name: str, folder: Path) -> Declared:
    """Return what `experiments/<name>.py` declares as STUDY."""
    path = folder / f"{name}.py"
    if path.exists() and not path.is_file():  # to open a pipe would wait for ever
        raise UserError(f"{path}: not a regular file; move it away")
    if path.is_file() and path.stat().st_size > LARGEST:
        raise UserError(f"{path}: holds more than {LARGEST} bytes, as no study; remove it")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(_located(error, path)) from None
    return _executed(name, path, Path.cwd(), content)


@functools.cache
def _executed(name: str, path: Path, home: Path, content: bytes) -> Declared:
    """Return what a study file of that content declares; it is executed once.

    Args:
        name: the study.
        path: the file.
        home: the current folder, from which the path leads to the file.
        content: of the file.
    """
    spec = importlib.util.spec_from_file_location(f"experiments.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(_located(error, path)) from None
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Declared):
        raise UserError(f"{path}: declares no STUDY = Study(...)")
    return study


def _located(error: Exception, path: Path) -> str:
    """Return the error of a study file and its line, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    line = getattr(error, "lineno", None) or [1, *lines][-1]
    message = error.msg if isinstance(error, SyntaxError) else error
    return " ".join(f"{path}:{line}: {type(error).__name__}: {message}".split())
