"""The architecture: who may import whom, sizes, and lists that must agree."""

import ast
import functools
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT

from sepablate import data, scales, study
from sepablate.runs.run import Run, resolve
from sepablate.runs.source_hash import KERNELS, SHARED, source_files

FOLDER = ROOT / "experiments"
# A paper's authors, year and place, or a page's; or the words of `sepablate new study`.
SOURCE = r"[A-Z].* (19|20)\d\d, .+|Keras, .+ example|A question of one's own"
LEAVES = {"errors", "rng", "paper", "study", "store", "validation"}
# In this order.
NUMBERS = LEAVES | {"recipes", "scales", "data", "models", "kernels", "runs", "training"}
REPORTS = {"errors", "paper", "store", "study", "analysis", "plots", "report"}
MAY_IMPORT = {
    **{room: set() for room in ("errors", "project_files", "rng")},
    "paper": {"errors"},
    "study": {"errors"},
    "store": {"errors"},
    "validation": {"errors"},
    "recipes": {"errors"},
    "scales": LEAVES | {"recipes"},
    "data": LEAVES | {"scales"},
    "models": LEAVES | {"scales"},
    "kernels": {"models"},
    "runs": LEAVES | {"scales", "data", "models", "kernels"},
    "training": NUMBERS,
    "pretrained": NUMBERS,
    "tracking": {"errors", "store", "study"},
    "execution": NUMBERS | {"tracking"},
    "planning": NUMBERS | {"execution"},
    "profiling": NUMBERS | {"execution"},
    "analysis": {"errors", "paper", "store", "study"},
    "plots": {"errors", "paper", "store", "study", "analysis"},
    "report": REPORTS,
    "provenance": REPORTS | {"data", "tracking"},
    "bench": NUMBERS | {"execution", "profiling", "analysis", "plots"},
    "__init__": {"analysis", "models", "plots", "pretrained", "study"},  # when it is asked for
    "cli": None,  # any
    "__main__": None,
}
ONLY_IN = {
    "mlflow": "sepablate/tracking",
    "matplotlib": "sepablate/plots",
    "distributed": "sepablate/execution/dask_",
}
# The folders that decide numbers, and those of the data set's files; nothing else retrains.
TRAIN_DEPENDENCIES = {
    "sepablate/data",
    "sepablate/kernels",
    "sepablate/models",
    "sepablate/recipes.py",
    "sepablate/rng.py",
    "sepablate/runs",
    "sepablate/scales.py",
    "sepablate/store",
    "sepablate/study",
    "sepablate/training",
}
PIPELINES = {
    path: yaml.safe_load((ROOT / path).read_text())["stages"]
    for path in ("dvc.yaml", "experiments/dvc.yaml")
}
# Lines of longer functions: an edit changes keys of results/workstation, which needs a GPU.
LONGER = {("fit.py", "fit"): 53}
SOURCES = sorted((ROOT / "sepablate").rglob("*.py"))
CPP_SOURCES = sorted((ROOT / "sepablate/kernels/cpu").glob("*.[ch]*"))


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Absolute names of what a file imports; `everywhere`: inside functions as well."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT / "sepablate").parts[0].removesuffix(".py")
    others = {name.split(".")[1] for name in imports(path) if name.startswith("sepablate.")}
    allowed = MAY_IMPORT[room]
    assert allowed is None or others - {room} <= allowed
    for library, place in ONLY_IN.items():
        if any(name.split(".")[0] == library for name in imports(path)):
            assert str(path.relative_to(ROOT)).startswith(place)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_study_files_are_data(path: Path) -> None:
    assert {name.rpartition(".")[0] for name in imports(path)} == {"sepablate.study"}
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert re.match(rf".+\. ({SOURCE})\.\n", text)
    others = [*study.layer_names(FOLDER), *study.robustness_names(FOLDER)]
    assert path.stem in others or study.load(path.stem, FOLDER).factors
    assert all(f"\n{head} " in text for head in ("Question", "Paper", "Deviates"))


def test_command_line_starts_without_heavy_imports() -> None:
    code = "import sys, sepablate.__main__; print([m for m in sys.modules if '.' not in m])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert loaded.returncode == 0
    heavy = {"torch", "torchvision", "mlflow", "matplotlib", "pandas", "numpy", "pydantic", "yaml"}
    assert not heavy & set(ast.literal_eval(loaded.stdout))


def test_workers_begin_with_all_that_a_run_imports_and_no_more() -> None:
    code = "import sys, sepablate.execution.preload; print(list(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = set(ast.literal_eval(found.stdout))
    assert "torch._dynamo" in loaded  # torch imports it for the first optimizer
    assert not {"timm", "torchvision", "pandas", "mlflow", "matplotlib"} & loaded


