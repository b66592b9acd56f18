"""The costs of detectors, from detectors.csv, next to table 13 of the MobileNets paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pandas.api.types import is_integer_dtype

from sepablate.analysis.formatting import markdown_table
from sepablate.errors import UserError, command
from sepablate.paper import mobilenets
from sepablate.store.files import refuse_endless

VGG = "vgg_16"
TITLE = "MobileNet as the base of a detector (table 13)"
FRAMEWORK = "SSD 300"
PARTS = ("base", "extra", "heads")
TEXTS, NUMBERS = (
    ("detector", "heads", "part"),
    ("classes", "first_boxes", "parameters", "mult_adds"),
)
# The base of each detector, and its row in table 13, if it has one.
BASES = {
    VGG: ("VGG-16", "deeplab-VGG"),
    "vgg_16_90": ("VGG-16", "deeplab-VGG"),
    "inception_v3": ("Inception V3", None),
    "xception": ("Xception", None),
    "mobilenet_standard": ("MobileNet of standard convolutions", None),
    "mobilenet_v1": ("MobileNet", "MobileNet"),
    "mobilenet_published": ("MobileNet, as published", "MobileNet"),
    "mobilenet_3x3_heads": ("MobileNet", None),
    "mobilenet_ssdlite": ("MobileNet", None),
    "mobilenet_050": ("0.5 MobileNet", None),
}
HEADS = {"pointwise": "1x1", "standard": "3x3", "separable": "separable"}
HEADER = (
    "Base",
    "Heads",
    "Classes",
    "Mult-adds (G)",
    "Parameters (M)",
    "of these: base",
    "further layers",
    "heads",
    "Paper: mult-adds (G)",
    "Parameters (M)",
    "mAP (%)",
)


class Total(NamedTuple):
    """The trainable parameters of a detector, and its multiply-adds for one image."""

    parameters: int
    mult_adds: int


def read(path: Path) -> pd.DataFrame:
    """Return the rows of a detectors.csv: one for each detector and part.

    Raises UserError if it is another file.
    """
    refuse_endless(path)
    try:
        frame = pd.read_csv(path)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path}: not a CSV table: {error}") from None
    missing = [column for column in (*TEXTS, *NUMBERS) if column not in frame]
    if missing:
        raise UserError(f"{path}: not the costs of detectors: lacks {', '.join(missing)}")
    for column in NUMBERS:
        if not is_integer_dtype(frame[column]):
            raise UserError(f"{path}: invalid values in column {column}; choose whole numbers")
    rows = [*zip(frame.detector, frame.part, strict=True)]
    expected = [(name, part) for name in BASES for part in PARTS]
    if rows != expected or not set(frame["heads"]) <= set(HEADS):
        remedy = command("layers STUDIES", path.parent.name)
        raise UserError(f"{path}: not the costs of detectors: run {remedy}")
    return frame


def to_markdown(frame: pd.DataFrame) -> str:
    """Return the section of the report: the table, and where it differs from the paper's."""
    return (
        f"## {TITLE}\n\n"
        f"{mobilenets.SOURCE}, section 4.6, table 13; one image of 300x300 pixels, nothing is "
        "trained.\n\n"
        f"{markdown_table(HEADER, _rows(frame))}\n{sentences(frame)}"
    )


