"""How runs train on a GPU: in recorded steps, several at once.

A step is recorded on a GPU only; elsewhere its parts are called one after the other, as a recording
calls them.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import fork_server
from helpers.kernel_results import NO_CPU_KERNELS
from helpers.project import TINY, TRAIN, edit_params, results, sepablate
from helpers.tiny_runs import context, tiny

from sepablate import data
from sepablate.data.split import Batches
from sepablate.execution import backend, hardware, pool
from sepablate.execution.job import BUSY, DONE, FAILED, INTERRUPTED, Job
from sepablate.execution.trainer import Progress
from sepablate.kernels import fuse
from sepablate.models.layers import SeparableConv
from sepablate.store.checkpoint import newest_step
from sepablate.training import batches, engine
from sepablate.training.cuda_graph import CudaGraphStep
from sepablate.training.step import TrainContext, TrainState, eval_steps, train_step

DEVICE = hardware.devices()[0]


def recorded(step: CudaGraphStep) -> float:
    """One step, and the losses that it returns."""
    if DEVICE != "cpu":
        return step() or 0.0
    step.copy_inputs()
    step.compute()
    step.state.step += 1
    return 0.0


def unread(step: CudaGraphStep) -> float:
    """The losses that were not returned yet; read where the recorded steps are waited for."""
    return step.read_loss() if DEVICE != "cpu" else step.loss.item()


@pytest.mark.parametrize(
    ("variant", "micro_batch"),
    [("xception", 0), ("xception", 8), ("xception_multilabel", 0), ("inception_v3", 0)],
)
def test_a_recorded_step_is_a_plain_one(variant: str, micro_batch: int, data_folder: Path) -> None:
    run = tiny(variant, epochs=2, micro_batch=micro_batch, images=320)
    run = dataclasses.replace(run, options={**run.options, "dropout": 0.0})
    split = data.dataset(run.dataset).load(data_folder)["train"].first(320)
    states, losses = [], []
    for record in (False, True):
        state = engine.start(run, DEVICE)
        stream = batches.make_batches(split, run, device=DEVICE)
        fixed = dataclasses.replace(context(run, split), device=DEVICE)
        if record:
            step = CudaGraphStep(state, stream, fixed)
            losses.append(sum(recorded(step) for _ in range(8)) + unread(step))
        else:
            losses.append(sum(train_step(state, stream, fixed) for _ in range(8)))
        states.append(state)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for part in ("model", "average"):
        plain, ours = (state.to_dict()[part] for state in states)
        for name, tensor in plain.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_recorded_step_draws_its_dropout_by_seed_and_step(data_folder: Path) -> None:
    run = tiny(images=320)
    split = data.dataset(run.dataset).load(data_folder)["train"].first(320)
    stream = batches.make_batches(split, run, device=DEVICE)
    fixed = dataclasses.replace(context(run, split), device=DEVICE)
    recorded_step = CudaGraphStep(engine.start(run, DEVICE), stream, fixed)
    seeds = []
    for step in (0, 1, 0):
        recorded_step.state.step = step
        recorded_step.copy_inputs()
        seeds.append(recorded_step.seeds.tolist())
    assert seeds[0] == seeds[2] != seeds[1]
    assert len(recorded_step.dropouts) == 1


def test_losses_that_are_told_now_and_then_add_up(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a run are those of one that tells each loss, also if it is stopped meanwhile."""
    run = tiny(images=96, epochs=4)
    splits = data.dataset(run.dataset).load(data_folder)
    expected = engine.fit(run, splits, tmp_path / "each", engine.Monitor())

    def now_and_then(
        state: TrainState, batches: Batches, fixed: TrainContext
    ) -> Callable[[], float | None]:
        due, kept_back = eval_steps(run), [0.0]

        def step() -> float | None:
            kept_back[0] += train_step(state, batches, fixed)
            if state.step % 3 and state.step not in due:
                return None
            total, kept_back[0] = kept_back[0], 0.0
            return total

        return step

    class StopAfterTen(engine.Monitor):
        steps = 0

        def on_step(self, state: TrainState) -> None:
            self.steps = state.step

        def should_stop(self) -> bool:
            return self.steps > 10

    monkeypatch.setattr(engine, "make_train_step", now_and_then)
    monitor = StopAfterTen()
    with pytest.raises(engine.Interrupted):
        engine.fit(run, splits, tmp_path / "seldom", monitor)
    assert monitor.steps == newest_step(tmp_path / "seldom") == 12
    found = engine.fit(run, splits, tmp_path / "seldom", engine.Monitor())
    assert [row[:2] for row in found.rows] == [row[:2] for row in expected.rows]
    for (_, metric, ours), (_, _, theirs) in zip(found.rows, expected.rows, strict=True):
        assert ours == (pytest.approx(theirs) if metric == "train/loss" else theirs)


