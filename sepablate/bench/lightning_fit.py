"""Lightning's Trainer with the same network, batches, optimizer and average."""

import logging
import warnings
from collections.abc import Callable, Iterator

import lightning
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset

from sepablate.bench import loops
from sepablate.bench.cases import Case
from sepablate.training import engine


class Lightning(loops.BareLoop):
    """Lightning without logger, checkpoint, progress bar and summary."""

    def train(self, after_step: Callable[[], None]) -> None:
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = lightning.Trainer(
            accelerator=torch.device(self.device).type,
            devices=1,
            max_steps=-1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Module(self, after_step), DataLoader(Batches(self.case), batch_size=None))


class Module(lightning.LightningModule):
    """The training step and the optimizer, as Lightning needs them from a user."""

    def __init__(self, bare: loops.BareLoop, after_step: Callable[[], None]) -> None:
        super().__init__()
        state = engine.start(bare.run, bare.device)
        self.network, self.after_step = state.model, after_step
        self.optimizer, self.average = state.optimizer, state.average

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images = batch[0].to(memory_format=torch.channels_last)
        return cross_entropy(self.network(images), batch[1])

    def on_train_batch_end(self, outputs: object, batch: object, index: int) -> None:
        self.average.update(index)
        self.after_step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer


class Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """The suite's batches, without end."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return loops.endless_batches(self.case)
