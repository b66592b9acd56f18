"""Runs that train together on a GPU have the numbers of runs that train by themselves.

Elsewhere, where no step is recorded, its parts are called one after the other, in fp32.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from helpers.kernel_results import error, random, results
from helpers.tiny_runs import context, tiny
from torch import Tensor, nn
from torch.nn import functional

from sepablate import data, models
from sepablate.execution import hardware, worker
from sepablate.execution.job import BUSY, DONE, Job
from sepablate.execution.worker import RunMonitor
from sepablate.models.weight_init import init_weights
from sepablate.runs.run import Run
from sepablate.store import layout, run_files
from sepablate.store.files import locked
from sepablate.training import engine
from sepablate.training.batches import make_batches
from sepablate.training.cuda_graph import CudaGraphStep
from sepablate.training.population import fit as population
from sepablate.training.population.fit import Member, same_network
from sepablate.training.population.stacked import NotStackable, link, part, stack
from sepablate.training.population.step import PopulationStep
from sepablate.training.step import TrainState

pytest.importorskip("triton")
from sepablate.kernels.triton import stacked

DEVICE = hardware.devices()[0]
SMALL = {"classes": 10, "in_channels": 3, "width": 0.0625, "stem_stride": 1}
SAME = {"padding": "same"}
NETWORKS: list[tuple[str, dict[str, object]]] = [
    ("xception", SAME),
    ("xception", {**SAME, "residual": False}),
    ("xception", {**SAME, "activation_between": "relu"}),
    ("xception", {**SAME, "activation_between": "elu", "norm_between": True}),
    ("xception", {**SAME, "activation_after": "none"}),
    ("xception", {**SAME, "pointwise_first": True, "hidden": 1, "borders": "tensorflow"}),
    ("mobilenet_v1", {}),
]


def networks(name: str, options: dict[str, object], count: int) -> list[nn.Module]:
    made = [models.build(name, **{**SMALL, **options, "dropout": 0.0}) for _ in range(count)]
    for seed, network in enumerate(made):
        init_weights(network, seed)
    return made


def gradients(network: nn.Module, images: Tensor, weights: Tensor) -> Tensor:
    logits: Tensor = network(images)
    (logits * weights).sum().backward()
    return logits.detach()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_a_stack_computes_its_networks(name: str, options: dict[str, object]) -> None:
    """In float64: in float32, so deep a network blows up the rounding of sums."""
    apart = [network.double() for network in networks(name, options, 3)]
    together = copy.deepcopy(apart)
    wide = stack(together)
    link(wide, together)
    images = [random(4, 3, 32, 32, seed=seed).double() for seed in range(3)]
    weights = [random(4, 10, seed=seed + 3).double() for seed in range(3)]
    expected = [gradients(*each) for each in zip(apart, images, weights, strict=True)]
    actual = gradients(wide, torch.cat(images, 1), torch.cat(weights, 1)).chunk(3, dim=1)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    for index, (ours_, theirs_) in enumerate(zip(together, apart, strict=True)):
        for key, buffer in theirs_.named_buffers():  # its own are views of the stack's
            if buffer.is_floating_point():
                torch.testing.assert_close(ours_.get_buffer(key), buffer)
        for key, weight in theirs_.named_parameters():
            assert torch.equal(ours_.get_parameter(key), weight)
            joined = wide.get_parameter(key)
            assert joined.grad is not None
            gradient = part(joined.grad, index, 3, weight.shape)
            assert error(gradient, weight.grad) < 1e-7, key
    for weight in wide.parameters():  # what fills up the channels stays zero
        assert weight.grad is not None
        assert not weight.grad[weight == 0].any() or weight.ndim == 1


def test_the_networks_of_a_stack_change_with_it_and_it_with_them() -> None:
    apart = networks("xception", SAME, 2)
    wide = stack(apart)
    link(wide, apart)
    with torch.no_grad():
        wide.stem[0].conv.weight[8:].fill_(1)
        apart[0].classifier.dense.bias.fill_(2)
    assert (apart[1].stem[0].conv.weight == 1).all()
    assert not (apart[0].stem[0].conv.weight == 1).any()
    assert (wide.classifier.dense.bias[:10] == 2).all()


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [("xception", {"segments": 2}, "segments"), ("inception_v3", {}, "branches")],
)
def test_networks_that_are_not_stacked(name: str, options: dict[str, object], reason: str) -> None:
    """Those of branches were slower in a stack: 31 ms a step of six runs, in streams 20 ms."""
    with pytest.raises(NotStackable, match=reason):
        stack(networks(name, {**SAME, **options}, 2))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_batched_product_is_a_pointwise_convolution(stride: int) -> None:
    """Of three networks, on maps of odd size."""
    x, weight = random(2, 3 * 5, 7, 4), random(3 * 6, 5, 1, 1, seed=1)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return stacked.pointwise(x, weight, stride, 3)

    def theirs(x: Tensor, weight: Tensor) -> Tensor:
        return functional.conv2d(x, weight, stride=stride, groups=3)

    actual, expected = results(ours, x, weight, device=DEVICE), results(theirs, x, weight)
    assert actual[0].is_contiguous(memory_format=torch.channels_last)
    assert [each.shape for each in actual] == [each.shape for each in expected]
    assert all(error(*pair) < 0.006 for pair in zip(actual, expected, strict=True))


def runs(seeds: int, **changes: object) -> list[Run]:
    """Runs of one network without dropout, whose mask only a GPU can draw by a number."""
    all_runs = [tiny("xception", seed, images=96, **changes) for seed in range(seeds)]
    return [dataclasses.replace(r, options={**r.options, "dropout": 0.0}) for r in all_runs]


def train(runs: Sequence[Run], folder: Path, splits: object, stop: bool = False) -> list[Member]:
    """Train runs together; stop when their losses are read for the second time, if asked to."""

    class Stop(engine.Monitor):
        began = False

        def on_step(self, state: object) -> None:
            self.began = True

        def should_stop(self) -> bool:
            return stop and self.began

    members = [Member(run, folder / str(run.seed), Stop()) for run in runs]
    population.fit(members, splits, DEVICE)  # type: ignore[arg-type]
    return members


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, steps are computed as they are, and each returns its loss."""
    if DEVICE != "cpu":
        return

    def step_all(step: PopulationStep) -> list[float]:
        step.copy_inputs()
        step.compute()
        for run in step.runs:
            run.state.step += 1
        return [run._read_loss() for run in step.runs]

    monkeypatch.setattr(PopulationStep, "step_all", step_all)


