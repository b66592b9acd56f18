"""Train one detector: what `engine.fit` does for tasks whose score is a mean over images."""

import base64
import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from sepablate import data
from sepablate.data.image_files import ImageFiles
from sepablate.data.split import Split, TensorSplit
from sepablate.runs.run import Run
from sepablate.store import checkpoint, run_files
from sepablate.training import engine
from sepablate.training.detection.batches import eval_batches, make_batches
from sepablate.training.detection.mean_ap import MeanAP
from sepablate.training.detection.objective import (
    KEPT,
    DetectionObjective,
    make_detection_objective,
)
from sepablate.training.inference import inference_network
from sepablate.training.optim import learning_rate
from sepablate.training.process_group import SINGLE, World
from sepablate.training.step import TrainContext, TrainState, eval_steps, forward, train_step

EXAMPLES = 8  # test images whose boxes are kept
SHOWN = 0.3  # the lowest score of their predicted boxes


def fit(
    run: Run,
    splits: Mapping[str, Split],
    folder: Path,
    monitor: engine.Monitor,
    device: str = "cpu",
    world: World = SINGLE,
) -> tuple[engine.TrainResult, str]:
    """Train `run`, continuing from the last checkpoint in `folder`, in the order of `engine.fit`.

    Returns:
        The result, whose scores are the mAP of images drawn with replacement, and examples, as of
        `_examples`; none of a run that diverged.

    Raises Interrupted when the monitor, of any process, asks to stop.
    """
    # Set up
    training = splits["train"].first(run.scale.images)
    validation = splits["validation"].first(run.scale.validation_images)
    context = TrainContext(run, make_detection_objective(run), device, world)
    state = engine.resume(engine.start(run, device, world), run, folder, world)
    batches = make_batches(training, run, world, device)
    curve_steps, began = eval_steps(run), time.monotonic() - state.seconds

    while state.step < run.scale.steps:
        # Train
        loss = train_step(state, batches, context)  # how many boxes match is not known before
        mean_loss, stop_requests = world.totals(loss / world.size, monitor.should_stop())
        state.loss_sum += mean_loss
        if not math.isfinite(state.loss_sum):
            state.rows.append((state.step, run_files.DIVERGED, float(state.step)))
            seconds = time.monotonic() - began
            return engine.TrainResult(state.rows, None, seconds, state.times, None), ""
        # Evaluate
        if state.step in curve_steps:
            evaluate_curve_point(state, validation, context)
        state.seconds = time.monotonic() - began
        # Checkpoint
        if stop_requests:
            world.sync_batch_norm_buffers(state.model, state.average.model)
        if world.is_main:
            monitor.on_step(state)
            if stop_requests or state.step in curve_steps:
                checkpoint.save(folder, state.step, {**state.to_dict(), "run_key": run.key})
        if stop_requests and state.step < run.scale.steps:
            raise engine.Interrupted

    scores, examples = evaluate_final(state, engine.final_images(run, splits), context)
    weights, seconds = state.average.model.state_dict(), time.monotonic() - began
    return engine.TrainResult(state.rows, scores, seconds, state.times, weights), examples


@torch.inference_mode()
def detect(model: nn.Module, split: Split, context: TrainContext) -> Tensor:
    """Return (N, 100, 6) float64: the detections in each image, each by one process.

    As of `DetectionObjective.detections`.
    """
    run, world, objective = context.run, context.world, context.objective
    assert isinstance(objective, DetectionObjective)
    network = inference_network(model, run)
    part = world.part(len(split))
    found = torch.zeros(len(split), KEPT, 6, dtype=torch.float64)
    batches = eval_batches(split[part], run, context.device)
    computed = [
        objective.detections(forward(network, images, run, context.device)) for images, _ in batches
    ]
    if computed:
        found[part] = torch.cat(computed)
    return world.sum(found)


def evaluate_curve_point(state: TrainState, validation: Split, context: TrainContext) -> None:
    """Add one point of the training curve, from raw and from averaged weights."""
    steps = state.step - max((row[0] for row in state.rows), default=0)
    name = context.objective.score
    raw, averaged = (each.mean_ap.numbers() for each in _evaluate_both(state, validation, context))
    state.rows += [
        (state.step, run_files.LEARNING_RATE, learning_rate(state.step - 1, context.run)),
        (state.step, run_files.TRAIN_LOSS, state.loss_sum / steps),
        (state.step, run_files.validation_metric(name), raw["map"]),
        (state.step, run_files.validation_metric(name, averaged=True), averaged["map"]),
    ]
    state.loss_sum = 0.0
    state.times.append([state.step, time.time_ns() // 1_000_000])


def evaluate_final(state: TrainState, images: Split, context: TrainContext) -> tuple[Tensor, str]:
    """Evaluate the last step on the final images.

    Returns:
        of the averaged weights, the mAP of images drawn with replacement, and examples.
    """
    run, trial = context.run, bool(context.run.trial_images)
    raw, averaged = _evaluate_both(state, images, context)
    state.rows += [
        (state.step, run_files.final_metric(name, weights, trial), value)
        for weights, evaluated in ((False, raw), (True, averaged))
        for name, value in evaluated.mean_ap.numbers().items()
    ]
    return averaged.mean_ap.resampled(), _examples(images, averaged.detections, run)


@dataclass(frozen=True)
class Evaluated:
    """The detections in some images, and their mean average precision."""

    detections: Tensor
    mean_ap: MeanAP


def _evaluate_both(state: TrainState, split: Split, context: TrainContext) -> Iterator[Evaluated]:
    """Yield what the raw and what the averaged weights detect."""
    context.world.sync_batch_norm_buffers(state.model, state.average.model)
    yield evaluate(state.model, split, context)
    yield evaluate(state.average.model, split, context)


def evaluate(model: nn.Module, split: Split, context: TrainContext) -> Evaluated:
    """Return what a network detects in images, and its mean average precision there."""
    areas = data.detection_dataset(context.run.dataset).AREAS
    found = detect(model, split, context)
    return Evaluated(found, MeanAP(found, split.labels, context.run.classes, areas))


def _examples(images: Split, detections: Tensor, run: Run) -> str:
    """Return the first images with true and predicted boxes, as JSON for a figure."""
    first = images.first(EXAMPLES)
    scenes = []
    for index, (labels, found) in enumerate(zip(first.labels, detections, strict=False)):
        file = io.BytesIO()
        _picture(first, index, run).save(file, "png")
        sure = found[found[:, 4] >= SHOWN].round(decimals=2)
        scenes.append(
            {
                "png": base64.b64encode(file.getvalue()).decode(),
                "true": [
                    {"class": int(kind), "box": box}
                    for kind, *box, _ in labels[labels[:, 0] >= 0].tolist()
                ],
                "predicted": [
                    {"class": int(kind), "score": score, "box": box}
                    for *box, score, kind in sure.tolist()
                ],
            }
        )
    return json.dumps(scenes, indent=1) + "\n"


def _picture(split: Split, index: int, run: Run) -> Image.Image:
    """Return an image as the network sees it."""
    if isinstance(split, ImageFiles):
        return split.read(index).resize((run.image_size,) * 2)
    assert isinstance(split, TensorSplit)
    return Image.fromarray(split.images[index].numpy())
