"""Compare a network with Keras' own, with equal weights, in fp64; prints JSON.

Run in a process of its own, for fp64 is a setting of a whole process:
python -m helpers.keras_networks xception 224
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ["JAX_ENABLE_X64"] = "1"
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import torch
from torch import Tensor, nn

from helpers.networks import generator, seeded
from sepablate.models.layers import BORDERS
from sepablate.models.mobilenet_v1 import LAYERS

Pair = tuple[str, str]  # our module, Keras' layer
OPTIONS: dict[str, dict[str, Any]] = {"mobilenet_v1": {"activation": "relu6"}}


def xception(ours: nn.Module, theirs: Any) -> Iterator[Pair]:
    blocks = [f"entry.{i}" for i in range(3)] + [f"middle.{i}" for i in range(8)] + ["exit.block"]
    names = {f"stem.{i}.conv": f"block1_conv{i + 1}" for i in range(2)}
    for number, block in enumerate(blocks, start=2):
        names |= {f"{block}.body.separable{i}": f"block{number}_sepconv{i}" for i in (1, 2, 3)}
    names |= {f"exit.separable{i}": f"block14_sepconv{i}" for i in (1, 2)}
    modules = dict(ours.named_modules())
    for mine, name in names.items():
        if mine in modules:
            norm = f"{mine.removesuffix('.conv')}.norm"
            yield from ((mine, name), (norm, f"{name}_bn"))
    shortcuts = [name for name in modules if name.endswith(".shortcut")]
    for kind, part in (("conv2d", "conv"), ("batch_normalization", "norm")):
        for shortcut, name in zip(shortcuts, automatic(theirs, kind), strict=True):
            yield f"{shortcut}.{part}", name
    yield "classifier.dense", "predictions"


def inception_v3(ours: nn.Module, theirs: Any) -> Iterator[Pair]:
    """Both make their layers in the same order; Keras' batch norms have no weight."""
    for kind, name in ((nn.Conv2d, "conv2d"), (nn.BatchNorm2d, "batch_normalization")):
        mine = [name for name, module in ours.named_modules() if isinstance(module, kind)]
        yield from zip(mine, automatic(theirs, name), strict=True)
    yield "classifier.dense", "predictions"


def mobilenet_v1(ours: nn.Module, theirs: Any) -> Iterator[Pair]:
    yield from (("stem.conv", "conv1"), ("stem.norm", "conv1_bn"))
    for number in range(1, len(LAYERS) + 1):
        for part, name in (("depthwise", "dw"), ("pointwise", "pw")):
            mine = f"body.layer{number}.{part}"
            yield f"{mine}.conv", f"conv_{name}_{number}"
            yield f"{mine}.norm", f"conv_{name}_{number}_bn"
    yield "classifier.dense", "conv_preds"


def automatic(model: Any, kind: str) -> list[str]:
    """The layers that Keras named itself, in the order in which they were made."""
    found = {layer.name for layer in model.layers if re.fullmatch(rf"{kind}(_\d+)?", layer.name)}
    return sorted(found, key=lambda name: int(name.removeprefix(kind).lstrip("_") or 0))


def weights(module: nn.Module, layer: Any) -> list[Any]:
    """A module's tensors in the order and layout of a Keras layer."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    if isinstance(module, nn.BatchNorm2d):
        names = ("weight", "bias", "running_mean", "running_var")[0 if layer.scale else 1 :]
        return [state[name] for name in names]
    if isinstance(module, nn.Linear):
        return [state["weight"].T.reshape(layer.kernel.shape), state["bias"]]
    if isinstance(layer, keras.layers.SeparableConv2D):
        return [
            state["depthwise.weight"].transpose(2, 3, 0, 1),
            state["pointwise.weight"].transpose(2, 3, 1, 0),
        ]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return [state["weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]


NETWORKS: dict[str, tuple[Callable[[nn.Module, Any], Iterator[Pair]], str]] = {
    "xception": (xception, "Xception"),
    "inception_v3": (inception_v3, "InceptionV3"),
    "mobilenet_v1": (mobilenet_v1, "MobileNet"),
}


def main(name: str, size: int) -> None:
    """Print the rms difference of our logits from Keras', relative to the latter, per borders."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    pairs, theirs_name = NETWORKS[name]
    theirs = getattr(keras.applications, theirs_name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    images = torch.randn(2, 3, size, size, generator=generator(1), dtype=torch.float64)
    outputs: dict[str, Tensor] = {}
    for borders in BORDERS:
        ours = seeded(name, **OPTIONS.get(name, {}), borders=borders).double()
        if name == "inception_v3":
            for module in ours.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.ones_(module.weight)
        with torch.no_grad():
            outputs[borders] = ours(images)
    mapped = list(pairs(ours, theirs))
    assert len({layer for _, layer in mapped}) == sum(bool(each.weights) for each in theirs.layers)
    for mine, layer_name in mapped:
        layer = theirs.get_layer(layer_name)
        layer.set_weights(weights(ours.get_submodule(mine), layer))
    expected = torch.tensor(theirs.predict(images.permute(0, 2, 3, 1).numpy(), verbose=0))
    assert expected.dtype == torch.float64
    scale = expected.square().mean().sqrt()
    differences = {
        borders: float((found - expected).square().mean().sqrt() / scale)
        for borders, found in outputs.items()
    }
    print(json.dumps(differences))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
