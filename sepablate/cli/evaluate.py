"""The command `evaluate`. Nothing heavy is imported before it runs."""

from pathlib import Path
from typing import Annotated

import typer

from sepablate.cli.options import positive
from sepablate.execution import environment
from sepablate.store import layout


def evaluate(
    model: Annotated[str, typer.Argument(help="xception, inception_v3 or mobilenet_v1.")],
    weights: Annotated[
        Path | None, typer.Option(help="timm's weights for it: .safetensors, .pth or .pt.")
    ] = None,
    data: Annotated[Path, typer.Option(help="A folder with validation/, as ImageNet's.")] = (
        layout.DATA / "imagenet"
    ),
    batch: Annotated[int, typer.Option(parser=positive, help="Images at a time.")] = 64,
    mean_std: Annotated[
        str, typer.Option(help="half, imagenet, or timm: those of timm's config.")
    ] = "timm",
) -> None:
    """Measure the top-1 and top-5 accuracy of published weights in our network."""
    environment.use_short_socket_folder()  # for the processes that read images
    from sepablate.pretrained import evaluate

    for line in evaluate.evaluate(model, weights, data, batch, mean_std):
        print(line)
