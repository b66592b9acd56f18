"""The command `cost`. Nothing heavy is imported before it runs."""

import dataclasses
import sys
from typing import Annotated

import typer

from sepablate import study
from sepablate.cli import completion
from sepablate.cli.options import JsonOption, ScaleOption, positive, print_json, resolve_scale
from sepablate.errors import UserError

VariantsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="VARIANT...",
        help="Variants; `sepablate list` names them.",
        autocompletion=completion.variants,
    ),
]
ImageSizeOption = Annotated[
    int | None, typer.Option(parser=positive, help="Pixels of an image's side.")
]
DetectorOption = Annotated[
    str | None,
    typer.Option(
        metavar="HEADS",
        help="Count SSD with each as its base, 300 pixels and 80 classes (COCO); its heads are "
        "pointwise, standard (3x3) or separable (SSDLite).",
    ),
]
MeasureOption = Annotated[
    bool, typer.Option("--measure", help="Time gradient steps on random images as well.")
]


def cost(
    variants: VariantsArgument,
    scale: ScaleOption = None,
    image_size: ImageSizeOption = None,
    detector: DetectorOption = None,
    measure: MeasureOption = False,
    batch: Annotated[int, typer.Option(parser=positive, help="Images of a measured step.")] = 8,
    rounds: Annotated[
        int, typer.Option(parser=positive, help="Measured steps of each variant, in turns.")
    ] = 5,
    save: Annotated[
        bool, typer.Option("--save", help="Write the times to results/<scale>/speed.csv.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Count parameters, multiply-adds and activations of variants, by kind of layer.

    Neither data nor training is needed.
    """
    scale_name = resolve_scale(scale)
    _check(variants, detector, measure, save)
    from sepablate.profiling import complexity_table

    count: complexity_table.Count = complexity_table.network_breakdown
    if detector is not None:
        from sepablate.profiling import detector_counts

        count = detector_counts.detector_breakdown(detector)
        image_size = image_size or detector_counts.IMAGE_SIZE
    names = dict.fromkeys(variants)
    runs = [complexity_table.resolve_variant(variant, scale_name, image_size) for variant in names]
    speeds = []
    if measure:
        from sepablate.profiling import speed

        speeds = speed.measure(runs, batch, rounds)
    if as_json:
        measured = [dataclasses.asdict(each) for each in speeds]
        costs = complexity_table.counts(runs, count)
        print_json({"detector": detector, "costs": costs, "measured": measured})
    else:
        complexity_table.show(runs, count)
        if detector is not None:
            detector_counts.show_table_13()
        if measure:
            speed.show(speeds)
    if save:
        path = speed.save(speeds, scale_name)
        print(f"written: {path}", file=sys.stderr if as_json else sys.stdout)


def _check(variants: list[str], detector: str | None, measure: bool, save: bool) -> None:
    """Raise UserError for an unknown variant, and for options that exclude each other."""
    for variant in variants:
        study.variant(variant)
    if save and not measure:
        raise UserError("--save writes measured times: choose it together with --measure")
    if detector is not None and measure:
        raise UserError(f"--detector {detector} only counts: choose it without --measure")
