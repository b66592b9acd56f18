"""Update MLflow from the files of studies."""

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from sepablate.errors import UserError
from sepablate.store import collected_runs, layout
from sepablate.study import load, robustness_names
from sepablate.tracking.connection import address, connect, give_up, one_line, reached
from sepablate.tracking.experiment import Experiment, experiment_name
from sepablate.tracking.settings import SettingsExperiment


def publish(scale: str, studies: list[str]) -> int:
    """Update MLflow from the files of these studies; return how many runs changed.

    The parent run of a study, with its table, figure and verdicts, is one of them. A study of which
    only the baseline is trained, by another study, gets no experiment, and a robustness study none
    before its report is written.

    Raises UserError for an unknown study or scale, OSError if MLflow cannot be written.
    """
    trained = set(collected_runs.trained_variants(scale))
    if not trained:
        folder = layout.scale_folder(scale)
        raise UserError(f"scale {scale!r}: no runs in {folder / layout.RUNS}/ or an archive")
    pooled = set(robustness_names())
    declared = {name: load(name) for name in studies if name not in pooled}
    try:
        client = connect(from_files=True)
        changed = sum(
            Experiment(client, name, scale).publish(study)
            for name, study in declared.items()
            if trained & {variant.name for variant in study.variants}
            or client.get_experiment_by_name(experiment_name(name, scale))
        )
        for name in studies:
            if name in pooled and (layout.study_folder(scale, name) / layout.CARRYING).is_file():
                changed += SettingsExperiment(client, name, scale).publish_settings()
        reached()
        return changed
    except (MlflowException, SQLAlchemyError) as error:
        give_up()
        raise OSError(f"MLflow at {address()}: {one_line(error)}") from error
