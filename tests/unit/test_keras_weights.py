"""Keras' arrays become our state dict, name by name; what is none of Keras' is one line."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import class_folders
from helpers.networks import seeded
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from sepablate.errors import UserError
from sepablate.models.timm_weights import to_timm
from sepablate.pretrained import evaluate, keras_weights

NUMBERED = {"xception": 4, "inception_v3": 94, "mobilenet_v1": 0}  # layers that Keras named itself


def kernel(weight: torch.Tensor, depthwise: bool) -> NDArray[np.float32]:
    """Height, width, inputs, outputs; of a depthwise layer, channels and one."""
    return weight.numpy().transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))


def arrays(module: nn.Module, scaled: bool) -> list[NDArray[np.float32]]:
    state = module.state_dict()
    if isinstance(module, nn.BatchNorm2d):
        names = ["weight", "bias", "running_mean", "running_var"][0 if scaled else 1 :]
        return [state[name].numpy() for name in names]
    if isinstance(module, nn.Linear):
        return [state["weight"].numpy().T, state["bias"].numpy()]
    if isinstance(module, nn.Conv2d):
        return [kernel(state["weight"], module.groups > 1)]
    return [kernel(state[f"{p}.weight"], p == "depthwise") for p in ("depthwise", "pointwise")]


def keras_layers(name: str, ours: nn.Module) -> dict[str, list[NDArray[np.float32]]]:
    count = range(1, NUMBERED[name] + 1)
    named = [f"{kind}_{i}" for kind in ("conv2d", "batch_normalization") for i in count]
    pairs = keras_weights.pairs_of(name, ours, named)
    scaled = name != "inception_v3"
    return {layer: arrays(ours.get_submodule(mine), scaled) for mine, layer in pairs}


@pytest.mark.parametrize("name", NUMBERED)
def test_every_tensor_finds_its_place(name: str) -> None:
    ours = seeded(name)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d) and name == "inception_v3":
            nn.init.ones_(module.weight)
    layers = keras_layers(name, ours)
    found = keras_weights.from_keras(name, layers)
    assert found.keys() == ours.state_dict().keys()
    for key, value in ours.state_dict().items():
        assert torch.equal(found[key], value), key
    del layers[next(reversed(layers))]
    with pytest.raises(
        UserError, match=r"unknown or missing layers \['(predictions|conv_preds)'\]"
    ):
        keras_weights.from_keras(name, layers)


def test_without_h5py_a_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match=r"x\.h5: Keras' weights need h5py: pip install h5py"):
        evaluate.load("xception", tmp_path / "x.h5")


def test_an_option_gives_the_network_the_borders_of_its_weights(
    tmp_path: Path, data_folder: Path
) -> None:
    state = to_timm("mobilenet_v1", seeded("mobilenet_v1", classes=3).state_dict())
    path = tmp_path / "m.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one, other = (
            evaluate.load("mobilenet_v1", path, borders)(image)
            for borders in ("torch", "tensorflow")
        )
    assert (one - other).norm() > 0.01 * one.norm()
    data = class_folders(tmp_path / "data", data_folder, train=0, validation=3)
    for choice, words in {"auto": "torch", "tensorflow": "tensorflow"}.items():
        lines = evaluate.evaluate("mobilenet_v1", path, data, 3, "timm", borders=choice)
        assert lines[1].endswith(f"the borders of {words}")
    with pytest.raises(UserError, match="borders 'keras': choose auto, torch, tensorflow"):
        evaluate.evaluate("mobilenet_v1", path, data, 3, "timm", borders="keras")
