"""What several files need is written in one of them: quantities, lists and names."""

import ast
import re
from collections.abc import Callable

import pytest
from helpers.project import ROOT

SOURCES = sorted((ROOT / "sepablate").rglob("*.py"))


def _computes_images_seen(node: ast.AST) -> bool:
    """Whether it multiplies gradient steps by a batch size."""
    names = {"steps", "batch_size", "batch"}
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult):
        return False
    sides = [re.findall(r"[a-z_]+", ast.unparse(side)) for side in (node.left, node.right)]
    found = [names & {*words} for words in sides]
    return any("steps" in one for one in found) and any(one - {"steps"} for one in found)


def _collects_sides(node: ast.AST) -> bool:
    """Whether it goes through the two sides of each of some claims, in one comprehension."""
    loops = getattr(node, "generators", [])
    last = ast.unparse(loops[-1].iter) if len(loops) > 1 else ""
    return bool(re.search(r"\.left\b.*\.right\b", last))


def _names_a_pipeline(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == "experiments/dvc.yaml"


def _names_a_remedy(node: ast.AST) -> bool:
    """Whether it names a command of a scale as a remedy: `errors.command` adds the scale."""
    words = "run `sepablate (train|study|layers|robustness|report)"
    return isinstance(node, ast.Constant) and bool(re.search(words, str(node.value)))


@pytest.mark.parametrize(
    ("is_one", "places"),
    [
        (_computes_images_seen, ["store/run_files.py"]),
        (_collects_sides, ["study/study.py"]),
        (_names_a_remedy, ["study/registry.py"]),  # for a study of another kind, at any scale
        (_names_a_pipeline, ["project_files.py", "store/layout.py"]),  # the first imports nothing
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_several_files_need_is_written_in_one(
    is_one: Callable[[ast.AST], bool], places: list[str]
) -> None:
    found = [
        path.relative_to(ROOT / "sepablate").as_posix()
        for path in SOURCES
        if any(map(is_one, ast.walk(ast.parse(path.read_text()))))
    ]
    assert found == places
