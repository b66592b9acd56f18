"""What the papers print of the networks that a study compares, beside what was found here."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sepablate.analysis import metrics
from sepablate.analysis.summary_table import markdown, score
from sepablate.paper import mobilenets, xception
from sepablate.paper.mobilenets import Network

Row = Mapping[Hashable, Any]


def _score(row: Row) -> str:
    return score(row, metrics.metric_of_columns(map(str, row)))


def _mult_adds(row: Row) -> str:
    return f"{row['mult_adds'] / 1e6:,.2f}"


def _parameters(row: Row) -> str:
    return f"{row['parameters']:,}"


@dataclass(frozen=True)
class PaperTable:
    """Tables of a paper, for studies that compare two or more of the networks in them.

    paper: the heads of the paper's columns; rows: a variant of ours, and the paper's cells, of
    which the first is the network's name there. here: our columns, by their heads.
    """

    source: str
    paper: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    here: Mapping[str, Callable[[Row], str]]
    remark: str = ""


def _of_imagenet(name: str) -> tuple[str, ...]:
    accuracy, size = xception.TABLE_1[name], xception.TABLE_3[name]
    return (
        name,
        f"{100 * accuracy.top_1:.1f}",
        f"{100 * accuracy.top_5:.1f}",
        f"{size.parameters:,}",
    )


def _of_jft(name: str) -> tuple[str, ...]:
    return name, f"{xception.TABLE_2[name]:.2f}"


def _of_mobilenets(table: int, networks: Mapping[str, Network], name: str) -> tuple[str, ...]:
    found = networks[name]
    return (
        name,
        str(table),
        f"{found.accuracy:g}",
        f"{found.mult_adds:g}",
        f"{found.parameters:g}",
    )


def _gap() -> str:
    """How far apart the two counts of table 3 are, in percent of the smaller one."""
    counts = sorted(each.parameters for each in xception.TABLE_3.values())
    return f"{100 * (counts[1] / counts[0] - 1):.1f} %"


IMAGENET = PaperTable(
    source=f"{xception.SOURCE}, tables 1 and 3; one run each",
    paper=("Network", "Paper: ImageNet top-1 (%)", "top-5 (%)", "Parameters"),
    rows=(
        ("xception", _of_imagenet("Xception")),
        ("inception_v3", _of_imagenet("Inception V3")),
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
        ("xception_multilabel", _of_jft("Xception, no FC layers")),
        ("inception_v3_multilabel", _of_jft("Inception V3, no FC layers")),
        ("xception_multilabel_fc", _of_jft("Xception, with FC layers")),
        ("inception_v3_multilabel_fc", _of_jft("Inception V3, with FC layers")),
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
        (variant, _of_mobilenets(table, networks, name))
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


def format_tables(summary: pd.DataFrame) -> str:
    """The tables of the papers that have two or more of the variants of a study's table."""
    ours = {row["variant"]: row for row in summary.to_dict("records")}
    found = []
    for each in (IMAGENET, JFT, MOBILENETS):
        rows = [
            (*cells, *(cell(ours[variant]) for cell in each.here.values()))
            for variant, cells in each.rows
            if variant in ours
        ]
        if len(rows) > 1:
            table = markdown((*each.paper, *each.here), rows)
            found.append(f"{each.source}:\n\n{table}" + f"\n{each.remark}\n" * bool(each.remark))
    return "\n".join(found)
