"""Compare a network with Keras' own, with equal weights, in fp64; prints JSON.

Run in a process of its own, for fp64 is a setting of a whole process:
python -m helpers.keras_networks xception 224
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["JAX_ENABLE_X64"] = "1"
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import torch
from torch import Tensor, nn

from helpers.networks import generator, seeded
from sepablate.models.layers import BORDERS
from sepablate.pretrained import evaluate, keras_weights

OPTIONS: dict[str, dict[str, Any]] = {"mobilenet_v1": {"activation": "relu6"}}


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


NETWORKS = {"xception": "Xception", "inception_v3": "InceptionV3", "mobilenet_v1": "MobileNet"}


def main(name: str, size: int) -> None:
    """Print the rms difference of our logits from Keras', relative to the latter, per borders."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    theirs = getattr(keras.applications, NETWORKS[name])(
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
    mapped = keras_weights.pairs_of(name, ours, [layer.name for layer in theirs.layers])
    assert len({layer for _, layer in mapped}) == sum(bool(each.weights) for each in theirs.layers)
    for mine, layer_name in mapped:
        layer = theirs.get_layer(layer_name)
        layer.set_weights(weights(ours.get_submodule(mine), layer))
    with tempfile.TemporaryDirectory() as folder:
        theirs.save(f"{folder}/weights.h5")
        loaded = evaluate.load(name, Path(folder, "weights.h5"), "tensorflow").double()
    with torch.no_grad():
        outputs["loaded"] = loaded(images)
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
