"""What networks cost, against counts made by hand and by others; the command `cost`."""

import csv
import dataclasses
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from helpers import fork_server
from helpers.project import ROOT
from helpers.torch_count import count
from torch import nn

from sepablate.cli.cost import cost as command
from sepablate.models import MODELS, build, ssd
from sepablate.models.complexity import KINDS, Cost, breakdown
from sepablate.profiling import speed
from sepablate.profiling.complexity_table import abbreviate, resolve_variant
from sepablate.profiling.speed import Speed

TINY: list[dict[str, Any]] = [
    *({"model": name} for name in MODELS),
    {"model": "xception", "residual": False, "norm_between": True},
    {"model": "xception", "segments": 3},
    {"model": "xception", "pointwise_first": True, "hidden": 2},
    {"model": "inception_v3", "keras_2016": True, "hidden": 1},
    {"model": "mobilenet_v1", "separable": False},
]


def on_meta(model: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return build(model, **options)


def test_a_network_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 5, padding=2),  # 6 x 6
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False),  # 3 x 3
        nn.Conv2d(4, 8, 1, bias=False),
        nn.Conv2d(8, 8, (1, 3), groups=2, bias=False),  # 3 x 1
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    found = breakdown(network, 6)
    assert found.kinds == {
        "1x1": Cost(4 * 8, 4 * 8 * 9),
        "depthwise": Cost(4 * 9, 4 * 9 * 9),
        "k x k": Cost(3 * 4 * 25 + 4 + 8 * 4 * 3, 3 * 4 * 25 * 36 + 8 * 4 * 3 * 3),
        "dense": Cost(8 * 10 + 10, 8 * 10),
        "norm": Cost(2 * 4, 0),
    }
    assert found.activations == 4 * 36 + 4 * 9 + 8 * 9 + 8 * 3 + 10
    assert found.total == count(network, 6)


@pytest.mark.parametrize("options", TINY, ids=str)
def test_kinds_add_up_to_an_independent_count(options: dict[str, Any]) -> None:
    """`count` factors PyTorch's own counter of operations, `breakdown` the layers."""
    model = on_meta(**options, classes=10, width=1 / 8)
    found = breakdown(model, 75)
    assert tuple(found.kinds) == KINDS
    assert found.total == count(model, 75)


@pytest.mark.parametrize(
    ("name", "published", "activations"),
    [
        ("xception", "legacy_xception", 35_825_968),
        ("inception_v3", "inception_v3", 8_968_488),
    ],
)
def test_costs_of_published_networks(name: str, published: str, activations: int) -> None:
    found = breakdown(on_meta(name), 299)
    with torch.device("meta"):
        theirs = timm.create_model(published)
    assert found == breakdown(theirs, 299)
    assert found.activations == activations


def test_mult_adds_that_others_publish() -> None:
    """In torchvision's description of its weights, in thousands of millions."""
    inception = torchvision.models.Inception_V3_Weights.DEFAULT.meta["_ops"]
    assert round(breakdown(on_meta("inception_v3"), 299).total.mult_adds / 1e9, 3) == inception
    assert count(on_meta("xception"), 299) == Cost(22_855_952, 8_357_403_496)


