"""Count networks as bases of SSD, as table 13 of MobileNets does: arXiv:1704.04861, section 4.6."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

from sepablate.errors import UserError
from sepablate.models import ssd
from sepablate.models.complexity import Breakdown, Cost, breakdown
from sepablate.models.ssd import IMAGE_SIZE
from sepablate.paper import mobilenets
from sepablate.profiling.complexity_table import empty_table, print_table
from sepablate.runs.run import Run
from sepablate.store import layout
from sepablate.store.files import write_atomically

VGG = "vgg_16"
# torchvision's VGG rescales the norm of its first map, by a weight for each channel.
KINDS: dict[type[torch.nn.Module], str] = {SSDFeatureExtractorVGG: "norm"}


class Case(NamedTuple):
    """A detector that is counted: its name, and the arguments of `ssd.detector_layers`."""

    detector: str
    base: str
    heads: str = "pointwise"
    classes: int = ssd.CLASSES
    boxes: tuple[int, ...] = ssd.BOXES
    options: Mapping[str, Any] = {}


CASES = (
    Case("vgg_16", VGG, "standard"),
    Case("vgg_16_90", VGG, "standard", classes=90),
    Case("inception_v3", "inception_v3"),
    Case("xception", "xception"),
    Case("mobilenet_standard", "mobilenet_v1", options={"separable": False}),
    Case("mobilenet_v1", "mobilenet_v1"),
    # github.com/tensorflow/models, 6461cbf, object_detection/samples/configs/ssd_mobilenet_v1_coco
    Case("mobilenet_published", "mobilenet_v1", classes=90, boxes=(3, 6, 6, 6, 6, 6)),
    Case("mobilenet_3x3_heads", "mobilenet_v1", "standard"),
    Case("mobilenet_ssdlite", "mobilenet_v1", "separable"),
    Case("mobilenet_050", "mobilenet_v1", options={"width": 0.5}),
)


def write_counts(scale: str) -> None:
    """Write results/<scale>/detectors.csv: a row for each detector and each of its parts.

    The parts are the base, the further layers and the heads; first_boxes is the number of default
    boxes at each place of the first map. Counts are of one image of 300x300 pixels and the same at
    every scale.
    """
    rows = []
    for case in CASES:
        row = {"detector": case.detector, "heads": case.heads, "classes": case.classes}
        row["first_boxes"] = case.boxes[0]
        for part, cost in part_costs(layers(case)).items():
            rows.append({**row, "part": part, **dataclasses.asdict(cost)})
    table = pd.DataFrame(rows).to_csv(index=False)
    write_atomically(layout.scale_folder(scale) / layout.DETECTORS, table)


def layers(case: Case) -> ssd.Layers:
    """Return a detector's layers, on the meta device."""
    with torch.device("meta"):
        if case.base == VGG:
            return ssd.vgg_layers(case.classes)
        return ssd.detector_layers(
            case.base, case.heads, case.classes, boxes=case.boxes, **case.options
        )


def part_costs(detector: ssd.Layers) -> dict[str, Cost]:
    """Return the cost of a detector's parts, whose layers are on the meta device."""
    image = torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta")
    with torch.no_grad():
        maps = [*detector.eval().backbone(image).values()]
    whole = breakdown(detector, IMAGE_SIZE, KINDS).total
    backbone = breakdown(detector.backbone, IMAGE_SIZE, KINDS).total
    extra = breakdown(detector.extra, maps[1].shape[-1]).total
    return {"base": _minus(backbone, extra), "extra": extra, "heads": _minus(whole, backbone)}


def _minus(cost: Cost, other: Cost) -> Cost:
    return Cost(cost.parameters - other.parameters, cost.mult_adds - other.mult_adds)


def detector_breakdown(heads: str) -> Callable[[Run], Breakdown]:
    """Return a function that gives the cost of SSD with a run's network as its base.

    Args:
        heads: one of `ssd.HEADS`; UserError for another word.
    """
    if heads not in ssd.HEADS:
        raise UserError(f"--detector {heads!r}: choose {', '.join(ssd.HEADS)}")

    def count(run: Run) -> Breakdown:
        options = {name: value for name, value in run.options.items() if name != "classes"}
        with torch.device("meta"):
            detector = ssd.detector_layers(run.model, heads, image_size=run.image_size, **options)
            return breakdown(detector, run.image_size)

    return count


def show_table_13() -> None:
    """Print the costs of SSD 300 in table 13 of the MobileNets paper."""
    table = empty_table(f"{mobilenets.SOURCE}, table 13", "pixels", "parameters", "mult-adds")
    for (framework, base), row in mobilenets.TABLE_13.items():
        name, pixels = framework.rsplit(" ", 1)
        if name == "SSD":
            table.add_row(base, pixels, f"{row.parameters} M", f"{row.mult_adds} G")
    print_table(table)
