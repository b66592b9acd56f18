"""The benchmark: peers compute what we compute, and are what their titles say."""

import dataclasses
import math
import re
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers.fork_server import BIN
from helpers.processes import forking

from sepablate import models, scales
from sepablate.bench import end_to_end, loops, measure, suite, timm_networks
from sepablate.bench.cases import CASES, GPU_MINUTES, WORTH, Case, cases_for, choose, time_limit
from sepablate.bench.contender import StopTraining
from sepablate.models.timm_weights import from_timm
from sepablate.models.weight_init import init_weights
from sepablate.store import layout
from sepablate.training import batches, engine
from sepablate.training.objective import make_objective
from sepablate.training.step import TrainContext, train_step

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
    network = timm_networks.build(run)
    init_weights(network, 3)
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    images, _ = small.batches().batch(0)
    with torch.inference_mode():
        expected = network.eval()(images[:4])
    contender = suite.Suite(small) if name == "sepablate" else loops.TimmLoop(small, name)
    found = contender.outputs(network.state_dict(), images[:4])
    exact = "bf16" not in name and name != "sepablate"
    limit = (1e-5 if exact else 0.05) * expected.abs().max()
    assert (found - expected).abs().max() < limit


def test_the_narrow_network_is_as_large_as_ours(small: Case) -> None:
    run = small.run()
    ours, theirs = models.build(run.model, **run.options), timm_networks.build(run)
    sizes = [sum(each.numel() for each in model.parameters()) for model in (ours, theirs)]
    assert sizes[0] == sizes[1] == run.parameters


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_case_is_checked_and_timed_without_who_is_not_installed() -> None:
    """Lightning is not in this environment."""
    case = dataclasses.replace(
        NAMED["tiny"], turn=3, rounds=2, contenders=("sepablate", "bare loop", "Lightning")
    )
    messages: list[str] = []
    found = measure.measure(case, messages.append)
    assert [each.contender for each in found] == ["sepablate", "bare loop"]
    assert any("without Lightning" in line and "lightning" in line for line in messages)
    for each in found:
        assert len(each.seconds) == 2
        assert min(each.seconds) > 0
        assert each.first_step[0] > min(each.seconds)
        assert each.memory > 10_000_000
        assert each.difference < 1e-5


