"""The command `train`. Nothing heavy is imported before it runs."""

import os
import signal
import sys
from typing import Annotated

import typer

from sepablate import study
from sepablate.options import positive, scale_name


def train(
    variant: Annotated[str, typer.Argument(help="A variant; `sepablate list` names them.")],
    scale: Annotated[
        str | None, typer.Option(help="A scale of params.yaml; default: the selected one.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            parser=positive,
            help="Runs at a time; default: one a core or GPU, or six small ones a GPU.",
        ),
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Show the runs in MLflow as well.")] = True,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:8786", help="Train on the workers of a dask cluster."),
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Print the keys of the runs to train; train nothing.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Train this run, and leave results/ as it is."),
    ] = None,
) -> None:
    """Train all seeds of a variant that are not trained yet.

    Each run gets a core or a GPU; small networks share a GPU. To spread one run over many GPUs, at
    a scale with a micro_batch:

    torchrun --nproc-per-node 8 -m sepablate train VARIANT --scale paper

    With Slurm, or another scheduler: a job with --only for each of --keys. The same command without
    them then finds all runs trained, and writes results/.
    """
    study.variant(variant)
    scale = scale_name(scale)
    from sepablate.launch import runs

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if keys:
            print(*runs.untrained(variant, scale), sep="\n")
            return
        failures = runs.train(
            variant, scale, processes=processes, mlflow=mlflow, only=only, cluster=cluster
        )
    except KeyboardInterrupt:  # parallel.Stopped is one
        print("sepablate: stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(os.EX_TEMPFAIL) from None
    for line in failures:
        print(f"sepablate: {line}", file=sys.stderr)
    if failures:
        raise typer.Exit(1)