@dataclasses.dataclass
class Ended:
    """A process that is over."""

    exitcode: int

    def is_alive(self) -> bool:
        return False


def test_each_run_of_a_process_is_known_by_how_it_ended() -> None:
    jobs = [job(index, "cuda:0") for index in range(4)]
    ended = [DONE, FAILED, pool.NOT_REPORTED, pool.NOT_REPORTED]
    groups = [pool.Group([0, 1, 2], Ended(-9)), pool.Group([3], Ended(0))]  # type: ignore[arg-type]
    progress = Progress([0] * 4)
    assert pool.reap_workers(jobs, groups, ended, progress, stopping=False) == []
    assert progress.finished == 2
    assert progress.failures == {"xception seed 1": FAILED, "xception seed 2": -9}


@pytest.mark.skipif(NO_CPU_KERNELS is not None, reason=f"no C++ kernels: {NO_CPU_KERNELS}")
def test_the_check_of_a_gpu_s_kernels_sees_a_wrong_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the CPU's kernels, where there is no GPU: by those that a GPU has as well."""
    monkeypatch.delitem(fuse._FUSED, SeparableConv)
    assert backend.triton_failure(DEVICE) is None
    original = fuse._operators

    class Wrong:
        def __init__(self, kernels: Any) -> None:
            self.kernels = kernels

        def __getattr__(self, name: str) -> Any:
            kernel = getattr(self.kernels, name)
            if name != "depthwise":
                return kernel
            return lambda x, weight, *more: kernel(x, 2 * weight - weight.detach(), *more)

    monkeypatch.setattr(fuse, "_operators", lambda x: Wrong(original(x)))
    assert "Triton: outputs and gradients have" in (backend.triton_failure(DEVICE) or "")


def job(index: int, device: str, pixels: int = 28) -> Job:
    run = dataclasses.replace(tiny(seed=index), kernels="triton", image_size=pixels)
    return Job(run, "", str(index), device, "")


def test_small_runs_share_a_gpu_large_ones_and_those_of_a_cpu_have_a_process_each() -> None:
    def groups(jobs: list[Job], room: int) -> list[list[int]]:
        waiting, found = list(range(len(jobs))), []
        while waiting:
            found.append(pool.pop_next_group(jobs, waiting, room))
        return found

    two = [job(index, f"cuda:{index % 2}") for index in range(6)]
    assert groups(two, 12) == [[0, 2, 4], [1, 3, 5]]
    assert groups(two, 2) == [[0, 2], [1, 3], [4], [5]]
    assert groups([job(index, "cuda:0") for index in range(8)], 6) == [[*range(6)], [6, 7]]
    assert groups([job(index, "cuda:0", 299) for index in range(2)], 6) == [[0], [1]]
    assert groups([job(index, "cpu") for index in range(2)], 6) == [[0], [1]]


TOGETHER = """
import fcntl, json, multiprocessing, sys, time
from sepablate.execution import train_variant, worker
from sepablate.store.checkpoint import newest_step

stop = sys.argv[1] == "stop"
found = train_variant.seed_jobs("xception", "smoke", {})
context = multiprocessing.get_context("forkserver")
steps, ended = (context.Array("q", [-1] * len(found), lock=False) for _ in range(2))
found[2].folder.mkdir(parents=True, exist_ok=True)
lock = (found[2].folder / "lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
process = context.Process(target=worker.run_jobs, args=(dict(enumerate(found)), steps, ended))
process.start()
while stop and min(steps[0], steps[1]) < 2:
    time.sleep(0.01)
if stop:
    process.terminate()
process.join()
print(json.dumps([process.exitcode, list(ended), [newest_step(job.folder) for job in found]]))
"""


@pytest.mark.slow
def test_runs_in_one_process_end_each_by_itself(half: Path) -> None:
    """The last is trained elsewhere; the others are stopped, go on, and end in the bytes of runs
    of a single run. Without dropout: where no step is recorded, all draw from one generator."""
    changes = {**TINY, "images": 320, "epochs": 2, "evaluations": 2, "dropout": 0}
    edit_params(half, **changes)

    def together(how: str) -> list[Any]:
        done = fork_server.run(half, "-c", TOGETHER, how)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    code, ended, steps = together("stop")
    assert (code, ended) == (0, [INTERRUPTED, INTERRUPTED, BUSY])
    assert 0 < steps[0] < 40
    assert 0 < steps[1] < 40
    assert not steps[2]
    assert together("end")[:2] == [0, [DONE, DONE, BUSY]]
    done = sepablate(half, *TRAIN)
    assert "2 of 3 runs are on disk already" in done.stdout
    shared = results(half)
    shutil.rmtree(half / ".sepablate")
    assert sepablate(half, *TRAIN).returncode == 0
    assert results(half) == shared