@pytest.fixture
def forked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders are forked, in a project."""
    monkeypatch.chdir(project)
    for name, value in forking().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(BIN / "python"))


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_contenders_of_a_gpu_start_side_by_side() -> None:
    """They train wherever they can, which here is the CPU."""
    contenders = ("sepablate", "bare loop")
    case = {case.name: case for case in cases_for("cuda:0")}["tiny"]
    case = dataclasses.replace(case, turn=3, rounds=2, contenders=contenders)
    found = measure.measure(case)
    assert [each.contender for each in found] == ["sepablate", "bare loop"]
    assert [len(each.seconds) for each in found] == [2, 2]
    assert [len(each.first_step) for each in found] == [1, 1]


def test_cases_are_chosen_in_order_of_worth() -> None:
    everything = [*(case.name for case in CASES), "suite", "accuracy"]
    assert sorted(WORTH) == sorted(everything)
    assert choose(None, "cpu") == choose(GPU_MINUTES, "cuda:0") == [*WORTH]
    assert sum(time_limit(name, "cuda:0") for name in WORTH) == 60 * GPU_MINUTES
    assert choose(6, "cpu") == ["small", "xception"]
    assert choose(2, "cpu") == ["xception"]  # "small" takes longer
    assert choose(1, "cuda:0") == ["small"]
    assert choose(0.1, "cpu") == []


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_contender_that_is_late_is_stopped() -> None:
    process = measure.ContenderProcess(NAMED["tiny"], "bare loop", time.monotonic())
    with pytest.raises(measure.ContenderError, match=r"^bare loop: not done in its time$"):
        process.wait_for_first_step()
    assert process.process.poll() is not None
    with pytest.raises(measure.ContenderError, match=r"^sepablate: not done in its time$"):
        measure.measure(NAMED["tiny"], end=time.monotonic())


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_the_turns_end_with_the_time_of_the_case() -> None:
    """Each contender has had one."""
    messages: list[str] = []
    work = measure.Work(dataclasses.replace(NAMED["tiny"], turn=2), messages.append, 0.0)
    names = ("sepablate", "bare loop")
    started = [
        (each, measure._start(work, each, math.inf)) for each in map(measure.Measurement, names)
    ]
    found = measure._take_turns(work, started)
    assert [(each.contender, len(each.seconds)) for each in found] == [(name, 1) for name in names]
    assert messages[-1] == "tiny: turn 1 of 5 is the last: its time is up\n"


@pytest.mark.parametrize(
    ("size", "suffix", "mode"),
    [
        ("xception", "compiled", None),
        ("inception_v3", "max-autotune", "max-autotune"),
        ("mobilenet_v1", "max-autotune", "max-autotune"),
        ("small", "from memory, compiled", "reduce-overhead"),
    ],
)
def test_a_peer_on_a_gpu_is_compiled_as_its_name_says(
    size: str, suffix: str, mode: str | None
) -> None:
    (case,) = [each for each in cases_for("cuda:0") if each.name == size]
    name = f"timm, channels_last, bf16, {suffix}"
    assert name in case.contenders
    assert loops.is_compiled(name)
    assert loops.compile_mode(name, case) == mode
    assert not loops.is_compiled("timm, channels_last, bf16")


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_titles_say_what_is_trained(small: Case, device: str) -> None:
    cases = cases_for(device)
    assert [case.name for case in cases] == list(NAMED)
    for case in cases:
        run = case.run()
        assert case.device == device
        assert run.scale.micro_batch == 0
        for millions in re.findall(r"([0-9.]+) M\b", case.title):
            assert millions == f"{run.parameters / 1e6:.2g}"
        for pixels in re.findall(r"([0-9]+) px", case.title):
            assert int(pixels) == run.image_size
            assert case.noise or case.split().images.shape[-1] == run.image_size
    by_name = {case.name: case for case in cases}
    gpu = device != "cpu"
    assert by_name["small"].run().parameters == (5_277_406 if gpu else 356_353)
    assert by_name["small"].run().scale.batch_size == (128 if gpu else 32)
    assert by_name["xception"].run().scale.batch_size == (64 if gpu else 4)
    assert by_name["xception"].run().precision == ("bf16" if gpu else "auto")


def test_the_larger_network_of_a_gpu_is_its_peers(small: Case) -> None:
    case = dataclasses.replace(cases_for("cuda:0")[0], device="cpu")
    network = timm_networks.build(case.run())
    init_weights(network, 3)
    images, labels = case.batches().batch(0)
    assert images.shape == (128, 1, 28, 28)
    assert labels.shape == (128,)
    with torch.inference_mode():
        expected = network.eval()(images[:4])
    for contender in (suite.Suite(case), loops.TimmLoop(case, case.contenders[3])):
        found = contender.outputs(network.state_dict(), images[:4])
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.usefixtures("forked")
def test_a_contender_with_other_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
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
    for contender in (suite.Suite(case), loops.BareLoop(case)):
        states = []
        start = engine.start

        def kept(*arguments, start=start, states=states):  # type: ignore[no-untyped-def]
            states.append(start(*arguments))
            return states[-1]

        monkeypatch.setattr(engine, "start", kept)
        left = iter(range(4))

        def after_step(left=left) -> None:  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                raise StopTraining

        with pytest.raises(StopTraining):
            contender.train(after_step)
        monkeypatch.setattr(engine, "start", start)
        ends.append(torch.cat([each.flatten() for each in states[0].model.parameters()]))
    assert torch.equal(*ends)


def test_the_plain_loop_ends_in_our_weights(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NCHW with torch's own average: the engine's numbers in fp32, but for rounding."""
    params = yaml.safe_load(layout.PARAMS.read_text())
    params["scales"]["laptop"] |= {"images": 96, "evaluations": 1, "test_images": 30}
    params["recipes"]["imagenet"]["averaging_horizon"] = 0.9
    layout.PARAMS.write_text(yaml.safe_dump(params))
    scale, _ = scales.load("laptop")
    run = dataclasses.replace(small.run(), scale=scale, seed=5)
    split = small.split().first(scale.images)
    state, feed = engine.start(run), batches.make_batches(split, run)
    for _ in range(scale.steps):
        train_step(state, feed, TrainContext(run, make_objective(run.task, split.labels)))
    ends = []
    monkeypatch.setattr(end_to_end, "LENGTH", {small.scale: {}})
    monkeypatch.setattr(
        end_to_end, "accuracy", lambda split, run, forward: ends.append(forward) or 0.0
    )
    end_to_end.train_plain_fp32(5)
    theirs = flat(from_timm("xception", ends[0].module.state_dict()))
    ours = flat(state.average.model.state_dict())
    moved = ours - flat(engine.start(run).model.state_dict())
    assert (theirs - ours).norm() < 0.02 * moved.norm()


def flat(state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Parameters and statistics one after another, in the order of their names."""
    return torch.cat([state[name].flatten() for name in sorted(state) if state[name].ndim])
