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
from keras import layers
from torch import Tensor, fx, nn

from sepablate import models
from sepablate.bench import published
from sepablate.bench.cases import Case

LOWEST = -1e30  # what a max-pool must never choose


class Pad(layers.Layer):
    """Lowest numbers around the images, as a torch max-pool has them."""

    def call(self, x: Any) -> Any:
        return keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=LOWEST)


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
            self.network = published.network(run)
        shape = (run.image_size, run.image_size, run.options["in_channels"])
        self.model, self.filled = converted(self.network, shape)

    def outputs(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        if self.case.name == "tiny":
            weights = {
                key.replace("body.", "0.").replace("classifier.", "1."): value
                for key, value in weights.items()
            }
        self.network.load_state_dict(weights)
        for layer, module in self.filled:
            layer.set_weights(_weights(module))
        found = self.model.predict(images.permute(0, 2, 3, 1).numpy(), verbose=0)
        return torch.from_numpy(np.array(found))

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

        def waited(batch: int, logs: dict[str, Any]) -> None:
            float(logs["loss"])
            after_step()

        told = keras.callbacks.LambdaCallback(on_train_batch_end=waited)
        settings: dict[str, Any] = {"epochs": 10**6, "verbose": 0, "callbacks": [told]}
        if self.case.noise:
            self.model.fit(self._same(), steps_per_epoch=10**9, **settings)
        split = self.case.split()
        feed = self.case.feed()
        first, _ = feed.at(0)
        images = split.images.unsqueeze(-1).numpy().astype(np.float32) / 127.5 - 1
        if images.shape[1] != first.shape[-1]:
            images = np.resize(images, (len(images), *first.shape[2:], 1))
        images = images.repeat(first.shape[1], axis=-1)
        size = self.run.scale.batch_size
        self.model.fit(images, split.labels.numpy(), batch_size=size, **settings)

    def _same(self) -> Iterator[tuple[Any, Any]]:
        images, labels = self.case.feed().at(0)
        batch = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy()
        while True:
            yield batch


def converted(
    network: nn.Module, shape: tuple[int, ...]
) -> tuple[Any, list[tuple[Any, nn.Module]]]:
    """The Keras model of a torch network, and its layers with the modules whose weights they hold.

    shape: (H, W, C) of an image. Raises NotImplementedError for a layer that it does not know.
    """
    graph = Tracer().trace(network)
    filled: list[tuple[Any, nn.Module]] = []
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        inputs = [values.get(each) for each in node.all_input_nodes]
        if node.op == "placeholder":
            values[node] = start = layers.Input(shape)
        elif node.op == "call_module":
            module = network.get_submodule(str(node.target))
            values[node] = _layer(module, inputs[0], filled)
        elif node.op == "output":
            return keras.Model(start, inputs[0]), filled
        else:
            values[node] = _function(node, inputs)
    raise AssertionError("a graph ends in its output")


class Tracer(fx.Tracer):
    """Looks into every module but those that are one Keras layer, or two."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, nn.BatchNorm2d) or type(m).__name__ == "SelectAdaptivePool2d"
        return known or super().is_leaf_module(m, module_qualified_name)


def _layer(module: nn.Module, x: Any, filled: list[tuple[Any, nn.Module]]) -> Any:
    if isinstance(module, nn.Conv2d):
        return _convolution(module, x, filled)
    if isinstance(module, nn.BatchNorm2d):
        layer = layers.BatchNormalization(epsilon=module.eps, momentum=1 - (module.momentum or 0.0))
        filled.append((layer, module))
        x = layer(x)
        return layers.ReLU()(x) if isinstance(getattr(module, "act", None), nn.ReLU) else x
    if isinstance(module, nn.Linear):
        layer = layers.Dense(module.out_features)
        filled.append((layer, module))
        return layer(x)
    if isinstance(module, nn.ReLU):
        return layers.ReLU()(x)
    if isinstance(module, nn.MaxPool2d):
        return _max_pool(x, module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.Dropout):
        return layers.Dropout(module.p)(x)
    if type(module).__name__ == "SelectAdaptivePool2d":
        return layers.GlobalAveragePooling2D()(x)
    if isinstance(module, nn.Identity):
        return x
    raise NotImplementedError(type(module).__name__)


def _convolution(module: nn.Conv2d, x: Any, filled: list[tuple[Any, nn.Module]]) -> Any:
    padded = any(module.padding)
    if padded and module.stride[0] > 1:
        x, padded = layers.ZeroPadding2D(module.padding)(x), False
    kind: Any = layers.DepthwiseConv2D if module.groups > 1 else layers.Conv2D
    outputs = () if module.groups > 1 else (module.out_channels,)
    layer = kind(
        *outputs,
        kernel_size=module.kernel_size,
        strides=module.stride,
        padding="same" if padded else "valid",
        use_bias=module.bias is not None,
    )
    filled.append((layer, module))
    return layer(x)


def _max_pool(x: Any, size: Any, stride: Any, padding: Any) -> Any:
    if padding:
        x = Pad()(x)
    return layers.MaxPooling2D(size, stride)(x)


def _function(node: fx.Node, inputs: list[Any]) -> Any:
    name = getattr(node.target, "__name__", str(node.target))
    if name in ("add", "iadd"):
        return layers.Add()(inputs)
    if name == "cat":
        return layers.Concatenate()(inputs)
    if name == "max_pool2d":
        given = dict(zip(("size", "stride", "padding"), node.args[1:], strict=False))
        given |= {
            {"kernel_size": "size"}.get(key, key): value for key, value in node.kwargs.items()
        }
        stride = given.get("stride") or given["size"]
        return _max_pool(inputs[0], given["size"], stride, given.get("padding", 0))
    if name in ("avg_pool2d", "_avg_pool2d"):
        return layers.AveragePooling2D(3, 1)(layers.ZeroPadding2D(1)(inputs[0]))
    if name == "dropout":
        return layers.Dropout(node.kwargs.get("p", node.args[-1]))(inputs[0])
    if name == "mean":
        return layers.GlobalAveragePooling2D()(inputs[0])
    raise NotImplementedError(name)


def _weights(module: nn.Module) -> list[Any]:
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    if isinstance(module, nn.BatchNorm2d):
        return [state[name] for name in ("weight", "bias", "running_mean", "running_var")]
    if isinstance(module, nn.Linear):
        return [state["weight"].T, state["bias"]]
    assert isinstance(module, nn.Conv2d)
    order = (2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0)
    return [state["weight"].transpose(order), *([state["bias"]] if "bias" in state else [])]