def test_files_and_functions_stay_small() -> None:
    for path in [*SOURCES, *CPP_SOURCES]:
        assert len(path.read_text().splitlines()) <= 350, path
    for path in SOURCES:
        if path.parent.name == "triton":  # a kernel is one function
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                limit = LONGER.get((path.name, node.name), 50)
                assert lines <= limit, f"{path}: {node.name} has {lines} lines"


def test_no_test_imports_another_test_file() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        parts = {part for name in imports(path) for part in name.split(".")}
        assert not [part for part in parts if part.startswith("test_")], path


def test_no_room_imports_itself_in_a_circle() -> None:
    """Modules, not only rooms: every file can be imported first."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCES
    }
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        imported = imports(path, everywhere=False)
        targets = {each if each in names else each.rpartition(".")[0] for each in imported}
        graph[name] = {each for each in targets if each in names and each != name}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_all_code_that_decides_numbers_is_in_the_run_key() -> None:
    """What training imports is hashed (some with a data set or network), config, or storage."""
    hashed = {*source_files(*SHARED, *KERNELS["fused"], *KERNELS["triton"])}
    assert set((ROOT / "sepablate/training").glob("*.py")) <= hashed
    assert {*CPP_SOURCES, *(ROOT / "sepablate/kernels").rglob("*.py")} - hashed == {
        ROOT / "sepablate/kernels/__init__.py"
    }
    stores = {"errors", "study", "scales", "store", "runs", "validation"}
    also = {"data/split.py", "data/image_files.py", "models/inception_v3.py", "models/xception.py"}
    indexes = {"models/__init__.py", "data/__init__.py", "kernels/__init__.py"}
    for path in sorted((ROOT / "sepablate/training").glob("*.py")):
        for name in imports(path):
            parts = name.split(".")[1:] if name.startswith("sepablate.") else []
            for depth in range(1, len(parts) + 1):
                stem = "/".join(parts[:depth])
                for file in (f"{stem}.py", f"{stem}/__init__.py"):
                    source = ROOT / "sepablate" / file
                    if source.exists() and parts[0] not in stores:
                        assert source in hashed or file in also | indexes, (path, file)
    for name, module in data.DATASETS.items():
        source = Path(str(module.__file__))  # type: ignore[attr-defined]
        assert source.relative_to(ROOT / "sepablate").as_posix() in module.SOURCES, name
        for imported in imports(source):
            for each in ("fashion_mnist", "image_files", "shards", "split"):
                if imported.startswith(f"sepablate.data.{each}."):
                    assert f"data/{each}.py" in module.SOURCES, (name, each)


def test_pipelines_list_the_declared_variants_each_once() -> None:
    both = [pipeline["train"]["foreach"] for pipeline in PIPELINES.values()]
    listed = dict(pair for each in both for pair in each.items())
    assert len(listed) == sum(map(len, both)), "a variant stands in both pipelines"
    for name in study.names(FOLDER):
        for variant in study.load(name, FOLDER).all_variants:
            assert variant.name in listed, f"run `sepablate new stages {name}`"
    for variant_name, name in listed.items():
        declared = [each.name for each in study.load(name, FOLDER).all_variants]
        assert variant_name in declared, f"{name} declares no {variant_name}"


def test_pipelines_list_the_declared_studies() -> None:
    for name in study.names(FOLDER):
        found = [stages for stages in PIPELINES.values() if name in stages]
        assert len(found) == 1, f"run `sepablate new stages {name}`"
        runs = [dep for dep in found[0][name]["deps"] if "/runs/" in dep]
        expected = [
            f"results/${{scale}}/runs/{each.name}" for each in study.load(name, FOLDER).all_variants
        ]
        assert sorted(runs) == sorted(expected), f"{name}: deps: list {expected}"
        commands = {key: stage.get("cmd", "").split() for key, stage in found[0].items()}
        (report,) = [key for key, words in commands.items() if {"report", name} <= {*words}]
        needed = {f"results/${{scale}}/{name}", f"experiments/{name}.py"}
        assert needed <= set(found[0][report]["deps"])


def test_pipelines_list_the_layer_studies() -> None:
    commands = [s.get("cmd") for stages in PIPELINES.values() for s in stages.values()]
    for name in study.layer_names(FOLDER):
        command = f"python -m sepablate layers {name} --scale ${{scale}}"
        assert commands.count(command) == 1, f"add to dvc.yaml:\n{name}: {command}"


def test_pipelines_list_the_robustness_studies() -> None:
    stages = {name: stage for each in PIPELINES.values() for name, stage in each.items()}
    for name in study.robustness_names(FOLDER):
        training, report = stages[f"train_{name}"], stages[name]
        own = {f"experiments/{each}.py" for each in (name, *study.load_robustness(name).studies)}
        assert set(training["deps"]) == TRAIN_DEPENDENCIES | own
        assert training["cmd"] == f"python -m sepablate train {name} --scale ${{scale}}"
        sides = {side for _, c in study.robustness_claims(name) for side in (c.left, c.right)}
        needed = {f"results/${{scale}}/runs/{side}" for side in sides} | {*training["outs"]}
        assert needed | own <= set(report["deps"])


@pytest.mark.parametrize("path", PIPELINES)
def test_stages_depend_on_the_folders_that_they_import(path: str) -> None:
    deps = {dep for dep in PIPELINES[path]["train"]["do"]["deps"] if dep.startswith("sepablate/")}
    assert deps == TRAIN_DEPENDENCIES
    rooms = {f"sepablate/{room}" for room in REPORTS - {"errors"}}
    for name, stage in PIPELINES[path].items():
        if stage.get("cmd", "").split()[3:4] in (["study"], ["report"], ["layers"], ["robustness"]):
            assert rooms <= {*stage["deps"]}, name


@functools.cache
def resolved(name: str, scale_name: str) -> Run:
    scale, recipes = scales.load(scale_name, ROOT / "params.yaml")
    declared = study.variant(name, FOLDER)
    return resolve(declared, scale_name, scale, recipes, scale.seeds[0], "fp32")


@pytest.mark.parametrize("name", study.names(FOLDER))
def test_every_variant_resolves(name: str) -> None:
    """At the smallest scale; those of the larger ones are in their results, or below."""
    declared = study.load(name, FOLDER)
    scale, recipes = scales.load("smoke", ROOT / "params.yaml")
    tolerance = 0.05  # whole channels, of few
    runs = {variant.name: resolved(variant.name, "smoke") for variant in declared.all_variants}
    for variant in declared.all_variants:
        run = runs[variant.name]
        if variant.same_parameters_as is not None:
            target = resolved(variant.same_parameters_as.name, "smoke").parameters
            assert run.parameters == pytest.approx(target, rel=tolerance)
        assert run.options.get("stem_stride", scale.stem_stride) == scale.stem_stride
        epsilon = recipes[variant.recipe].norm_epsilon
        assert run.options.get("norm_epsilon", epsilon) == epsilon
    assert len({run.key for run in runs.values()}) == len(runs)


@pytest.mark.parametrize("scale_name", ["workstation", "paper"])
def test_the_published_networks_resolve_at_the_large_scales(scale_name: str) -> None:
    ours, theirs = (resolved(each, scale_name) for each in ("xception", "inception_v3"))
    if scale_name == "paper":  # as they were published
        assert (ours.parameters, theirs.parameters) == (22_855_952, 23_834_568)
        assert (ours.scale.steps, ours.image_size) == (223_380, 299)
    else:
        assert theirs.parameters == pytest.approx(ours.parameters, rel=0.01)


def test_variants_differ_in_what_they_declare() -> None:
    declared = study.variants(FOLDER)
    baseline = declared["xception"]
    assert declared["inception_v3"].weight_decay == 4e-5
    assert baseline.weight_decay == 1e-5
    assert declared["xception_decay_4e-5"].weight_decay == 4e-5
    assert declared["inception_v3_decay_1e-5"].weight_decay == 1e-5
    assert 0.045 in declared["no_residual_tuned"].learning_rates
    for name, options in {
        "no_residual": {"residual": False},
        "no_residual_wide": {"residual": False},
        "relu_between": {"activation_between": "relu"},
        "elu_between": {"activation_between": "elu"},
        "none_after": {"activation_after": "none"},
        "no_residual_tuned": {"residual": False},
        "norm_between": {"norm_between": True},
        "norm_relu_between": {"norm_between": True, "activation_between": "relu"},
        "xception_tensorflow": {"borders": "tensorflow"},
    }.items():
        assert dict(declared[name].options) == options
        assert declared[name].weight_decay == baseline.weight_decay
        assert declared[name].model == baseline.model


def test_bad_studies_are_refused(tmp_path: Path) -> None:
    good = study.load("residual_connections", FOLDER)
    with pytest.raises(ValueError, match="duplicate variant"):
        study.Study("t", "s", good.baseline, (good.baseline,), (), ())
    with pytest.raises(ValueError, match=r"'xception'.*no_residual"):
        study.Study("t", "s", good.variants[0], (), good.claims, ())
    for change in ({"comparison": "~"}, {"metric": "loss"}, {"margin": 0.0}):
        with pytest.raises(ValueError, match=str(*change.values())):
            study.Claim(**{**vars(good.claims[0]), **change})
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty\.py: declares no STUDY"):
        study.load("empty", tmp_path)
    (tmp_path / "empty.py").unlink()
    for name in ("one", "two"):
        text = (FOLDER / "residual_connections.py").read_text()
        changed = text.replace("residual=False", "activation_after='none'")
        (tmp_path / f"{name}.py").write_text(text if name == "one" else changed)
    with pytest.raises(ValueError, match=r"'no_residual'.*two\.py: the name is taken"):
        study.variants(tmp_path)


def test_nothing_phones_home() -> None:
    assert "analytics = false" in (ROOT / ".dvc/config").read_text()
    code = "import sepablate.tracking, os; print(os.environ['MLFLOW_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "true"
