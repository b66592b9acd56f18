"""Convert weights to and from timm's networks: a renaming of the state dict's keys.

xception: timm's `legacy_xception` (whose BN has epsilon 1e-5), and the files that it came from, of
  Cadene's pretrained-models, with `last_linear` for `fc` and two-dimensional pointwise weights.
inception_v3: timm's and torchvision's `inception_v3`, which share their names.
mobilenet_v1: timm's `mobilenetv1_100` (whose BN has epsilon 1e-5, and whose activation is ReLU6).

At the networks' default options the tensors are the same and only their names differ, so a
conversion changes no value and copies none.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sepablate.errors import UserError
from sepablate.models import build
from sepablate.models.mobilenet_v1 import LAYERS


def from_timm(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of timm's network under our names, without the auxiliary tower.

    Raises UserError for an unknown network, or for names that are not exactly that network's.
    """
    names = {theirs: ours for ours, theirs in _names(name).items()}
    tensors = {
        key.replace("last_linear.", "fc."): _four_dimensional(key, value)
        for key, value in state.items()
        if not key.startswith("AuxLogits.")
    }
    return _renamed(tensors, names)


def to_timm(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `from_timm`. The result loads strictly into a network without an auxiliary tower."""
    return _renamed(state, _names(name))


def _four_dimensional(key: str, value: Tensor) -> Tensor:
    """Return a pointwise weight (outputs, inputs) as (outputs, inputs, 1, 1), others unchanged."""
    return value[..., None, None] if "pointwise" in key and value.ndim == 2 else value


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    if wrong := sorted(set(state) ^ set(names)):
        raise UserError(f"unknown or missing names {wrong[:5]}; expected {len(names)} names")
    return {names[key]: value for key, value in state.items()}


def _names(name: str) -> dict[str, str]:
    """Return timm's name for each of our parameters and statistics."""
    if name not in _THEIRS:
        raise UserError(f"no published weights for {name!r}; choose from {sorted(_THEIRS)}")
    with torch.device("meta"):
        ours = build(name).state_dict()
    return {key: _THEIRS[name](key) for key in ours}


def _xception_modules() -> dict[str, str]:
    """Return timm's name for each of our modules that holds tensors."""
    names = {"classifier.dense": "fc"}
    for index in (1, 2):
        names |= {f"stem.{index - 1}.conv": f"conv{index}", f"stem.{index - 1}.norm": f"bn{index}"}
        names |= _separable_names(f"exit.separable{index}", f"conv{index + 2}", f"bn{index + 2}")
    blocks = [f"entry.{i}" for i in range(3)] + [f"middle.{i}" for i in range(8)] + ["exit.block"]
    for number, block in enumerate(blocks, start=1):
        theirs = f"block{number}"
        names |= {f"{block}.shortcut.conv": f"{theirs}.skip"}
        names |= {f"{block}.shortcut.norm": f"{theirs}.skipbn"}
        for index in range(3):
            # timm counts the ReLUs too, and the first block has none at its head.
            position = 3 * index + (number > 1)
            names |= _separable_names(
                f"{block}.body.separable{index + 1}",
                f"{theirs}.rep.{position}",
                f"{theirs}.rep.{position + 1}",
            )
    return names


def _separable_names(ours: str, convolution: str, norm: str) -> dict[str, str]:
    return {
        f"{ours}.depthwise": f"{convolution}.conv1",
        f"{ours}.pointwise": f"{convolution}.pointwise",
        f"{ours}.norm": norm,
    }


def _inception_name(key: str) -> str:
    """Translate names such as mixed_7b.branch3x3.1.a.norm.bias to Mixed_7b.branch3x3_2a.bn.bias."""
    key = key.replace("branch_pool.1.", "branch_pool.")
    key = re.sub(
        r"\.(\d)\.(?:([ab])\.)?", lambda match: f"_{int(match[1]) + 1}{match[2] or ''}.", key
    )
    for ours, theirs in {
        "stem.conv_": "Conv2d_",
        "mixed_": "Mixed_",
        ".norm.": ".bn.",
        "classifier.dense.": "fc.",
    }.items():
        key = key.replace(ours, theirs)
    return key


def _mobilenet_modules() -> dict[str, str]:
    """Return timm's name for each of our modules that holds tensors."""
    names = {"stem.conv": "conv_stem", "stem.norm": "bn1", "classifier.dense": "classifier"}
    stage, block = 0, -1
    for number, (_, stride) in enumerate(LAYERS, start=1):
        stage, block = (stage + 1, 0) if stride == 2 else (stage, block + 1)
        theirs = f"blocks.{stage}.{block}"
        for index, (step, conv) in enumerate((("depthwise", "dw"), ("pointwise", "pw")), start=1):
            ours = f"body.layer{number}.{step}"
            names |= {
                f"{ours}.conv": f"{theirs}.conv_{conv}",
                f"{ours}.norm": f"{theirs}.bn{index}",
            }
    return names


def _by_module(modules: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that translates a tensor's name by the name of its module."""

    def theirs(key: str) -> str:
        module, _, tensor = key.rpartition(".")
        return f"{modules[module]}.{tensor}"

    return theirs


_THEIRS = {
    "inception_v3": _inception_name,
    "mobilenet_v1": _by_module(_mobilenet_modules()),
    "xception": _by_module(_xception_modules()),
}
