"""The report on how far verdicts carry: its figures, its tables and ROBUSTNESS.md.

All but the archive of the runs follows from effects.json, the only file that is read from them.
"""

import json

import pandas as pd

from sepablate import study
from sepablate.analysis import carrying_words, effects, robustness, setting_effects, summary_table
from sepablate.analysis.formatting import count_of_claims
from sepablate.analysis.robustness import Carrying
from sepablate.analysis.setting_effects import ClaimEffects
from sepablate.errors import UserError, command
from sepablate.plots import budget_figure, specification_curve
from sepablate.plots.style import variant_styles
from sepablate.report import html, manifest
from sepablate.report.markdown import docstring_points
from sepablate.store import layout, run_archive
from sepablate.store.files import write_atomically
from sepablate.study import BASE, RobustnessStudy

HOW_TO_READ = """\
A setting is a departure from the scale in the factors that its line names. Differences are paired
by seed; the interval of a setting is Student's t over its own seeds{few}.
Pooled over settings by a random-effects model: REML for τ, the standard deviation of the true
effects, and Knapp and Hartung's interval of the mean; all settings of a claim share one variance
per seed. *New setting* is the 95 % prediction interval of the difference that one more setting
would show with as few seeds; *true effect there* is that of Higgins, Thompson and Spiegelhalter
(2009), without the noise of the seeds. The first decides: a claim *carries* if it excludes zero on
the claimed side, and is *reversed* on the other; else it *depends* if the settings differ by more
than their seeds explain (p < 0.05 by a bootstrap in which every setting has a variance of its own),
and else is *open*. The rule is in `sepablate/analysis/robustness.py`, the estimates and how often
the intervals cover in `sepablate/analysis/meta_analysis.py`, the test of equal effects and its
level in `sepablate/analysis/equal_effects.py`.
"""
FEW = {2: "two", 3: "three", 4: "four"}
BEYOND = """ ImageNet,
at the paper's width and length, could not, so *carries* does not say that the claim holds there."""
LIMITS = """\
The prediction is for a setting like these: one that could as well have been on the list.{beyond}
Short trainings spread more than others. With variances of the seeds up to 16 times larger in some
of 8 to 16 simulated settings that agree, *carries* came no more often than promised, and *depends*
in 3 to 6 of 100 cases, and in up to 7 with clearly skewed noise (skewness 1). Where the true
effects of 12 settings spread by one standard error of a setting, the test finds it in 33 to 48 of
100 cases, and by two in 87 to 95: *open* does not say that the settings agree. Factors are varied
mostly one at a time, so the share of τ² that one explains is that of these settings, and two
factors that act together are hardly seen. A straight line on the logarithm of the budget has no
bounds, and accuracies have: where it leaves what is possible, it only says that so few budgets tell
nothing of the paper's.
"""


def effects_outputs(name: str, scale: str) -> None:
    """Write effects.json of a robustness study, and the archive of the runs that it comes from.

    Raises UserError if the runs are not whole.
    """
    measured = setting_effects.measure(name, scale)
    path = layout.study_folder(scale, name) / layout.EFFECTS
    write_atomically(path, effects.to_json(measured))
    archive = layout.scale_folder(scale) / layout.archive_name(name.upper())
    write_atomically(archive, run_archive.renewed(departures(measured, scale), archive))


def departures(measured: list[ClaimEffects], scale: str) -> dict[str, list[str]]:
    """Return the variants that were compared, by setting; the scale itself has its own archive."""
    sides = study.compared_variants(each.claim for each in measured)
    settings = [each.setting for each in measured[0].settings if each.setting != BASE]
    return {f"{scale}.{setting}": sides for setting in settings}


def report_outputs(name: str, scale: str) -> None:
    """Write the report of a robustness study and all its files, from its effects.json.

    ROBUSTNESS.md, robustness.html, robustness_metrics.json and robustness_digests.json, with the
    study's name in capitals; and in the study's folder carrying.json, budget.csv and the figures.

    Raises UserError if there is no effects.json.
    """
    declared, claims = study.load_robustness(name), read(name, scale)
    judged = [robustness.judge(each, declared) for each in claims]
    folder, report = layout.study_folder(scale, name), name.upper()
    write_atomically(folder / layout.CARRYING, effects.to_json(judged))
    write_atomically(folder / layout.BUDGET, summary_table.to_csv(budget_rows(judged, declared)))
    for kind in layout.FIGURE_KINDS:
        drawn = budget_figure.draw(judged, declared, kind, scale)
        write_atomically(folder / f"budget.{kind}", drawn)
        for each in judged:
            curve = specification_curve.draw(each, declared, kind, scale)
            write_atomically(folder / f"{figure_name(each)}.{kind}", curve)
    text = markdown(name, declared, judged, scale)
    base = layout.scale_folder(scale)
    files = {layout.metrics_name(report): metrics(judged), layout.report_text(report): text}
    for file, content in files.items():
        write_atomically(base / file, content)
    write_atomically(base / layout.report_page(report), html.to_html(text, base))
    listed = [*files, layout.report_page(report)]
    manifest.write(scale, report, [name], listed, manifest.SETTINGS)


