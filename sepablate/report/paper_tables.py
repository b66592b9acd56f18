"""The papers' tables of the networks that a study compares, with our numbers added."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from sepablate.analysis import metrics
from sepablate.analysis.formatting import markdown_table
from sepablate.analysis.summary_table import Row, score_cell
from sepablate.paper import mobilenets, xception
from sepablate.paper.mobilenets import Network


def _score(row: Row) -> str:
    return score_cell(row, metrics.metric_of_columns(row))


def _mult_adds(row: Row) -> str:
    return f"{row['mult_adds'] / 1e6:,.2f}"


def _parameters(row: Row) -> str:
    return f"{row['parameters']:,}"


@dataclass(frozen=True)
class PaperTable:
    """Tables of a paper, for studies that compare two or more of the networks in them.

    Args:
        source: the paper and its tables.
        paper: the heads of the paper's columns.
        rows: a variant of ours, and the paper's cells, of which the first is the network's name.
        here: our columns, by their heads.
        remark: printed below the table.
    """

    source: str
    paper: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    here: Mapping[str, Callable[[Row], str]]
    remark: str = ""


def _imagenet_cells(name: str) -> tuple[str, ...]:
    accuracy, size = xception.TABLE_1[name], xception.TABLE_3[name]
    return (
        name,
        f"{100 * accuracy.top_1:.1f}",
        f"{100 * accuracy.top_5:.1f}",
        f"{size.parameters:,}",
    )


def _jft_cells(name: str) -> tuple[str, ...]:
    return name, f"{xception.TABLE_2[name]:.2f}"


def _mobilenets_cells(table: int, networks: Mapping[str, Network], name: str) -> tuple[str, ...]:
    network = networks[name]
    return (
        name,
        str(table),
        f"{network.accuracy:g}",
        f"{network.mult_adds:g}",
        f"{network.parameters:g}",
    )


def _gap() -> str:
    """Return the difference of the two counts of table 3, in percent of the smaller one."""
    counts = sorted(size.parameters for size in xception.TABLE_3.values())
    return f"{100 * (counts[1] / counts[0] - 1):.1f} %"


IMAGENET = PaperTable(
    source=f"{xception.SOURCE}, tables 1 and 3; one run each",
    paper=("Network", "Paper: ImageNet top-1 (%)", "top-5 (%)", "Parameters"),
    rows=(
        ("xception", _imagenet_cells("Xception")),
        ("inception_v3", _imagenet_cells("Inception V3")),
    ),
    here={"Parameters here": _parameters},
    remark=(
        f"The paper calls its two counts equal within {100 * xception.WITHIN:g} % (they are "
        f"{_gap()} apart), and at paper size our networks have both: Inception V3's is that of the "
        "edition that Keras had in 2016 (`keras_2016=True`). The edition compared here, the usual "
        "one since, has a little more; `sepablate cost xception inception_v3 --scale paper` counts."
    ),
)
JFT = PaperTable(
    source=f"{xception.SOURCE}, table 2; one run each, on JFT",
    paper=("Network", "Paper: MAP@100"),
    rows=(
        ("xception_multilabel", _jft_cells("Xception, no FC layers")),
        ("inception_v3_multilabel", _jft_cells("Inception V3, no FC layers")),
        ("xception_multilabel_fc", _jft_cells("Xception, with FC layers")),
        ("inception_v3_multilabel_fc", _jft_cells("Inception V3, with FC layers")),
    ),
    here={"MAP@100 here (%)": _score, "Parameters here": _parameters},
)
MOBILENETS = PaperTable(
    source=f"{mobilenets.SOURCE}, tables 4, 5 and 6; one run each, without biases and batch norm",
    paper=(
        "Network",
        "Table",
        "Paper: ImageNet accuracy (%)",
        "Mult-adds (M)",
        "Parameters (M)",
    ),
    rows=tuple(
        (variant, _mobilenets_cells(table, networks, name))
        for variant, table, networks, name in (
            ("mobilenet_standard", 4, mobilenets.TABLE_4, "Conv MobileNet"),
            ("mobilenet_v1", 4, mobilenets.TABLE_4, "MobileNet"),
            ("mobilenet_075", 5, mobilenets.TABLE_5, "0.75 MobileNet"),
            ("mobilenet_shallow", 5, mobilenets.TABLE_5, "Shallow MobileNet"),
            ("mobilenet_v1", 6, mobilenets.TABLE_6, "1.0 MobileNet-224"),
            ("mobilenet_075", 6, mobilenets.TABLE_6, "0.75 MobileNet-224"),
            ("mobilenet_050", 6, mobilenets.TABLE_6, "0.5 MobileNet-224"),
            ("mobilenet_025", 6, mobilenets.TABLE_6, "0.25 MobileNet-224"),
        )
    ),
    here={
        "Accuracy here (%)": _score,
        "Mult-adds here (M)": _mult_adds,
        "Parameters here": _parameters,
    },
)


def _detector_cells(base: str) -> tuple[str, ...]:
    row = mobilenets.TABLE_13["SSD 300", base]
    return (
        f"SSD 300, {base}",
        f"{row.mean_average_precision:g}",
        f"{row.mult_adds:g}",
        f"{row.parameters:g}",
    )


def _without_ours() -> str:
    """Return the rows of table 13 that no network here is near to."""
    return "; ".join(
        f"{framework}, {base}: {row.mean_average_precision:g} %, {row.mult_adds:g} billion, "
        f"{row.parameters:g} M"
        for (framework, base), row in mobilenets.TABLE_13.items()
        if framework != "SSD 300" or base == "deeplab-VGG"
    )


DETECTORS = PaperTable(
    source=f"{mobilenets.SOURCE}, table 13; one run each, on COCO",
    paper=("Detector", "Paper: mAP (%)", "Mult-adds (billions)", "Parameters (M)"),
    rows=(
        ("ssd_mobilenet_v1", _detector_cells("MobileNet")),
        ("ssd_inception_v3", _detector_cells("Inception V2")),
    ),
    here={
        "Base here": lambda row: str(row["label"]),
        "mAP here (%)": _score,
        "Mult-adds here (M)": _mult_adds,
        "Parameters here": _parameters,
    },
    remark=(
        f"The other rows of the table: {_without_ours()}. COSTS.md counts our detectors at the "
        "paper's size and says where they differ."
    ),
)


def format_tables(summary: pd.DataFrame) -> str:
    """Return the papers' tables with two or more of the variants of a study's table."""
    ours = {row["variant"]: row for row in summary.to_dict("records")}
    formatted = []
    for table in (IMAGENET, JFT, MOBILENETS, DETECTORS):
        rows = [
            (*cells, *(cell(ours[variant]) for cell in table.here.values()))
            for variant, cells in table.rows
            if variant in ours
        ]
        if len(rows) > 1:
            text = markdown_table((*table.paper, *table.here), rows)
            remark = f"\n{table.remark}\n" if table.remark else ""
            formatted.append(f"{table.source}:\n\n{text}{remark}")
    return "\n".join(formatted)
