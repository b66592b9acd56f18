"""Convert a torch network to a functional Keras model, by its torch.fx graph."""

from typing import Any

import keras
from keras import layers
from torch import fx, nn

LOWEST = -1e30  # lower than any activation, so that a max-pool never chooses it


class Pad(layers.Layer):
    """Pads images by one pixel of LOWEST, as torch's max-pool does."""

    def call(self, x: Any) -> Any:
        return keras.ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=LOWEST)


def to_keras(network: nn.Module, shape: tuple[int, ...]) -> tuple[Any, list[tuple[Any, nn.Module]]]:
    """Return the Keras model, and its layers with the torch modules that have their weights.

    Args:
        network: the torch network.
        shape: (H, W, C) of an image.

    Raises NotImplementedError for a layer that has no conversion.
    """
    graph = Tracer().trace(network)
    sources: list[tuple[Any, nn.Module]] = []
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        inputs = [values.get(source) for source in node.all_input_nodes]
        if node.op == "placeholder":
            values[node] = start = layers.Input(shape)
        elif node.op == "call_module":
            module = network.get_submodule(str(node.target))
            values[node] = _convert_layer(module, inputs[0], sources)
        elif node.op == "output":
            return keras.Model(start, inputs[0]), sources
        else:
            values[node] = _convert_function(node, inputs)
    raise AssertionError("a graph has an output")


class Tracer(fx.Tracer):
    """Traces every module but those that convert to one or two Keras layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, nn.BatchNorm2d) or type(m).__name__ == "SelectAdaptivePool2d"
        return known or super().is_leaf_module(m, module_qualified_name)


def _convert_layer(module: nn.Module, x: Any, sources: list[tuple[Any, nn.Module]]) -> Any:
    if isinstance(module, nn.Conv2d):
        return _convert_convolution(module, x, sources)
    if isinstance(module, nn.BatchNorm2d):
        layer = layers.BatchNormalization(epsilon=module.eps, momentum=1 - (module.momentum or 0.0))
        sources.append((layer, module))
        x = layer(x)
        return layers.ReLU()(x) if isinstance(getattr(module, "act", None), nn.ReLU) else x
    if isinstance(module, nn.Linear):
        layer = layers.Dense(module.out_features)
        sources.append((layer, module))
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


def _convert_convolution(module: nn.Conv2d, x: Any, sources: list[tuple[Any, nn.Module]]) -> Any:
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
    sources.append((layer, module))
    return layer(x)


def _max_pool(x: Any, size: Any, stride: Any, padding: Any) -> Any:
    if padding:
        x = Pad()(x)
    return layers.MaxPooling2D(size, stride)(x)


def _convert_function(node: fx.Node, inputs: list[Any]) -> Any:
    name = getattr(node.target, "__name__", str(node.target))
    if name in ("add", "iadd"):
        return layers.Add()(inputs)
    if name == "cat":
        return layers.Concatenate()(inputs)
    if name == "max_pool2d":
        options = dict(zip(("kernel_size", "stride", "padding"), node.args[1:], strict=False))
        options |= node.kwargs
        size = options["kernel_size"]
        stride = options.get("stride") or size
        return _max_pool(inputs[0], size, stride, options.get("padding", 0))
    if name in ("avg_pool2d", "_avg_pool2d"):
        return layers.AveragePooling2D(3, 1)(layers.ZeroPadding2D(1)(inputs[0]))
    if name == "dropout":
        return layers.Dropout(node.kwargs.get("p", node.args[-1]))(inputs[0])
    if name == "mean":
        return layers.GlobalAveragePooling2D()(inputs[0])
    raise NotImplementedError(name)


def keras_weights(module: nn.Module) -> list[Any]:
    """Return a torch module's weights in the order and layout of its Keras layer."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    if isinstance(module, nn.BatchNorm2d):
        return [state[name] for name in ("weight", "bias", "running_mean", "running_var")]
    if isinstance(module, nn.Linear):
        return [state["weight"].T, state["bias"]]
    assert isinstance(module, nn.Conv2d)
    order = (2, 3, 0, 1) if module.groups > 1 else (2, 3, 1, 0)
    return [state["weight"].transpose(order), *([state["bias"]] if "bias" in state else [])]