def read(name: str, scale: str) -> list[ClaimEffects]:
    """Return the effects of a robustness study; UserError if its stage has not run."""
    path = layout.study_folder(scale, name) / layout.EFFECTS
    if not path.is_file():
        raise UserError(f"{path}: missing; run {command(f'robustness {name}', scale)}")
    return setting_effects.read(path)


def markdown(name: str, declared: RobustnessStudy, judged: list[Carrying], scale: str) -> str:
    """Return the report's text."""
    settings = judged[0].effects.settings
    seeds = sorted({len(each.seeds) for each in settings})
    parts = [
        f"# {declared.title}, scale `{scale}`\n",
        f"{declared.source}; declared in `{study.FOLDER / name}.py`. "
        f"{count_of_claims(len(judged))} over {len(settings)} settings: "
        f"the scale itself and {len(settings) - 1} departures from it, "
        f"n = {' or '.join(map(str, seeds))} paired seeds each.\n",
        carrying_words.summary(judged),
        carrying_words.scorecard(judged),
        docstring_points(study.FOLDER / f"{name}.py"),
        f"![The effect of each claim against the images seen]({name}/budget.png)\n",
        HOW_TO_READ.format(few=_few(seeds[0])),
        LIMITS.format(beyond=BEYOND * all(each.dataset != "imagenet" for each in settings)),
        *(_claim(name, each, declared) for each in judged),
    ]
    return "\n".join(parts)


def _few(seeds: int) -> str:
    return f", and with {FEW[seeds]} of them wide" if seeds in FEW else ""


def _claim(name: str, each: Carrying, declared: RobustnessStudy) -> str:
    claim, effects_ = each.effects.claim, each.effects
    return "\n".join(
        [
            f"## {effects_.left_label} {claim.comparison} {effects_.right_label}\n",
            f"![{claim.statement}: every setting]({name}/{figure_name(each)}.png)\n",
            carrying_words.sentence(each, declared),
            carrying_words.settings_table(each, declared),
            carrying_words.factors_table(each),
        ]
    )


def figure_name(carrying: Carrying) -> str:
    """Return the name of a claim's specification curve, without its ending."""
    return f"{carrying.effects.claim.left}_vs_{carrying.effects.claim.right}"


def budget_rows(judged: list[Carrying], declared: RobustnessStudy) -> pd.DataFrame:
    """Return a row per claim and budget, for `dvc plots`: n, difference and interval in points."""
    rows = []
    styles = variant_styles([each.effects.claim.right for each in judged])
    for each in judged:
        means = dict(zip([s.setting for s in each.effects.settings], each.means, strict=True))
        known = [setting for setting in each.effects.settings if setting.differences]
        for setting in robustness.on_budget_line(known, declared):
            mean, low, high = (100 * number for number in means[setting.setting])
            rows.append(
                {
                    "claim": f"{each.effects.left_label} minus {each.effects.right_label}",
                    "images_seen": setting.images_seen,
                    "n": len(setting.seeds),
                    "difference": mean,
                    "low": low,
                    "high": high,
                    "colour": styles[each.effects.claim.right].colour,
                }
            )
    return pd.DataFrame(rows)


def metrics(judged: list[Carrying]) -> str:
    """Return the numbers for `dvc metrics`: by claim, as fractions; null for nan."""
    numbers = {
        f"{each.effects.claim.left} {each.effects.claim.comparison} {each.effects.claim.right}": {
            "difference": each.estimate.mean,
            "new_setting_low": each.estimate.new_low,
            "new_setting_high": each.estimate.new_high,
            "tau": each.estimate.tau,
            "k": each.estimate.k,
            "outcome": each.outcome,
        }
        for each in judged
    }
    return json.dumps(effects.without_nan(numbers), indent=1, allow_nan=False) + "\n"
