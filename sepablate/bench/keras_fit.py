"""Keras 3: any of the networks as a functional model, trained by `fit`.

The model is built from the graph of the torch network, so that weights and outputs can be compared.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp())  # writes nothing into the user's folder

import keras
import numpy as np
import torch
from torch import Tensor, nn

from sepablate import models
from sepablate.bench import timm_networks
from sepablate.bench.cases import Case
from sepablate.bench.keras_model import keras_weights, to_keras


class Keras:
    """The case's network in Keras, images (N, H, W, C)."""

    def __init__(self, case: Case) -> None:
        self.case, self.run = case, case.run()
        keras.utils.set_random_seed(0)
        run = self.run
        if case.name == "tiny":
            ours: Any = models.build(run.model, **run.options)
            self.network: nn.Module = nn.Sequential(ours.body, ours.classifier)
        else:
            self.network = timm_networks.build(run)
        shape = (run.image_size, run.image_size, run.options["in_channels"])
        self.model, self.sources = to_keras(self.network, shape)

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        if self.case.name == "tiny":
            weights = {
                key.replace("body.", "0.").replace("classifier.", "1."): value
                for key, value in weights.items()
            }
        self.network.load_state_dict(weights)
        for layer, module in self.sources:
            layer.set_weights(keras_weights(module))
        logits = self.model.predict(images.permute(0, 2, 3, 1).numpy(), verbose=0)
        return torch.from_numpy(np.array(logits))

    def train(self, after_step: Callable[[], None]) -> None:
        recipe = self.run.recipe
        self.model.compile(
            keras.optimizers.SGD(
                recipe.learning_rate,
                momentum=recipe.momentum,
                weight_decay=self.run.weight_decay or None,
                use_ema=True,
                ema_momentum=0.95,
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

        def on_train_batch_end(batch: int, logs: dict[str, Any]) -> None:
            float(logs["loss"])  # waits for the step
            after_step()

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)
        settings: dict[str, Any] = {"epochs": 10**6, "verbose": 0, "callbacks": [callback]}
        if self.case.noise:
            self.model.fit(self._same_batch(), steps_per_epoch=10**9, **settings)
        split = self.case.split()
        first, _ = self.case.batches().batch(0)
        images = split.images.unsqueeze(-1).numpy().astype(np.float32) / 127.5 - 1
        if images.shape[1] != first.shape[-1]:
            images = np.resize(images, (len(images), *first.shape[2:], 1))
        images = images.repeat(first.shape[1], axis=-1)
        size = self.run.scale.batch_size
        self.model.fit(images, split.labels.numpy(), batch_size=size, **settings)

    def _same_batch(self) -> Iterator[tuple[Any, Any]]:
        images, labels = self.case.batches().batch(0)
        batch = images.permute(0, 2, 3, 1).contiguous().cpu().numpy(), labels.cpu().numpy()
        while True:
            yield batch
