"""Read the weights of keras.applications' networks, in HDF5 files of layers by Keras' names.

Those are the files that Keras downloads, and those of `model.save("name.h5")`. `save_weights` of
Keras 3 writes other names. The networks of Keras have TensorFlow's borders.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sepablate.errors import UserError
from sepablate.models import build
from sepablate.models.mobilenet_v1 import LAYERS

ENDINGS = (".h5", ".hdf5")
OPTIONS: dict[str, dict[str, Any]] = {
    "xception": {"norm_epsilon": 1e-3},
    "inception_v3": {"norm_epsilon": 1e-3},
    "mobilenet_v1": {"norm_epsilon": 1e-3, "activation": "relu6"},
}
LARGEST = 1 << 26  # numbers of a tensor; a hostile file may claim any

Pair = tuple[str, str]  # our module, Keras' layer
Layers = Mapping[str, Sequence[NDArray[Any]]]  # a layer's arrays, in Keras' order


def read(path: Path) -> Layers:
    """Return the arrays of the layers that have some; UserError if h5py is not installed.

    Of a file that is none of Keras', h5py raises nearly anything.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: Keras' weights need h5py: pip install h5py") from None
    with h5py.File(path) as file:
        root = file.get("model_weights", file)
        return {
            _text(name): [_array(root[name][each]) for each in root[name].attrs["weight_names"]]
            for name in root.attrs["layer_names"]
            if len(root[name].attrs["weight_names"])
        }


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _array(dataset: Any) -> NDArray[Any]:
    if dataset.size > LARGEST:
        raise ValueError(f"{dataset.size} numbers")
    return np.asarray(dataset[()])


def from_keras(name: str, layers: Layers) -> dict[str, Tensor]:
    """Return the state dict of our network of that name with the arrays of Keras' layers.

    Raises UserError for layers that are not exactly that network's, ValueError or IndexError for
    arrays that are none of them.
    """
    with torch.device("meta"):
        ours = build(name)
    pairs = pairs_of(name, ours, layers)
    if wrong := sorted({layer for _, layer in pairs} ^ set(layers)):
        raise UserError(f"unknown or missing layers {wrong[:5]}; expected {len(pairs)}")
    state: dict[str, Tensor] = {}
    for module, layer in pairs:
        tensors = _tensors(ours.get_submodule(module), layers[layer])
        state |= {f"{module}.{key}": torch.from_numpy(value.copy()) for key, value in tensors}
    return state


def pairs_of(name: str, ours: nn.Module, layers: Iterable[str]) -> list[Pair]:
    """Return each module of our network with the layer of Keras that computes the same."""
    return [*_PAIRS[name](ours, [*layers])]


def _tensors(module: nn.Module, arrays: Sequence[NDArray[Any]]) -> Iterator[tuple[str, Any]]:
    """Yield names and values of a module's tensors, in PyTorch's layout."""
    if isinstance(module, nn.BatchNorm2d):
        weight = [np.ones_like(arrays[0])] if len(arrays) == 3 else []  # scale=False
        names = ("weight", "bias", "running_mean", "running_var")
        yield from zip(names, [*weight, *arrays], strict=True)
        yield "num_batches_tracked", np.array(0)
    elif isinstance(module, nn.Linear):
        kernel, bias = arrays
        yield from (("weight", kernel.reshape(-1, kernel.shape[-1]).T), ("bias", bias))
    elif isinstance(module, nn.Conv2d):
        (kernel,) = arrays
        depthwise = module.groups > 1
        yield "weight", kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    else:
        depthwise_kernel, pointwise_kernel = arrays
        yield "depthwise.weight", depthwise_kernel.transpose(2, 3, 0, 1)
        yield "pointwise.weight", pointwise_kernel.transpose(3, 2, 0, 1)


def _xception(ours: nn.Module, layers: Sequence[str]) -> Iterator[Pair]:
    blocks = [f"entry.{i}" for i in range(3)] + [f"middle.{i}" for i in range(8)] + ["exit.block"]
    names = {f"stem.{i}.conv": f"block1_conv{i + 1}" for i in range(2)}
    for number, block in enumerate(blocks, start=2):
        names |= {f"{block}.body.separable{i}": f"block{number}_sepconv{i}" for i in (1, 2, 3)}
    names |= {f"exit.separable{i}": f"block14_sepconv{i}" for i in (1, 2)}
    modules = dict(ours.named_modules())
    for mine, name in names.items():
        if mine in modules:
            yield mine, name
            yield f"{mine.removesuffix('.conv')}.norm", f"{name}_bn"
    shortcuts = [name for name in modules if name.endswith(".shortcut")]
    for kind, part in (("conv2d", "conv"), ("batch_normalization", "norm")):
        for shortcut, name in zip(shortcuts, _automatic(layers, kind), strict=True):
            yield f"{shortcut}.{part}", name
    yield "classifier.dense", "predictions"


def _inception_v3(ours: nn.Module, layers: Sequence[str]) -> Iterator[Pair]:
    """Yield pairs of layers that both networks make in the same order."""
    for kind, name in ((nn.Conv2d, "conv2d"), (nn.BatchNorm2d, "batch_normalization")):
        mine = [name for name, module in ours.named_modules() if isinstance(module, kind)]
        yield from zip(mine, _automatic(layers, name), strict=True)
    yield "classifier.dense", "predictions"


def _mobilenet_v1(_: nn.Module, __: Sequence[str]) -> Iterator[Pair]:
    yield from (("stem.conv", "conv1"), ("stem.norm", "conv1_bn"))
    for number in range(1, len(LAYERS) + 1):
        for part, name in (("depthwise", "dw"), ("pointwise", "pw")):
            mine = f"body.layer{number}.{part}"
            yield f"{mine}.conv", f"conv_{name}_{number}"
            yield f"{mine}.norm", f"conv_{name}_{number}_bn"
    yield "classifier.dense", "conv_preds"


def _automatic(layers: Iterable[str], kind: str) -> list[str]:
    """Return the layers that Keras named itself, in the order in which they were made."""
    found = [layer for layer in layers if re.fullmatch(rf"{kind}(_\d+)?", layer)]
    return sorted(found, key=lambda name: int(name.removeprefix(kind).lstrip("_") or 0))


_PAIRS = {"xception": _xception, "inception_v3": _inception_v3, "mobilenet_v1": _mobilenet_v1}
