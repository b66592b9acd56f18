"""Train several runs of one network together: what `engine.fit` does for one run."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sepablate.data.split import Split, TensorSplit
from sepablate.runs.run import Run
from sepablate.store import checkpoint, run_files
from sepablate.training import engine
from sepablate.training.batches import make_batches
from sepablate.training.cuda_graph import CudaGraphStep
from sepablate.training.objective import make_objective
from sepablate.training.population.stacked import NotStackable
from sepablate.training.population.step import PopulationStep
from sepablate.training.process_group import SINGLE
from sepablate.training.step import TrainContext, TrainState, eval_steps

CHECKPOINT_EVERY = 30.0  # seconds


@dataclass
class Member:
    """One run of a population.

    Args:
        folder: of its checkpoints.
        result: once it is finished or diverged.
    """

    run: Run
    folder: Path
    monitor: engine.Monitor
    result: engine.TrainResult | None = None


def same_network(runs: Sequence[Run]) -> bool:
    """Return whether runs differ in their seeds only, and their steps can be recorded."""
    first = runs[0]
    alike = len({repr(run.with_seed(first.seed)) for run in runs}) == 1
    return alike and first.kernels == "triton" and not first.scale.micro_batch


def fit(members: Sequence[Member], splits: Mapping[str, Split], device: str) -> None:
    """Train the members' runs on one GPU, each from its last checkpoint; set their results.

    Checkpoints, which take a second for six runs, are written at points of the curve when the last
    ones are CHECKPOINT_EVERY seconds old.

    Each run has the numbers that `engine.fit` gives it, up to the order of the terms of sums.

    Raises Interrupted as `engine.fit` does. Raises NotStackable, before any step, for networks that
    cannot be stacked, images from files, and checkpoints of different steps.
    """
    # Set up
    run = members[0].run
    validation = splits["validation"].first(run.scale.validation_images)
    step = _make_step(members, splits["train"], device)
    states = [recorder.state for recorder in step.runs]
    curve_steps, saved = eval_steps(run), time.monotonic()
    began = saved - states[0].seconds

    while states[0].step < run.scale.steps and any(member.result is None for member in members):
        # Train
        losses = step.step_all()
        if losses is None:
            continue
        stop = any(member.monitor.should_stop() for member in members)
        save = stop or (
            states[0].step in curve_steps and time.monotonic() - saved > CHECKPOINT_EVERY
        )
        if save:
            saved = time.monotonic()
            step.split_optimizer()
        for member, recorder, loss in zip(members, step.runs, losses, strict=True):
            state = recorder.state
            if member.result is not None or _diverged(member, state, loss, began):
                continue
            # Evaluate
            if state.step in curve_steps:
                engine.evaluate_curve_point(state, validation, recorder.context)
            state.seconds = time.monotonic() - began
            # Checkpoint
            member.monitor.on_step(state)
            if save:
                checkpoint.save(member.folder, state.step, _content(state, member.run))
        if stop and states[0].step < run.scale.steps:
            raise engine.Interrupted

    final = engine.final_images(run, splits)
    for member, recorder in zip(members, step.runs, strict=True):
        if member.result is None:
            state = recorder.state
            scores = engine.evaluate_final(state, final, recorder.context)
            weights, seconds = state.average.model.state_dict(), time.monotonic() - began
            member.result = engine.TrainResult(state.rows, scores, seconds, state.times, weights)


def _make_step(members: Sequence[Member], split: Split, device: str) -> PopulationStep:
    """Return the step of the members' runs, which continue from their last checkpoints."""
    if not isinstance(split, TensorSplit):
        raise NotStackable("images from files")
    training = split.first(members[0].run.scale.images)
    states = [
        engine.resume(engine.start(member.run, device), member.run, member.folder, SINGLE)
        for member in members
    ]
    if len({state.step for state in states}) > 1:
        raise NotStackable("checkpoints of different steps")
    objective = make_objective(members[0].run.task, training.labels)
    (first, *others) = [
        (
            state,
            make_batches(training, member.run, device=device),
            TrainContext(member.run, objective, device),
        )
        for member, state in zip(members, states, strict=True)
    ]
    return PopulationStep(*first, [CudaGraphStep(*other) for other in others])


def _diverged(member: Member, state: TrainState, loss: float, began: float) -> bool:
    """Add the loss; if it is not finite any more, set the member's result and return True."""
    state.loss_sum += loss
    if math.isfinite(state.loss_sum):
        return False
    state.rows.append((state.step, run_files.DIVERGED, float(state.step)))
    seconds = time.monotonic() - began
    member.result = engine.TrainResult(state.rows, None, seconds, state.times, None)
    return True


def _content(state: TrainState, run: Run) -> dict[str, object]:
    """Return a checkpoint; weights are copied, for a view is saved with its whole stack."""
    saved = state.to_dict()
    for part in ("model", "average"):
        weights: dict[str, Tensor] = saved[part]
        saved[part] = {name: weight.clone() for name, weight in weights.items()}
    return {**saved, "run_key": run.key}
