"""The commands `train` and `tune`. Nothing heavy is imported before it runs."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from sepablate import study
from sepablate.cli import completion
from sepablate.cli.options import MlflowOption, ScaleOption, positive, resolve_scale
from sepablate.errors import UserError
from sepablate.execution import environment, launch, process_lifetime, variant_options

VariantArgument = Annotated[
    str | None,
    typer.Argument(
        help="A variant, or a robustness study; `sepablate list` names them.",
        autocompletion=completion.variants,
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        parser=positive,
        help="Runs at a time; default: one per core or GPU, or six small ones per GPU.",
    ),
]
MinutesOption = Annotated[
    int | None, typer.Option(parser=positive, help="Stop after so long, with checkpoints.")
]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw-weights", help="Also keep the last step's weights, which are not averaged."
    ),
]


def train(
    variant: VariantArgument = None,
    scale: ScaleOption = None,
    processes: ProcessesOption = None,
    mlflow: MlflowOption = True,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="tcp://HOST:8786", help="Train on the workers of a dask cluster."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every variant of the paper's studies, study by study.")
    ] = False,
    minutes: MinutesOption = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="Print the keys of the runs to train; train nothing.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Train only this run, and do not write results/."),
    ] = None,
    raw_weights: RawOption = False,
) -> None:
    """Train all seeds of a variant, or with --all of each variant, that are not trained yet.

    Each run gets a core or a GPU; small networks share a GPU. To train one run on several GPUs, at
    a scale with a micro_batch:

    torchrun --nproc-per-node 8 -m sepablate train VARIANT --scale paper

    With Slurm or another scheduler: submit a job with --only for each key that --keys prints. The
    command without these options then finds all runs trained, and writes results/.
    """
    scale_name = resolve_scale(scale)
    variants = _variants(variant, scale_name, everything, keys or only is not None)
    if raw_weights and variant in study.robustness_names():
        raise UserError(f"train {variant}: leave out --raw-weights, which is for variants")
    if keys:
        print(*launch.untrained(variants[0], scale_name), sep="\n")
        return
    for line in filter(None, map(variant_options.same_line, variants)):
        if launch.is_main_process():
            print(line)
    whole = _pipeline(variants)
    requests = [
        launch.TrainRequest(name, scale_name, processes, mlflow, only, cluster, whole, raw_weights)
        for name in variants
    ]
    _until_done(lambda: [line for request in requests for line in _train(request)], minutes)


def tune(
    scale: Annotated[str, typer.Argument(help="A scale with a search in params.yaml.")],
    processes: ProcessesOption = None,
    minutes: MinutesOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show candidates and time; train nothing.")
    ] = False,
) -> None:
    """Choose a scale's recipe among the candidates of its search, before anything is compared.

    Only the baseline is trained with each, by seeds that the scale does not have, and compared on
    validation images; no test image is read. It writes results/SCALE/tuning.csv and names the
    lines of params.yaml that the choice is made with. The same command goes on where it stopped.
    """
    scale_name = resolve_scale(scale, "tune")
    if dry_run:
        from sepablate.planning import tuning

        tuning.show_forecast(scale_name)
        return
    request = launch.TrainRequest(study.XCEPTION.name, scale_name, processes, mlflow=False)
    _until_done(lambda: _tune(request), minutes)


def _variants(variant: str | None, scale: str, everything: bool, one_run: bool) -> list[str]:
    """Return the names of what to train; UserError unless the arguments choose some."""
    if (variant is None) != everything or (everything and one_run):
        raise UserError("train: choose a variant, or --all without --keys and --only")
    if variant is None:
        from sepablate.planning.pipeline import paper_variants

        return paper_variants()
    if variant in study.robustness_names():
        if one_run:
            raise UserError(f"train {variant}: leave out --keys and --only, which are for variants")
        from sepablate.runs.settings import load_all

        load_all(variant, scale)  # which finds what is wrong before torch is imported
        return [variant]
    variant_options.check_compared(study.variant(variant).name)
    return [variant]


def _pipeline(variants: list[str]) -> tuple[str, ...]:
    """Return all variants of the paper's pipeline if these are trained as a part of it, else ().

    They are if DVC trains them, or --all: then the progress counts the runs of all.
    """
    if "DVC_STAGE" not in os.environ and len(variants) == 1:
        return ()
    from sepablate.planning.pipeline import paper_variants

    names = tuple(paper_variants())
    return names if {*variants} <= {*names} else ()


def _until_done(work: Callable[[], list[str]], minutes: int | None) -> NoReturn:
    """Train until it is done, stopped or out of time, and exit; `work` returns the failures.

    A signal to stop and the end of the minutes arrive as KeyboardInterrupt, as Ctrl-C does.
    """
    if launch.is_main_process():
        environment.warn_of_little_memory()
    for number in process_lifetime.stop_signals():
        signal.signal(number, signal.default_int_handler)
    if minutes:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        signal.alarm(60 * minutes)
    try:
        failures = work()
    except KeyboardInterrupt:  # also trainer.Stopped
        failures, status = ["stopped; the same command goes on from here"], os.EX_TEMPFAIL
    else:
        status = 1 if failures else 0
    _end(failures, status)


def _end(failures: list[str], status: int) -> NoReturn:
    """Print the failures, on the main process only, and exit."""
    if launch.is_main_process():
        for line in failures:
            print(f"sepablate: {line}", file=sys.stderr)
    raise typer.Exit(status)


def _train(request: launch.TrainRequest) -> list[str]:
    """Train what is requested; return a line for each run that failed."""
    environment.go_on_without_output()
    with launch.select_trainer(request) as trainer:
        from sepablate.execution.progress import explain
        from sepablate.execution.train_settings import train_settings
        from sepablate.execution.train_variant import train_variant

        is_study = request.variant in study.robustness_names()
        progress = (train_settings if is_study else train_variant)(request, trainer)
    return [explain(name, reason) for name, reason in progress.failures.items()]


def _tune(request: launch.TrainRequest) -> list[str]:
    """Train the trials of a scale's search; return a line for each that failed."""
    environment.go_on_without_output()
    with launch.select_trainer(request) as trainer:
        from sepablate.execution.progress import explain
        from sepablate.execution.tune import tune
        from sepablate.planning import tuning

        progress = tune(request, trainer)
        if trainer.is_main and not progress.failures:
            tuning.show_choice(request.scale)
    return [explain(name, reason) for name, reason in progress.failures.items()]
