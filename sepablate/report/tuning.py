"""How the recipe of a report's runs was chosen: a deviation from the paper, which had its own."""

from collections.abc import Mapping

from sepablate.analysis.formatting import markdown_table, percent, scientific
from sepablate.analysis.load_runs import Config
from sepablate.store import layout, tuning_file
from sepablate.store.tuning_file import Candidate, TuningRow
from sepablate.study import XCEPTION

CHOSEN = """\
**Deviates.** The paper's decays of the learning rate belong to a run of another length, and it
gives neither batch size nor augmentation.
`sepablate tune {scale}` compared candidates by {baseline} only, trained
with seeds {seeds}, and read no test image: the table has the accuracy of averaged weights after the
last step on {images:,} validation images. {taken}
"""
TAKEN = "The runs of this report have the best candidate{seeds}."
NOT_TAKEN = "The runs of this report do not have the best candidate, but {candidate}{seeds}."
OTHER_LENGTH = " They have {steps:,} gradient steps, its trials {of_trials:,}."


def chosen(scale: str, configs: Mapping[str, Config]) -> str:
    """Return how the baseline's recipe was chosen, if there was a search; else nothing.

    Args:
        scale: the scale's name.
        configs: of the report's variants, by name.

    Raises UserError if tuning.csv is damaged.
    """
    config, rows = configs.get(XCEPTION.name), tuning_file.read_rows(layout.tuning(scale))
    if config is None or not rows:
        return ""
    results = tuning_file.summarise(rows)
    here = Candidate(*(config[field] for field in Candidate._fields))
    steps = {row.candidate: row.steps for row in rows}
    table = [
        (
            scientific(result.candidate.learning_rate),
            str(result.candidate.decays),
            str(result.candidate.batch_size),
            str(result.candidate.shift),
            "yes" if result.candidate.flip else "no",
            str(steps[result.candidate]),
            str(len(result.accuracies)),
            percent(result.mean),
            percent(result.deviation),
            "yes" if result.candidate == here else "",
        )
        for result in results
    ]
    header = ["Learning rate", "Decays", "Batch size", "Shift (pixels)", "Mirrored"]
    header += ["Steps", "n", "Validation accuracy (%)", "Standard deviation", "In these runs"]
    text = CHOSEN.format(
        scale=scale,
        baseline=XCEPTION.label,
        seeds=_listed({row.seed for row in rows}),
        images=rows[0].validation_images,
        taken=_taken(here == results[0].candidate, here, rows, config),
    )
    return f"{text}\n{markdown_table(header, table)}"


def _taken(best: bool, here: Candidate, rows: list[TuningRow], config: Config) -> str:
    """Return whether the runs have the best candidate, and what they share with the trials."""
    shared = {row.seed for row in rows} & {*config["seeds"]}
    seeds = f" and share seeds {_listed(shared)} with it" if shared else ", and other seeds"
    candidate = ", ".join(f"{key} {scientific(value)}" for key, value in here._asdict().items())
    text = (TAKEN if best else NOT_TAKEN).format(candidate=candidate, seeds=seeds)
    for of_trials in {row.steps for row in rows if row.candidate == here} - {config["steps"]}:
        text += OTHER_LENGTH.format(steps=config["steps"], of_trials=of_trials)
    return text


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