@pytest.mark.skipif(DEVICE == "cpu", reason="steps are recorded on a GPU")
@pytest.mark.parametrize("variant", ["xception", "no_residual"])
def test_recorded_steps_of_a_stack_are_those_of_its_runs(
    variant: str, tmp_path: Path, data_folder: Path
) -> None:
    """By the kernels, in bf16, with dropout."""
    three = [
        tiny(variant, seed, images=320, epochs=2).with_backend("bf16", "triton")
        for seed in range(3)
    ]
    split = data.dataset(three[0].dataset).load(data_folder)["train"].first(320)
    expected = []
    for run in three:
        state, stream = engine.start(run, DEVICE), make_batches(split, run, device=DEVICE)
        fixed = dataclasses.replace(context(run, split), device=DEVICE)
        step = CudaGraphStep(state, stream, fixed)
        expected.append([sum(filter(None, (step(), step.read_loss()))) for _ in range(6)])
    members = [Member(run, tmp_path / str(run.seed), engine.Monitor()) for run in three]
    together = population._make_step(members, split, DEVICE)
    actual = []
    for _ in range(6):
        assert together.step_all() is None
        with torch.cuda.stream(together.stream):
            actual.append([run._read_loss() for run in together.runs])
    for ours, theirs in zip(zip(*actual, strict=True), expected, strict=True):
        assert [*ours] == pytest.approx(theirs, rel=0.01)


def assert_alike(ours: engine.TrainResult, theirs: engine.TrainResult) -> None:
    assert [row[:2] for row in ours.rows] == [row[:2] for row in theirs.rows]
    for (_, metric, our), (_, _, their) in zip(ours.rows, theirs.rows, strict=True):
        tolerance = 0.06 if "accuracy" in metric else 0.005  # of 20 images, one may flip
        assert our == pytest.approx(their, abs=tolerance), metric
    assert ours.weights is not None
    assert theirs.weights is not None
    assert error(whole(ours.weights), whole(theirs.weights)) < 0.005


