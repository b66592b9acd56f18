"""One run: its recipe, its batches, its checkpoints, its key."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers.monitors import StopAfterEachStep
from helpers.tiny_runs import context, tiny
from torch.optim.swa_utils import AveragedModel

from sepablate.data import fashion_mnist
from sepablate.data.split import TensorSplit
from sepablate.execution import backend
from sepablate.rng import generator, stream_seed
from sepablate.store import checkpoint
from sepablate.training import engine, optim
from sepablate.training.batches import TensorBatches
from sepablate.training.step import train_step


@pytest.fixture(scope="module")
def splits(data_folder: Path) -> dict[str, TensorSplit]:
    return fashion_mnist.load(data_folder)


def test_learning_rate_follows_the_paper_s_staircase() -> None:
    # 181 epochs of ImageNet at 0.94 every 2 epochs, squeezed into the steps of a run.
    run = tiny(images=50_000, batch_size=50, epochs=0.9)
    assert run.scale.steps == 900
    rates = [optim.learning_rate(step, run) for step in range(900)]
    assert rates == [0.045 * 0.94 ** (step // 10) for step in range(900)]
    assert rates[-1] == pytest.approx(0.045 * 0.94**89)


def test_optimizer_decays_kernels_and_nothing_else() -> None:
    state = engine.start(tiny("inception_v3"))
    decayed = {
        id(parameter): group["weight_decay"]
        for group in state.optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in state.model.named_parameters():
        assert decayed[id(parameter)] == (4e-5 if parameter.dim() > 1 else 0.0), name
    assert all(group["momentum"] == 0.9 for group in state.optimizer.param_groups)
    assert all(not group["nesterov"] for group in state.optimizer.param_groups)


def test_weight_decay_is_coupled_l2() -> None:
    """One step of momentum SGD on g + w x, as TensorFlow's regulariser gives it."""
    model = torch.nn.Linear(3, 2, bias=False)
    before = model.weight.detach().clone()
    velocity = torch.zeros_like(before)
    optimizer = optim.make_optimizer(model, tiny("inception_v3"))
    for _ in range(2):
        model.weight.grad = torch.full_like(before, 0.5)
        optimizer.step()
        gradient = 0.5 + 4e-5 * before
        velocity = 0.9 * velocity + gradient
        before = before - 0.045 * velocity
        torch.testing.assert_close(model.weight.detach(), before)


def test_average_equals_torch_s(splits: dict[str, TensorSplit]) -> None:
    run = tiny(epochs=3)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, averaging_horizon=0.3))
    split = splits["train"].first(96)
    state, batches = engine.start(run), TensorBatches(split, run)
    decay = 1 - 1 / (0.3 * run.scale.steps)
    updates = itertools.count()

    def blend(average: torch.Tensor, current: torch.Tensor, count: object) -> torch.Tensor:
        if not current.is_floating_point():
            return current
        weight = min(decay, (1 + next_update) / (10 + next_update))
        return weight * average + (1 - weight) * current

    oracle = AveragedModel(state.model, avg_fn=blend, use_buffers=True)
    oracle.n_averaged.fill_(1)  # so that its first update blends, as ours does
    for _ in range(run.scale.steps):
        next_update = next(updates)
        train_step(state, batches, context(run, split))
        oracle.update_parameters(state.model)
    ours, theirs = state.average.model.state_dict(), oracle.module.state_dict()
    for name, tensor in ours.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6)


