"""Made-up effects of a claim over the settings of the robustness study."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from helpers.made_up_runs import make_runs
from helpers.project import ROOT, made_once
from sepablate import study
from sepablate.analysis.setting_effects import ClaimEffects, SettingEffect
from sepablate.report import robustness as report
from sepablate.study import BASE, Claim, RobustnessStudy

SETTINGS = 13  # departures, as at a scale of grey garments
SCALE = "tiny"
SEEDS = 2  # of a setting's made-up runs; those of the scale have 6
VARIANTS = ("xception", "inception_v3", "no_residual", "relu_between", "elu_between")
STEPS = {"1/8": 3, "1/4": 6, "1/2": 9, "1": 18, "2": 36}  # by the level of the budget


def made_up() -> RobustnessStudy:
    return study.load_robustness("robustness")


def claim_effects(
    effect: Callable[[dict[str, str]], float],
    noise: float = 0.003,
    seed: int = 0,
    pair: tuple[str, Claim] | None = None,
) -> ClaimEffects:
    """A claim of which `effect` gives the true difference by the levels of the factors.

    noise: the standard deviation of a difference over seeds.
    """
    declared = made_up()
    owner, claim = pair or study.robustness_claims("robustness")[0]
    departures = declared.settings[:SETTINGS]
    draw = np.random.default_rng([seed, len(claim.right)])
    settings = []
    for setting in (None, *departures):
        levels = declared.levels(setting)
        count = 6 if setting is None else 3
        differences = effect(levels) + noise * draw.normal(size=count)
        keys = {side: {str(s): f"{s:016x}" for s in range(count)} for side in ("left", "right")}
        settings.append(
            SettingEffect(
                setting=BASE if setting is None else setting.name,
                levels=levels,
                dataset="cifar10" if levels["data"] == "CIFAR-10" else "fashion_mnist",
                images_seen=int(40_800 * Fraction(levels["budget"])),
                seeds=tuple(range(count)),
                differences=tuple(map(float, differences)),
                diverged=(),
                run_keys={claim.left: keys["left"], claim.right: keys["right"]},
            )
        )
    return ClaimEffects(
        study=owner,
        claim=claim,
        left_label=study.variant(claim.left).label,
        right_label=study.variant(claim.right).label,
        settings=tuple(settings),
    )


@pytest.fixture(scope="session")
def project_of_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with runs at a scale and in the settings of the study, and with the report."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            _make_runs()
            report.effects_outputs("robustness", SCALE)
            report.report_outputs("robustness", SCALE)

    return made_once(tmp_path_factory, "settings", make)


def _make_runs() -> None:
    shutil.copytree(ROOT / "experiments", "experiments")
    runs = Path("results") / SCALE / "runs"
    for number, setting in enumerate(made_up().settings[:SETTINGS]):
        shutil.rmtree(runs, ignore_errors=True)
        for name in VARIANTS:
            make_runs(name, seeds=range(number * 10, number * 10 + SEEDS))
            _change_config(runs / name, setting.levels.get("budget", "1"))
        shutil.copytree(runs, runs.parent / "settings" / setting.name / "runs")
    shutil.rmtree(runs)
    for name in VARIANTS:
        make_runs(name)
        _change_config(runs / name, "1")


def _change_config(folder: Path, budget: str) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"steps": STEPS[budget], "variant": folder.name}))
