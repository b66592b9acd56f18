"""The documentation: its links, its code, and what it says of the results and of the version."""

import doctest
import inspect
import json
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import fork_server
from helpers.project import EXAMPLE, NETWORK, ROOT
from typer.main import get_command

import sepablate
from sepablate.analysis.formatting import replace_section
from sepablate.cli.app import app
from sepablate.errors import UserError
from sepablate.report import readme

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").rglob("*.md")]
)
README = (ROOT / "README.md").read_text()
PAGE_OF_COMMANDS = ROOT / "docs/commands.md"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        path, _, anchor = "".join(target).partition("#")
        if not path.startswith("https://"):
            file = page.parent / path if path else page
            assert file.exists(), f"{page}: {path}"
            assert not anchor or anchor in anchors(file), f"{page}: {path}#{anchor}"


def test_every_page_is_in_the_sites_navigation() -> None:
    named = set(re.findall(r"^ +- [\w' ]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert all((ROOT / name).exists() for name in named)
    pages = {path.relative_to(ROOT).as_posix() for path in PAGES}
    reports = {name for name in pages if name.startswith("results/")}
    assert pages - reports == named - reports
    assert {f"results/laptop/{name}.md" for name in ("REPORT", "CONTROLS")} <= named


def test_docstrings_of_the_api_have_an_entry_for_each_parameter() -> None:
    """MkDocs reads no others, and ends `make docs`."""
    shown = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.M)
    assert len(shown) > 15
    for name in shown:
        source = inspect.getsource(pkgutil.resolve_name(name))
        for entries in re.findall(r"^ +Args:\n((?: +\S.*\n)+)", source, re.M):
            assert not re.findall(r"^ +\w+(?:, \w+)+:", entries, re.M), name


def test_the_readme_says_what_the_verdicts_say() -> None:
    """If it does not: `make readme`."""
    verdicts = json.loads((ROOT / "results/laptop/verdicts.json").read_text())
    carrying = json.loads((ROOT / "results/laptop/robustness/carrying.json").read_text())
    larger = json.loads((ROOT / "results/workstation/verdicts.json").read_text())
    lines = readme.results(verdicts, carrying) + readme.over_settings(carrying)
    lines += "\n" + readme.at_larger_scale(larger)
    assert f"<!-- results -->\n{lines}<!-- /results -->\n" in README


def test_the_readmes_lines_on_results() -> None:
    """With the interval that the verdict rests on; claims that are not pooled have dashes."""
    verdicts = [
        {
            "measured": {
                "study": "one",
                "claim": {
                    "left": left,
                    "comparison": ">",
                    "right": "b",
                    "metric": metric,
                    "statement": f"{left} beats b",
                    "section": "4.6",
                },
                "seeds": [0, 1, 2],
                "mean": -0.01,
                "low": -0.02,
                "high": 0.001,
            },
            "corrected_low": -0.03,
            "corrected_high": None,
            "outcome": outcome,
            "sentence": "So it is." + " ‡ Far below." * (left == "a"),
        }
        for left, metric, outcome in (
            ("a", "speed", "contradicted"),
            ("a", "accuracy", "holds"),
            ("c", "accuracy", "inconclusive"),
        )
    ]
    seen, means = (50, 100, 200, 400), (0.02, 0.01, 0.08, 0.09)
    recipes = ("tuned", "tuned", "tuned", "other")
    settings = [
        {"levels": {"budget": str(images), "recipe": recipe}, "images_seen": images}
        for images, recipe in zip(seen, recipes, strict=True)
    ]
    carrying = [
        {
            "effects": {"claim": verdicts[1]["measured"]["claim"], "settings": settings},
            "means": [[mean, None, None] for mean in means],
            "estimate": {"new_low": -0.005, "new_high": 0.5},
            "outcome": "open",
        }
    ]
    head, _, _, _, *lines = readme.results(verdicts, carrying).splitlines()
    assert "on 3 claims" in head
    assert "*holds* 1, *contradicted* 1, *inconclusive* 1." in head
    numbers = "−1.00 [−3.00, –], n = 3"
    assert lines == [
        f"| A beats b | {numbers} | **holds** ‡ | +2.00 to +8.00 | [−0.50, +50.00] | **open** |",
        f"| C beats b | {numbers} | **inconclusive** | – | – | – |",
        "",
        "‡ Far below. ",
    ]
    assert "(50 to 400 images seen)" in readme.over_settings(carrying).replace("images; ", "(")


def test_a_section_is_replaced_between_its_lines() -> None:
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert replace_section(text, "x", "new\n") == text.replace("old", "new")
    with pytest.raises(UserError, match="no lines <!-- y -->"):
        replace_section(text, "y", "")


def test_the_readmes_python_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = fork_server.run(ROOT, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch.Size([2, 10])\n")
    assert "No shortcuts" in done.stdout


def test_the_examples_of_statistics_print_what_they_say() -> None:
    done = doctest.testfile(str(ROOT / "docs/verdicts.md"), module_relative=False)
    assert done.attempted >= 8
    assert done.failed == 0


def test_the_readme_is_read_in_minutes() -> None:
    """Details are on the pages that it names; some of its lines are generated."""
    assert len(README.splitlines()) <= 160
    _, _, benchmark = README.partition("<!-- benchmark -->\n")
    table = benchmark.partition("<!-- /benchmark -->")[0]
    _, _, *rows = [each for each in table.splitlines() if each.startswith("|")]
    assert 1 <= len(rows) <= 10


def test_the_readme_says_what_a_first_look_and_a_question_need() -> None:
    """The command of a first look, and where the baseline's runs come from."""
    assert "run `make repro SCALE=smoke`" in README
    assert "are trained already" not in README
    assert "there after `make repro`" in README.partition("<!-- own question -->")[2]


def test_another_scale_for_one_time_reports_what_the_pipeline_does() -> None:
    """No file of the pipeline changes: each command names the scale."""
    make = ["make", "-n", "-o", ".venv/.installed", "repro", "SCALE=smoke"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [
        line for line in done.stdout.splitlines() if "sepablate " in line and "echo" not in line
    ]
    assert [line.count("--scale smoke") for line in lines] == [1] * 4
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["cmd"]
    studies = stage.partition("${scale}")[2].split()
    assert lines[-1].split() == ["sepablate", "report", *studies, "--scale", "smoke"]
    assert f"for study in {' '.join(studies)}; do sepablate study $study " in lines[2]


def test_the_page_follows_a_reproduction_and_needs_none() -> None:
    make = ["make", "-n", "-o", ".venv/.installed", "repro", "ui", "verify"]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("dvc", "sepablate"))]
    assert lines == ["dvc repro", "sepablate publish || true", "sepablate ui", "sepablate verify"]


def commands_of(text: str) -> list[list[str]]:
    """The words of each `sepablate ...` in the blocks of code, without comments."""
    blocks = "".join(re.findall(r"^```\n(.*?)^```", text, re.M | re.S)).replace("\\\n", "")
    lines = [line.partition("  #")[0].split() for line in blocks.splitlines()]
    return [line[1:] for line in lines if line and line[0] == "sepablate"]


def command_of(words: list[str]) -> tuple[str, Any]:
    """The command that words name, as the command line finds it, with its full name."""
    command: Any = get_command(app)
    names = []
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, " ".join(words)
        command = command.commands[word]
        names.append(word)
    return " ".join(names), command


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_the_commands_of_a_page_have_these_names_and_options(page: str) -> None:
    written = commands_of((ROOT / page).read_text())
    assert len(written) > 2
    for words in written:
        _, command = command_of(words)
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


def test_every_command_is_on_its_page() -> None:
    written = {command_of(words)[0] for words in commands_of(PAGE_OF_COMMANDS.read_text())}
    top: Any = vars(get_command(app))["commands"]
    assert {name.partition(" ")[0] for name in written} == {*top}
    assert {f"new {name}" for name in top["new"].commands} <= written


@pytest.mark.parametrize("example", [EXAMPLE, NETWORK])
def test_the_examples_of_a_study_and_a_network_are_the_files(example: str) -> None:
    code = f"```python\n{(ROOT / example).read_text()}```"
    assert code in (ROOT / "docs/extending.md").read_text()


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/extending.md", "CONTRIBUTING.md"])
def test_the_documentation_names_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    paths = set(re.findall(r"`([a-z_]+(?:/\w+)*\.py)`", text))
    assert paths
    for path in paths:
        assert (ROOT / "sepablate" / path).exists() or (ROOT / path).exists(), path


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == sepablate.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == version
    assert f"version = {{{version}}}" in README


def test_pre_commit_runs_what_make_lint_runs() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    commands = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert commands == [line.strip() for line in recipe[1].splitlines()]


def test_the_workflow_runs_what_people_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    known = [f"make {target}" for target in targets]
    commands = {step["run"] for step in steps if "run" in step}
    assert {"make test", "make docs"} <= commands
    for command in commands:
        assert command in known or f"`{command}`" in (ROOT / "CONTRIBUTING.md").read_text()


def test_containers_have_what_the_readme_asks_for() -> None:
    text = (ROOT / "Dockerfile").read_text()
    version = tuple(map(int, re.findall(r"^FROM python:(\d+)\.(\d+)-slim", text, re.M)[0]))
    assert version >= (3, 11)
    assert re.search(r"apt-get install \S+ \S+ g\+\+ git make ", text)
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert f" AS {container['build']['target']}\n" in text
    assert f" --shell /bin/bash {container['remoteUser']} " in text
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"data", ".venv*", ".sepablate"} <= {*ignored}
    assert ".git" not in ignored