def test_a_layer_of_no_known_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="LayerNorm"):
        breakdown(nn.Sequential(nn.Conv2d(1, 1, 1), nn.LayerNorm(3)), 3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is declared, without data and results; the working folder."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


def test_mobilenet_is_counted_at_its_own_image_size() -> None:
    """Howard et al. 2017, table 7: 569, 418, 290 and 186 million at 224 to 128 pixels."""
    assert resolve_variant("mobilenet_v1", "paper").image_size == 224
    for pixels, millions in ((None, 569), (192, 418), (160, 290), (128, 186)):
        run = resolve_variant("mobilenet_v1", "paper", pixels)
        assert abs(run.mult_adds / 1e6 - millions) < 1


def test_command_at_the_size_of_the_paper_without_data(folder: Path) -> None:
    before = files(folder)
    command = ("sepablate", "cost", "xception", "inception_v3", "--scale", "paper")
    done = fork_server.run(folder, *command, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    assert ["xception", "299", "1", "22,855,952", "8.36", "G", "35.83", "M"] in rows
    assert ["xception", "parameters", "89.80", "0.91", "0.08", "8.96", "0.24"] in rows
    assert ["mult-adds", "93.40", "1.58", "5.00", "0.02"] in rows
    assert [row[0] for row in rows].count("inception_v3") == 2
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert files(folder) == before


def test_command_counts_networks_as_bases_of_a_detector(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["mobilenet_v1", "mobilenet_050", "mobilenet_standard", "inception_v3", "xception"]
    command(names, scale="paper", detector="pointwise")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.strip()]
    detector = ssd.detector_layers("mobilenet_v1")
    parameters = f"{sum(each.numel() for each in detector.parameters()):,}"
    assert next(row for row in rows if row[0] == "mobilenet_v1")[:4] == [
        "mobilenet_v1",
        "300",
        "1",
        parameters,
    ]
    assert [row[0] for row in rows].count("xception") == 2
    for name, printed in {"deeplab-VGG": "33.1 M 34.9 G", "MobileNet": "6.8 M 1.2 G"}.items():
        assert [name, "300", *printed.split()] in rows
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("heads", ssd.HEADS)
def test_json_has_the_detector_at_any_size(
    folder: Path, capsys: pytest.CaptureFixture[str], heads: str
) -> None:
    command(["mobilenet_050"], scale="paper", image_size=128, detector=heads, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["detector"] == heads
    (entry,) = found["costs"]
    with torch.device("meta"):
        layers = ssd.detector_layers("mobilenet_v1", heads, image_size=128, width=0.5)
    expected = count(layers, 128)
    assert (entry["parameters"], entry["mult_adds"]) == dataclasses.astuple(expected)
    assert (entry["image_size"], entry["width"]) == (128, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variants": ["xcepton"]}, r"variant 'xcepton'.*choose .*xception"),
        ({"scale": "huge"}, r"--scale 'huge': choose smoke"),
        ({"save": True}, r"--save.*choose .*--measure"),
        ({"detector": "dense"}, r"--detector 'dense': choose pointwise, standard, separable"),
        ({"detector": "pointwise", "measure": True}, r"--detector pointwise .*without --measure"),
        (
            {"variants": ["separable_example"], "detector": "standard"},
            r"base must be one of .*mobilenet_v1.*, not 'separable_example'",
        ),
    ],
    ids=str,
)
def test_bad_arguments(folder: Path, arguments: dict[str, Any], message: str) -> None:
    before = files(folder)
    with pytest.raises(ValueError, match=message):
        command(**{"variants": ["xception"], "scale": "smoke", **arguments})
    assert files(folder) == before


def test_measured_speeds(folder: Path) -> None:
    runs = [resolve_variant(name, "smoke") for name in ("xception", "xception_multilabel")]
    runs = [dataclasses.replace(run, scale=fp32(run.scale)) for run in runs]
    found = speed.measure(runs, batch_size=2, rounds=3)
    assert [each.variant for each in found] == ["xception", "xception_multilabel"]
    for each in found:
        assert len(each.seconds) == 3
        assert 0 < each.lowest <= each.median <= each.highest
        assert (each.batch_size, each.precision, each.threads) == (2, "fp32", 1)
    path = speed.save(found, "smoke")
    assert path == Path("results/smoke/speed.csv")
    first, second = csv.DictReader(path.read_text().splitlines())
    assert (first["variant"], second["variant"]) == ("xception", "xception_multilabel")
    assert float(first["steps_per_second"]) == pytest.approx(found[0].median, rel=1e-3)
    assert (first["steps"], first["image_size"], first["torch"]) == ("3", "28", torch.__version__)


def fp32(scale: Any) -> Any:
    return dataclasses.replace(scale, precision="fp32")


def test_a_measured_step_trains(folder: Path) -> None:
    run = resolve_variant("xception", "smoke")
    stepper = speed.StepTimer(dataclasses.replace(run, scale=fp32(run.scale)), 2, "cpu")
    before = [each.clone() for each in stepper.state.model.parameters()]
    assert stepper.time_step() > 0
    assert stepper.state.step == 1
    changed = zip(before, stepper.state.model.parameters(), strict=True)
    assert all(not torch.equal(*both) for both in changed)


def test_ratio_is_taken_round_by_round() -> None:
    """A moment in which the machine is busy slows both networks of its round."""
    base = Speed("a", (1.0, 10.0, 2.0), 2, 28, "fp32", "torch", 1, "processor", "none", "2")
    other = dataclasses.replace(base, seconds=(0.5, 5.0, 1.5))
    assert speed.ratio(base, other) == 0.5
    assert statistics.median(base.seconds) / statistics.median(other.seconds) != 2
    assert (base.median, base.lowest, base.highest) == (0.5, 0.1, 1.0)


@pytest.mark.parametrize(
    ("number", "text"),
    [(22_855_952, "22.86 M"), (8_357_403_496, "8.36 G"), (1000, "1.00 k"), (999, "999")],
)
def test_thin_numbers(number: int, text: str) -> None:
    assert abbreviate(number) == text
