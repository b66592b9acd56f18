"""The benchmark: peers compute what we compute, and its table says what its CSV file says."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT

from sepablate import models, scales
from sepablate.bench import loops, measure, published, report, suite, whole
from sepablate.bench.cases import CASES, Case
from sepablate.bench.contender import Over
from sepablate.models.initial import initialise
from sepablate.models.weights import from_timm
from sepablate.training import batches, engine, task
from sepablate.training.evaluation import Setting
from sepablate.training.step import train_step

NAMED = {case.name: case for case in CASES}


@pytest.fixture
def small(data_folder: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.chdir(project)
    return NAMED["small"]


@pytest.mark.parametrize(
    "name", ["timm", "timm, channels_last", "timm, channels_last, bf16", "sepablate"]
)
def test_contenders_compute_the_same_function(small: Case, name: str) -> None:
    run = small.run()
    network = published.network(run)
    initialise(network, 3)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    images, _ = small.feed().at(0)
    with torch.inference_mode():
        expected = network.eval()(images[:4])
    contender = suite.Suite(small) if name == "sepablate" else loops.Timm(small, name)
    found = contender.outputs(network.state_dict(), images[:4])
    exact = "bf16" not in name and name != "sepablate"
    limit = (1e-5 if exact else 0.05) * expected.abs().max()
    assert (found - expected).abs().max() < limit


def test_the_narrow_network_is_as_large_as_ours(small: Case) -> None:
    run = small.run()
    ours, theirs = models.build(run.model, **run.options), published.network(run)
    sizes = [sum(each.numel() for each in model.parameters()) for model in (ours, theirs)]
    assert sizes[0] == sizes[1] == run.parameters


@pytest.mark.slow
def test_a_case_is_checked_and_timed_without_who_is_not_installed(project: Path) -> None:
    """In real processes, of which Lightning is not in this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        case = dataclasses.replace(
            NAMED["tiny"], turn=3, rounds=2, contenders=("sepablate", "bare loop", "Lightning")
        )
        told: list[str] = []
        found = measure.measure(case, told.append)
    assert [each.contender for each in found] == ["sepablate", "bare loop"]
    assert any("without Lightning" in line and "lightning" in line for line in told)
    for each in found:
        assert len(each.seconds) == 2
        assert min(each.seconds) > 0
        assert each.first_step[0] > min(each.seconds)
        assert each.memory > 10_000_000
        assert each.difference < 1e-5


def test_a_contender_with_other_outputs_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    case = dataclasses.replace(NAMED["tiny"], contenders=("bare loop",))
    expected = measure._reference

    def other(case: Case, folder: Path) -> torch.Tensor:
        return expected(case, folder) * 1.01

    monkeypatch.setattr(measure, "_reference", other)
    with pytest.raises(ValueError, match=r"tiny: outputs of bare loop differ by 0\.0099"):
        measure.measure(case)


def test_the_bare_loop_trains_what_the_engine_trains(project: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(project)
    case = NAMED["tiny"]
    ends = []
    for contender in (suite.Suite(case), loops.Bare(case)):
        states = []
        start = engine.start

        def kept(*arguments, start=start, states=states):  # type: ignore[no-untyped-def]
            states.append(start(*arguments))
            return states[-1]

        monkeypatch.setattr(engine, "start", kept)
        left = iter(range(4))

        def after_step(left=left) -> None:  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                raise Over

        with pytest.raises(Over):
            contender.train(after_step)
        monkeypatch.setattr(engine, "start", start)
        ends.append(torch.cat([each.flatten() for each in states[0].model.parameters()]))
    assert torch.equal(*ends)


def test_the_plain_loop_ends_in_our_weights(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NCHW with torch's own average: the engine's numbers in fp32, but for rounding."""
    params = yaml.safe_load(scales.PARAMS.read_text())
    params["scales"]["laptop"] |= {"images": 96, "evaluations": 1, "test_images": 30}
    params["recipes"]["imagenet"]["averaging_horizon"] = 0.9
    scales.PARAMS.write_text(yaml.safe_dump(params))
    scale, _ = scales.load("laptop")
    run = dataclasses.replace(small.run(), scale=scale, seed=5)
    split = small.split().first(scale.images)
    state, feed = engine.start(run), batches.training(split, run)
    for _ in range(scale.steps):
        train_step(state, feed, Setting(run, task.of(run.task, split.labels)))
    ends = []
    monkeypatch.setattr(whole, "accuracy", lambda split, run, forward: ends.append(forward) or 0.0)
    whole.plain_fp32(5)
    theirs = flat(from_timm("xception", ends[0].module.state_dict()))
    ours = flat(state.average.model.state_dict())
    moved = ours - flat(engine.start(run).model.state_dict())
    assert (theirs - ours).norm() < 0.02 * moved.norm()


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Parameters and statistics one after another, in the order of their names."""
    return torch.cat([state[name].flatten() for name in sorted(state) if state[name].ndim])


def frame() -> pd.DataFrame:
    """Made-up turns: `b` takes 1, 2 and 4 times as long as we do."""
    rows = []
    for turn, factor in enumerate((1.0, 2.0, 4.0)):
        rows += [("small", "sepablate", "seconds", turn, 0.05 * (turn + 1))]
        rows += [("small", "timm", "seconds", turn, 0.05 * (turn + 1) * factor)]
    for name in ("sepablate", "timm"):
        rows += [("small", name, "first_step", 0, 2.0), ("small", name, "memory", 0, 2.0**30)]
    for name in ("sepablate", "timm, channels_last, bf16, from memory"):
        rows += [("suite", name, "seconds", turn, 10.0 + turn) for turn in range(3)]
    for seed in range(6):
        rows += [("accuracy", "sepablate", "accuracy", seed, 0.8 + 0.001 * seed)]
        rows += [("accuracy", "plain fp32 loop", "accuracy", seed, 0.8 - 0.0001 * seed)]
    return pd.DataFrame(rows, columns=["case", "contender", "metric", "turn", "value"])


def test_ratios_are_of_neighbouring_turns() -> None:
    table = report.table(frame())
    assert "| timm | 200 [50, 600] | 2 [1, 4] | 2 | 1.00 |" in table
    assert "| sepablate | 100 [50, 150] | 1 [1, 1] | 2 | 1.00 |" in table
    assert "on the same 6 seeds: +0.27 [+0.06, +0.49] points" in table


def test_the_readme_says_what_was_measured() -> None:
    measured = sorted((ROOT / report.FOLDER).glob("*.csv"))
    assert measured
    readme = (ROOT / "README.md").read_text()
    found = pd.read_csv(measured[-1])
    assert report.section(found, measured[-1].stem) in readme
    for case in NAMED:
        turns = found[(found.case == case) & (found.metric == "seconds")]
        assert len(turns) >= NAMED[case].rounds
    assert np.isfinite(found.value).all()
