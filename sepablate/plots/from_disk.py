"""`sepablate.figure`: the figure of a study from the results on disk."""

from matplotlib.figure import Figure

from sepablate import study as studies
from sepablate.analysis import layer_costs
from sepablate.analysis.load_runs import load_runs
from sepablate.analysis.run_table import check_runs, selected
from sepablate.plots import layer_figure, study_figure
from sepablate.study import Study


def figure(study: str | Study, scale: str | None = None) -> Figure:
    """Return the figure of a study: 7 by about 4 inches, to show, to change or to save.

    A comparison has training profiles, learning rates and the final scores of each seed; a study
    of layers measured and predicted times. In a notebook, `%matplotlib inline` shows it.

    Args:
        study: The name of a study in experiments/, or a comparison of your own, whose variants are
            trained at that scale.
        scale: A scale that has runs; default: the one that params.yaml selects. Paths are relative
            to the current folder, the project's root.

    Raises:
        UserError: The study or the scale is unknown, or runs of a variant are missing or damaged.
    """
    chosen = selected(scale)
    if isinstance(study, str) and study in studies.layer_names():
        return layer_figure.make(layer_costs.read(chosen, study), chosen)
    check_runs(chosen)
    declared = study if isinstance(study, Study) else studies.load(study)
    return study_figure.make(load_runs(declared.all_variants, chosen), declared.against)
