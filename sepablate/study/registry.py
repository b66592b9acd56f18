"""The studies that `experiments/` declares, one in each file."""

import importlib.util
import traceback
from pathlib import Path

from sepablate.errors import UserError
from sepablate.study.layer_study import LayerStudy
from sepablate.study.study import Study
from sepablate.study.variant import INCEPTION_V3_2016, Variant, check_name

FOLDER = Path("experiments")
AnyStudy = Study | LayerStudy


def names(folder: Path = FOLDER) -> list[str]:
    """The declared studies: the file names of `folder`."""
    return sorted(path.stem for path in folder.glob("[!_]*.py"))


def load(name: str, folder: Path = FOLDER) -> "AnyStudy":
    """The study that `experiments/<name>.py` declares as STUDY; UserError if there is none."""
    check_name(name, "study")
    if name not in names(folder):
        raise UserError(f"study {name!r} in {folder}/: choose {', '.join(names(folder))}")
    path = folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiments.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(_located(error, path)) from None
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study | LayerStudy):
        raise UserError(f"{path}: declares no STUDY = Study(...)")
    return study


def _located(error: Exception, path: Path) -> str:
    """What is wrong in a study file, and in which line, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.absolute())]
    line = getattr(error, "lineno", None) or [1, *lines][-1]
    said = error.msg if isinstance(error, SyntaxError) else error
    return " ".join(f"{path}:{line}: {type(error).__name__}: {said}".split())


def variants(folder: Path = FOLDER) -> dict[str, Variant]:
    """Every variant of every study by name, each once; UserError if two differ under one name."""
    found: dict[str, Variant] = {}
    for name in names(folder):
        for variant in load(name, folder).all_variants:
            if found.setdefault(variant.name, variant) != variant:
                raise UserError(
                    f"variant {variant.name!r} in {folder}/{name}.py: the name is taken"
                )
    return found


def variant(name: str, folder: Path = FOLDER) -> Variant:
    """The variant of that name, of a study or only counted; UserError with the valid names."""
    declared = {**variants(folder), INCEPTION_V3_2016.name: INCEPTION_V3_2016}
    if name not in declared:
        raise UserError(f"variant {name!r} in {folder}/: choose {', '.join(declared)}")
    return declared[name]


def studies_with(variant_name: str, folder: Path = FOLDER) -> list[str]:
    """The studies that compare the variant of that name."""
    return [
        name
        for name in names(folder)
        if variant_name in [each.name for each in load(name, folder).all_variants]
    ]
