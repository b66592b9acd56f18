"""The commands `evaluate` and `export-weights`. Nothing heavy is imported before they run."""

from pathlib import Path
from typing import Annotated

import typer

from sepablate.cli.options import positive
from sepablate.errors import UserError
from sepablate.execution import environment
from sepablate.store import layout


def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|RUN",
            help="xception, inception_v3 or mobilenet_v1; or a run's weights file, or its key, of "
            "run_keys in results/SCALE/runs/VARIANT/config.json.",
        ),
    ],
    weights: Annotated[
        Path | None,
        typer.Option(help="For NETWORK: timm's weights, .safetensors or .pth, or Keras', .h5."),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="For NETWORK: a folder with validation/, as ImageNet's.")
    ] = layout.DATA / "imagenet",
    batch: Annotated[int, typer.Option(parser=positive, help="Images at a time.")] = 64,
    mean_std: Annotated[
        str, typer.Option(help="half, imagenet, or timm: those of timm's config.")
    ] = "timm",
    borders: Annotated[
        str, typer.Option(help="torch, tensorflow (of Keras' weights), or auto: by the file.")
    ] = "auto",
    split: Annotated[
        str | None, typer.Option(help="For RUN: test or validation images; default: test.")
    ] = None,
) -> None:
    """Measure a run's trained weights again, or published weights in our network.

    RUN: the score of its averaged weights, which must be the one that it recorded, on the images
    that it was trained for, also the user's own. `sepablate train --raw-weights` keeps others.
    NETWORK: top-1 and top-5 accuracy.
    """
    environment.warn_of_little_memory()
    environment.use_short_socket_folder()  # for the processes that read images
    from sepablate.execution import backend, hardware
    from sepablate.models import MODELS

    if source not in MODELS and weights is None:
        from sepablate.pretrained import run_weights

        lines = run_weights.measure(source, split, hardware.devices()[0], backend.cpu_failure)
    else:
        if split is not None:
            raise UserError(f"--split {split!r}: only for a run, not for the network {source!r}")
        from sepablate.pretrained import evaluate

        device = hardware.devices()[0]
        lines = evaluate.evaluate(source, weights, data, batch, mean_std, device, borders)
    print(*lines, sep="\n")


def export_weights(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run's key, or its weights file.")],
    file: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """Write a run's trained weights under the names that timm gives the network's layers."""
    from sepablate.pretrained import timm_export

    for line in timm_export.export(source, file):
        print(line)