def test_first_step_equals_a_plain_loop(splits: dict[str, TensorSplit]) -> None:
    """The engine computes what a few lines of plain PyTorch compute."""
    run = tiny(padding="same")
    split = splits["train"].first(96)
    state, batches = engine.start(run), TensorBatches(split, run)
    twin = engine.start(run).model
    plain = torch.optim.SGD(twin.parameters(), lr=0.045, momentum=0.9)
    train_step(state, batches, context(run, split))
    images, labels = batches.batch(0)
    torch.manual_seed(stream_seed(0, "dropout", 0))
    torch.nn.functional.cross_entropy(twin.train()(images), labels).backward()
    plain.step()
    for ours, theirs in zip(state.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_batches_are_paired_shuffled_and_cover_the_epoch(
    splits: dict[str, TensorSplit],
) -> None:
    data = splits["train"].first(96)
    ours, theirs = TensorBatches(data, tiny()), TensorBatches(data, tiny("inception_v3"))
    other = TensorBatches(data, tiny(seed=1))
    for step in (0, 5, 7, 2):  # in any order
        assert torch.equal(ours.batch(step)[0], theirs.batch(step)[0])
        assert not torch.equal(ours.batch(step)[0], other.batch(step)[0])
    labels = torch.cat([ours.batch(step)[1] for step in range(6)])
    assert torch.equal(labels.sort().values, data.labels.sort().values)
    assert not torch.equal(labels, data.labels)
    assert not torch.equal(labels, torch.cat([ours.batch(step)[1] for step in range(6, 12)]))


def test_augmentation_shifts_and_mirrors(splits: dict[str, TensorSplit]) -> None:
    """Each augmented image is one of the 18 shifts and mirrors of its original, and all occur."""
    data, run = splits["train"].first(96), tiny()
    batches = TensorBatches(data, run)
    padded = torch.nn.functional.pad(data.images, (1, 1, 1, 1))
    seen = set()
    for step in range(24):
        order = torch.randperm(96, generator=generator(0, "order", step // 6))
        chosen = order[16 * (step % 6) :][:16]
        for image, index in zip(batches.batch(step)[0], chosen, strict=True):
            views = {
                (row, column, flip): (view.flip(1) if flip else view)
                for row, column, flip in itertools.product(range(3), range(3), (False, True))
                for view in [padded[index, row : row + 28, column : column + 28]]
            }
            pixels = (image[0] + 1) * 127.5
            found = [key for key, view in views.items() if torch.allclose(pixels, view.float())]
            assert found
            seen |= set(found[:1])
    assert len(seen) == 18


def test_streams_do_not_touch_each_other() -> None:
    names = [(seed, kind, step) for seed in (0, 1) for kind in "ab" for step in (0, 1)]
    draws = [torch.rand(4, generator=generator(*name)) for name in names]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(names)
    state = torch.get_rng_state()
    generator(0, "order", 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resume_is_exact_at_every_step(
    splits: dict[str, TensorSplit], tmp_path: Path, precision: str
) -> None:
    run = dataclasses.replace(tiny(epochs=1.5, images=64), precision=precision)
    whole = engine.fit(run, splits, tmp_path / "whole", engine.Monitor())
    halts = 0
    while True:  # stop after every single step
        try:
            pieces = engine.fit(run, splits, tmp_path / "pieces", StopAfterEachStep())
            break
        except engine.Interrupted:
            halts += 1
    assert halts == run.scale.steps - 1
    assert pieces.rows == whole.rows
    assert whole.scores is not None
    assert pieces.scores is not None
    assert torch.equal(pieces.scores, whole.scores)


def test_a_damaged_checkpoint_is_found_and_the_one_before_it_used(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step, "weight": torch.full((5,), float(step))})
    newest = sorted(tmp_path.glob("*.pt"))[-1]
    whole = newest.read_bytes()
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        place = int(torch.randint(len(whole) * 8, (), generator=draw))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        newest.write_bytes(flipped)
        found = checkpoint.load(tmp_path)
        assert found is not None
        assert found["step"] == 2
    newest.write_bytes(whole[: len(whole) // 2])
    assert (checkpoint.load(tmp_path) or {})["step"] == 2
    newest.write_bytes(whole)
    assert (checkpoint.load(tmp_path) or {})["step"] == 3
    assert len(list(tmp_path.iterdir())) == checkpoint.KEPT


def test_a_diverged_run_stops_and_says_where(
    splits: dict[str, TensorSplit], tmp_path: Path
) -> None:
    run = tiny("no_residual", epochs=5)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, learning_rate=1e30))
    outcome = engine.fit(run, splits, tmp_path, engine.Monitor())
    step, metric, value = outcome.rows[-1]
    assert metric == "final/diverged_at_step"
    assert value == step < run.scale.steps
    assert outcome.scores is None


def test_run_key_changes_with_everything_that_changes_numbers() -> None:
    run = tiny()
    others = [
        dataclasses.replace(run, seed=1),
        dataclasses.replace(run, variant="other"),
        run.with_learning_rate(0.1),
        dataclasses.replace(run, weight_decay=2e-5),
        dataclasses.replace(run, precision="bf16"),
        dataclasses.replace(run, threads=2),
        dataclasses.replace(run, options={**run.options, "residual": False}),
        *(tiny(**{field: value}) for field, value in {"images": 80, "epochs": 2}.items()),
        tiny("inception_v3"),
    ]
    keys = {other.key for other in others}
    assert len(keys | {run.key}) == len(others) + 1
    same = dataclasses.replace(run, scale_name="other", learning_rates=(0.1, 0.2))
    same = dataclasses.replace(same, scale=dataclasses.replace(run.scale, seeds=(5, 6)))
    assert same.key == run.key


def test_precision_check_measures_and_remembers(tmp_path: Path) -> None:
    assert 0 < backend.bf16_error("cpu") < 0.5
    assert backend.select_precision("fp32", tmp_path) == "fp32"
    assert not list(tmp_path.iterdir())
    found = backend.select_precision("auto", tmp_path)
    (known,) = json.loads((tmp_path / "precision.json").read_text()).values()
    assert found == known
