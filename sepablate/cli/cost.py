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


def cost(
    variants: VariantsArgument,
    scale: ScaleOption = None,
    image_size: Annotated[
        int | None, typer.Option(parser=positive, help="Pixels of an image's side.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time gradient steps on random images as well.")
    ] = False,
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
    for variant in variants:
        study.variant(variant)
    if save and not measure:
        raise UserError("--save writes measured times: choose it together with --measure")
    from sepablate.profiling import complexity_table

    names = dict.fromkeys(variants)
    runs = [complexity_table.resolve_variant(variant, scale_name, image_size) for variant in names]
    speeds = []
    if measure:
        from sepablate.profiling import speed

        speeds = speed.measure(runs, batch, rounds)
    if as_json:
        measured = [dataclasses.asdict(each) for each in speeds]
        print_json({"costs": complexity_table.counts(runs), "measured": measured})
    else:
        complexity_table.show(runs)
        if measure:
            speed.show(speeds)
    if save:
        path = speed.save(speeds, scale_name)
        print(f"written: {path}", file=sys.stderr if as_json else sys.stdout)
