"""The benchmark's table and README say what its CSV files say, each machine on its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.figure_texts import kept_figures
from helpers.project import ROOT

from sepablate.bench import report
from sepablate.bench.cases import cases_for
from sepablate.cli import bench as cli
from sepablate.cli.bench import file_name
from sepablate.errors import UserError
from sepablate.plots import bench_figure


def frame(accelerator: str = "none", unit: float = 0.05) -> pd.DataFrame:
    """Made-up turns: timm takes 1, 2 and 4 times as long as we do, whose first takes a unit."""
    rows = []
    for turn, factor in enumerate((1.0, 2.0, 4.0)):
        rows += [("small", "sepablate", "seconds", turn, unit * (turn + 1))]
        rows += [("small", "timm", "seconds", turn, unit * (turn + 1) * factor)]
    for name in ("sepablate", "timm"):
        rows += [("small", name, "first_step", 0, 2.0), ("small", name, "memory", 0, 2.0**30)]
    for name in ("sepablate", "timm, channels_last, bf16, from memory"):
        rows += [("suite", name, "seconds", turn, 10.0 + turn) for turn in range(3)]
    for seed in range(6):
        rows += [("accuracy", "sepablate", "accuracy", seed, 0.8 + 0.001 * seed)]
        rows += [("accuracy", "plain fp32 loop", "accuracy", seed, 0.8 - 0.0001 * seed)]
    found = pd.DataFrame(rows, columns=["case", "contender", "metric", "turn", "value"])
    hardware = {"processor": "Zen", "cores": 2, "accelerator": accelerator}
    versions = dict.fromkeys(report.VERSIONS, "1.0")
    return found.assign(**hardware, **versions, date="2026-11-26", commit="abc")


def test_ratios_are_of_neighbouring_turns() -> None:
    table = report.table(frame())
    assert "| timm | 200 [50, 600] | 2 [1, 4] | 2 | 1.00 |" in table
    assert "| sepablate | 100 [50, 150] | 1 [1, 1] | 2 | 1.00 |" in table
    assert "on the same 6 seeds: +0.27 [+0.06, +0.49] points" in table


def test_the_figure_says_how_many_turns_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = kept_figures(monkeypatch, "commit abc", bench_figure)
    bench_figure.draw(frame(), {"small": "Small separable network"})
    assert figures[0].get_supxlabel() == (
        "Small images are of Fashion-MNIST, large ones random; median and range over n = 3 turns.\n"
        "Zen, 2 cores, 2026-11-26."
    )


def test_each_machine_has_a_section_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "docs/benchmarks.md"
    page.parent.mkdir()
    page.write_text("Before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nAfter\n")
    readme = tmp_path / "README.md"
    readme.write_text("Before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nAfter\n")
    gpu = "NVIDIA H100 80GB HBM3"
    assert report.write(frame(gpu), "nvidia").exists()
    report.write(frame(), "zen")
    before = page.read_text()
    cpus, gpus = report.section(frame(), "zen"), report.section(frame(gpu), "nvidia")
    assert before == (f"Before\n<!-- benchmarks -->\n{cpus}{gpus}<!-- /benchmarks -->\nAfter\n")
    assert cpus.startswith("## Zen, 2 cores\n\nZen, 2 cores, 2026-11-26;")
    assert gpus.startswith(f"## {gpu}, Zen, 2 cores\n\n{gpu}, Zen, 2 cores, 2026-11-26;")
    assert "Xception, 28 px, 0.36 M" in cpus
    assert "Xception, 28 px, 5.3 M" in gpus
    assert "GPU" not in cpus
    report.write(frame(gpu, 0.01)[lambda rows: rows.case == "small"], "nvidia")
    lines = [line for line in readme.read_text().splitlines() if line.startswith("| Xception")]
    assert lines == [
        "| Xception, 28 px, 0.36 M; Zen, 2 cores | 100 [50, 150] | 2 [1, 4] times | "
        "timm: 2 [1, 4] times |",
        f"| Xception, 28 px, 5.3 M; {gpu}, Zen, 2 cores | 20 [10, 30] | 2 [1, 4] times | "
        "timm: 2 [1, 4] times |",
    ]
    after = page.read_text()
    assert after.partition(gpu)[0] == before.partition(gpu)[0]
    assert "| timm | 40 [10, 120] | 2 [1, 4] | 2 | 1.00 |" in after.partition(gpu)[2]
    assert "Four seeds of a variant" in after.partition(gpu)[2]
    assert (tmp_path / report.FOLDER / "nvidia.png").exists()
    assert (tmp_path / report.FOLDER / "zen.png").exists()


def test_a_case_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The measurement is made up; which cases are chosen and written is not."""

    def measured(name: str, *_: object) -> cli.Rows:
        if name == "xception":
            raise UserError("timm: out of memory")
        rows = frame()[lambda rows: rows.case == name]
        return list(rows[list(cli.COLUMNS)].itertuples(index=False, name=None))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for page, key in ((report.PAGE, "benchmarks"), (report.README, "benchmark")):
        page.write_text(f"<!-- {key} -->\n<!-- /{key} -->\n")
    monkeypatch.setattr(cli, "_measure", measured)
    with pytest.raises(UserError, match=r"^not measured: xception: timm: out of memory$"):
        cli.bench(["xception", "small"])
    assert "| timm |" in capsys.readouterr().out
    (path,) = report.FOLDER.glob("*.csv")
    assert {*pd.read_csv(path).case} == {"small"}


@pytest.mark.parametrize(
    ("only", "minutes", "message"),
    [
        (["smal"], None, "case 'smal': choose small, xception, suite, "),
        (["small"], 3.0, "--minutes 3 chooses cases: name none, or leave it out"),
        (None, 0.1, "--minutes 0.1: choose 1.5 or more, for case (mobilenet_v1|tiny)"),
    ],
)
def test_cases_and_minutes_that_do_not_fit_are_refused(
    only: list[str] | None, minutes: float | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        cli._chosen(only, minutes, "cpu")


def test_the_file_is_named_after_what_trains() -> None:
    hardware = {"processor": "Intel(R) Xeon(R) 8481C CPU @ 2.70GHz", "cores": 16}
    assert file_name({**hardware, "accelerator": "none"}) == "intel-xeon-8481c-16-cores"
    assert file_name({**hardware, "accelerator": "NVIDIA H100 80GB HBM3"}) == (
        "nvidia-h100-80gb-hbm3"
    )


def test_the_documentation_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    measured = sorted(report.FOLDER.glob("*.csv"))
    assert measured
    sections = "".join(report.section(*each) for each in report.frames())
    short = report.summary(report.frames())
    assert f"<!-- benchmarks -->\n{sections}<!-- /benchmarks -->\n" in report.PAGE.read_text()
    assert f"<!-- benchmark -->\n{short}<!-- /benchmark -->\n" in report.README.read_text()
    assert short.count("\n|") - 1 <= 10
    cpus = [pair for pair in report.frames() if (pair[0].accelerator == "none").all()]
    _, newest = max(cpus, key=lambda pair: pair[0].date.max())
    assert [name for _, name in cpus if f"/{name}.png" in short] == [newest]
    for path in measured:
        found = pd.read_csv(path)
        on_cpu = found.accelerator.iloc[-1] == "none"
        for case in cases_for("cpu" if on_cpu else "cuda:0"):
            turns = found[(found.case == case.name) & (found.metric == "seconds")]
            assert len(turns) >= case.rounds or not (on_cpu or len(turns))
        assert np.isfinite(found.value).all()