def _rows(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return our detectors, and the paper's with a base that is not among them."""
    total, rows = _totals(frame), []
    for name, (label, paper) in BASES.items():
        parts = frame[frame.detector == name].to_dict("records")
        rows.append(
            (
                label,
                HEADS[parts[0]["heads"]],
                f"{parts[0]['classes']}",
                f"{total[name].mult_adds / 1e9:.2f}",
                _millions(total[name].parameters),
                *(_millions(part["parameters"]) for part in parts),
                *_paper_cells(paper),
            )
        )
    bases = {paper for _, paper in BASES.values()}
    unknown = ("–",) * len(HEADER[1:-3])
    return rows + [(base, *unknown, *_paper_cells(base)) for base in _paper() if base not in bases]


def _paper() -> dict[str, mobilenets.Detector]:
    """Return the rows of table 13 on SSD, by their base."""
    table = mobilenets.TABLE_13.items()
    return {base: row for (framework, base), row in table if framework == FRAMEWORK}


def _paper_cells(base: str | None) -> tuple[str, ...]:
    if base is None:
        return "", "", ""
    row = _paper()[base]
    cells = row.mult_adds, row.parameters, row.mean_average_precision
    return tuple(f"{number:.1f}" for number in cells)


def sentences(frame: pd.DataFrame) -> str:
    """Return what is counted, and each difference to the paper with its reason."""
    return "\n".join([_counted(), *(f"- {line}" for line in _differences(frame)), ""])


def _counted() -> str:
    others = sorted({framework for framework, _ in mobilenets.TABLE_13} - {FRAMEWORK})
    return (
        "Mult-adds are those of all convolutions; parameters include biases and batch norm. The "
        "heads see two maps of the base, before and after its last halving of the map, and four of "
        "further layers: 1x1 to half of the channels, then 3x3 with stride 2, to 512, 256, 256 and "
        "128 channels. VGG-16 is torchvision's whole SSD 300, with the maps and layers of SSD's "
        f"paper. Of table 13, {' and '.join(others)} are not counted.\n"
    )


def _differences(frame: pd.DataFrame) -> list[str]:
    total = _totals(frame)
    heads = frame[frame.part == "heads"].set_index("detector").to_dict("index")
    ours, published = heads["mobilenet_v1"], heads["mobilenet_published"]
    mobilenet, vgg = _paper()["MobileNet"], _paper()["deeplab-VGG"]
    return [
        f"MobileNet's detector has {_against(total['mobilenet_v1'], mobilenet)}. As its authors "
        "published it (TensorFlow's object detection, `ssd_mobilenet_v1_coco`), with "
        f"{published['classes']} classes and {published['first_boxes']} default boxes at each "
        f"place of the first map instead of {ours['classes']} and {ours['first_boxes']}, it has "
        f"{_against(total['mobilenet_published'], mobilenet)}.",
        "3x3 convolutions as heads, which SSD's paper has, change it by "
        f"{_change(total['mobilenet_3x3_heads'], total['mobilenet_v1'])}; separable heads and "
        "further layers (SSDLite) by "
        f"{_change(total['mobilenet_ssdlite'], total['mobilenet_v1'])}.",
        f"VGG's detector has {_against(total[VGG], vgg)}. With {heads['vgg_16_90']['classes']} "
        f"classes it has {_against(total['vgg_16_90'], vgg)}. Its heads have "
        f"{_millions(heads['vgg_16_90']['parameters'])} M of these parameters; the paper does not "
        "describe the heads and further layers that it counts.",
        _ratios(total),
    ]


def _ratios(total: Mapping[str, Total]) -> str:
    ours, paper = total["mobilenet_v1"].mult_adds, _paper()
    times = {name: f"{each.mult_adds / ours:.1f}" for name, each in total.items()}
    printed = {
        name: f"{row.mult_adds / paper['MobileNet'].mult_adds:.1f}" for name, row in paper.items()
    }
    return (
        f"VGG's detector has {times[VGG]} times the mult-adds of MobileNet's (paper: "
        f"{printed['deeplab-VGG']}), Inception V3's {times['inception_v3']} times (paper, with the "
        f"smaller Inception V2: {printed['Inception V2']}), Xception's {times['xception']} times, "
        "and the one with standard convolutions in place of MobileNet's separable ones "
        f"{times['mobilenet_standard']} times."
    )


def _totals(frame: pd.DataFrame) -> dict[str, Total]:
    """Return the sum over the parts of each detector."""
    sums = frame.groupby("detector")[["parameters", "mult_adds"]].sum().to_dict("index")
    return {str(name): Total(row["parameters"], row["mult_adds"]) for name, row in sums.items()}


def _against(ours: Total, printed: mobilenets.Detector) -> str:
    """Return parameters and mult-adds, and the difference of each to the paper's, as printed."""
    parts = []
    for unit, name, number, theirs in (
        ("M", "parameters", ours.parameters / 1e6, printed.parameters),
        ("G", "mult-adds", ours.mult_adds / 1e9, printed.mult_adds),
    ):
        same = round(number, 1) == theirs
        difference = f"{abs(number - theirs):.2f} {unit} {'more' if number > theirs else 'fewer'}"
        against = "the paper's, rounded" if same else f"{difference} than the paper's"
        parts.append(f"{number:.2f} {unit} {name} ({against})")
    return " and ".join(parts)


def _change(ours: Total, base: Total) -> str:
    parameters = _signed((ours.parameters - base.parameters) / 1e6)
    mult_adds = _signed((ours.mult_adds - base.mult_adds) / 1e9)
    return f"{parameters} M parameters and {mult_adds} G mult-adds"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "−")