def whole(weights: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([weight.flatten().cpu() for weight in weights.values()])


@pytest.mark.usefixtures("unrecorded")
def test_members_end_as_runs_of_their_own_also_after_an_interruption(
    tmp_path: Path, data_folder: Path
) -> None:
    three = runs(3, epochs=2)
    splits = data.dataset(three[0].dataset).load(data_folder)
    apart = [
        engine.fit(run, splits, tmp_path / f"apart{run.seed}", engine.Monitor(), DEVICE)
        for run in three
    ]
    with pytest.raises(engine.Interrupted):
        train(three, tmp_path, splits, stop=True)
    for member, expected in zip(train(three, tmp_path, splits), apart, strict=True):
        assert member.result is not None
        assert_alike(member.result, expected)


@pytest.mark.usefixtures("unrecorded")
def test_a_run_that_diverges_leaves_the_others_as_they_were(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = runs(2, epochs=2)
    splits = data.dataset(two[0].dataset).load(data_folder)
    expected = [member.result for member in train(two, tmp_path / "both", splits)]
    start = engine.start

    def poisoned(run: Run, device: str) -> TrainState:
        state = start(run, device)
        if run.seed == 0:
            state.model.get_parameter("classifier.dense.bias").data.fill_(torch.nan)
        return state

    monkeypatch.setattr(engine, "start", poisoned)
    first, second = (member.result for member in train(two, tmp_path / "one", splits))
    assert first is not None
    assert first.scores is None
    assert first.rows[-1][1] == run_files.DIVERGED
    assert second is not None
    assert expected[1] is not None
    assert second.rows == expected[1].rows


def test_which_runs_are_stacked() -> None:
    two = [dataclasses.replace(run, kernels="triton") for run in runs(2)]
    assert same_network(two)
    assert not same_network([two[0], two[1].with_learning_rate(0.5)])
    assert not same_network([two[0], dataclasses.replace(two[1], kernels="torch")])
    wider = dataclasses.replace(two[1], options={**two[1].options, "width": 0.5})
    assert not same_network([two[0], wider])
    parts = dataclasses.replace(two[0], scale=dataclasses.replace(two[0].scale, micro_batch=8))
    assert not same_network([parts, parts])


@pytest.mark.usefixtures("unrecorded")
def test_members_at_different_steps_are_not_stacked(tmp_path: Path, data_folder: Path) -> None:
    two = runs(2, epochs=2)
    splits = data.dataset(two[0].dataset).load(data_folder)
    with pytest.raises(engine.Interrupted):
        train(two, tmp_path, splits, stop=True)
    for path in (tmp_path / "0").glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(NotStackable, match="different steps"):
        train(two, tmp_path, splits)


@pytest.mark.usefixtures("unrecorded")
def test_a_worker_trains_the_runs_that_no_other_process_trains(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "apply_fused_kernels", lambda model: model)  # these are in fp32
    (tmp_path / "data").symlink_to(data_folder)
    jobs = {
        run.seed: Job(dataclasses.replace(run, kernels="triton"), "Xception", run.key, DEVICE, "")
        for run in runs(3)
    }
    steps, outcomes = [0] * 3, [-1] * 3
    monitors = {seed: RunMonitor(job, [], steps, seed) for seed, job in jobs.items()}
    with locked(jobs[1].folder / layout.LOCK):
        assert worker._train_stacked(jobs, monitors, outcomes)
    assert outcomes == [DONE, BUSY, DONE]
    assert [job.finished for job in jobs.values()] == [True, False, True]
    assert steps == [jobs[0].run.scale.steps, 0, jobs[2].run.scale.steps]
    assert not worker._train_stacked(jobs, monitors, outcomes)  # one is left
    several = {0: jobs[0], 1: dataclasses.replace(jobs[1], run=tiny("inception_v3", 1))}
    assert not worker._train_stacked(several, monitors, outcomes)
