"""Load timm's or Keras' weights into our networks; measure them on ImageNet's validation images.

Crop, interpolation, mean and standard deviation come from timm's config of the weights. Mean and
standard deviation are 0.5 for all three networks, that is x / 127.5 - 1; also for the
`inception_v3` that torchvision trained, whose code scales its input back to that. Of timm's weights
only `inception_v3.gluon_in1k` needs ImageNet's mean and standard deviation.
"""

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    create_transform,
)
from timm.models import PretrainedCfg, load_state_dict
from torch import Tensor, nn

from sepablate.data import imagenet, refuse_large_images
from sepablate.data.image_files import ImageFiles, check_classes
from sepablate.errors import UserError
from sepablate.models import build
from sepablate.models.layers import BORDERS
from sepablate.models.timm_weights import from_timm
from sepablate.paper import mobilenets, xception
from sepablate.pretrained import keras_weights
from sepablate.training.file_batches import plain_batches

TOP = (1, 5)
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Pretrained:
    """A network with published weights.

    Args:
        timm: its name in timm.
        published: a paper's top-1 and top-5; None where the paper gives no number.
        source: the paper.
        options: of our constructor, for those weights.
    """

    timm: str
    published: tuple[float | None, float | None]
    source: str
    options: Mapping[str, Any]


NETWORKS = {
    "xception": Pretrained(
        "legacy_xception",
        xception.TABLE_1["Xception"],
        f"{xception.SOURCE}, table 1",
        {"norm_epsilon": 1e-5},
    ),
    "inception_v3": Pretrained(
        "inception_v3",
        xception.TABLE_1["Inception V3"],
        f"{xception.SOURCE}, table 1",
        {"norm_epsilon": 1e-3},
    ),
    "mobilenet_v1": Pretrained(
        "mobilenetv1_100",
        (mobilenets.TABLE_4["MobileNet"].accuracy / 100, None),
        f"{mobilenets.SOURCE}, table 4",
        {"norm_epsilon": 1e-5, "activation": "relu6"},
    ),
}
MEAN_STD = {
    "half": (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
}


def evaluate(
    name: str,
    weights: Path | None,
    data: Path,
    batch: int,
    mean_std: str,
    device: str = "cpu",
    borders: str = "auto",
) -> list[str]:
    """Return the lines of a report: accuracy with its interval, and the paper's numbers.

    Args:
        name: the network, of NETWORKS.
        weights: a file of timm's or Keras' weights; None raises the UserError that says where to
            get one.
        data: a folder with the folder validation, as that of ImageNet.
        batch: images at a time.
        mean_std: "half", "imagenet", or "timm" for those of timm's config.
        device: that computes.
        borders: of maps, "torch" or "tensorflow"; "auto": those that the file's network has.

    Raises UserError for an unknown name, or if weights or images are missing or do not fit.
    """
    if name not in NETWORKS:
        raise UserError(f"model {name!r}: choose {', '.join(NETWORKS)}")
    if mean_std not in ("timm", *MEAN_STD):
        raise UserError(f"mean-std {mean_std!r}: choose timm, {', '.join(MEAN_STD)}")
    config = _timm_config(name)
    mean, std = MEAN_STD.get(mean_std, (config.mean, config.std))
    if borders not in ("auto", *BORDERS):
        raise UserError(f"borders {borders!r}: choose auto, {', '.join(BORDERS)}")
    if borders == "auto":
        borders = "tensorflow" if _is_keras(weights) else "torch"
    model = load(name, weights, borders)
    split = _images(data / "validation", model)
    size = config.input_size[-1]
    transform = create_transform(
        size, crop_pct=config.crop_pct, interpolation=config.interpolation, mean=mean, std=std
    )
    correct = count_correct(model, split, transform, batch, size, device)
    shorter = math.floor(size / config.crop_pct)
    return [
        f"{name} with {weights}: {len(split)} images of {split.folder}",
        f"one crop of {size} x {size} after a {config.interpolation} resize to {shorter}; "
        f"mean {mean}, standard deviation {std}; the borders of {borders}",
        *(_line(top, correct[top], len(split), NETWORKS[name]) for top in TOP),
        "The intervals are 95 % (Wilson) over images. Xception's paper left out the blacklisted "
        "validation images; Inception V3's says that all 50,000 give about 0.002 less.",
    ]


def _images(folder: Path, model: nn.Module) -> ImageFiles:
    """Return a folder's images; UserError if the network has another number of classes."""
    split = imagenet.images(folder)
    refuse_large_images({"validation": split})
    check_classes({"validation": split}, model.get_submodule("classifier.dense").out_features)  # type: ignore[arg-type]
    return split


def _timm_config(name: str) -> PretrainedCfg:
    config = timm.get_pretrained_cfg(NETWORKS[name].timm)
    assert config is not None, "timm has the networks of NETWORKS"
    return config


def load(name: str, path: Path | None, borders: str = "torch") -> nn.Module:
    """Return our network with the weights of timm's or Keras' file, in evaluation mode.

    Raises UserError if there is no file, or if it holds anything but that network's weights.
    """
    if path is None or not path.is_file():
        config = _timm_config(name)
        url = config.url or f"https://huggingface.co/{config.hf_hub_id}"
        problem = "missing" if path is None else f"{path}: there is no such file"
        raise UserError(f"--weights: {problem}; download timm's weights, for example from {url}")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path}: a pointer of Git LFS, not the weights; run `git lfs pull`")
    content = _read(path)
    options = keras_weights.OPTIONS[name] if _is_keras(path) else NETWORKS[name].options
    theirs = f"Keras' {name}" if _is_keras(path) else NETWORKS[name].timm
    try:
        if _is_keras(path):
            ours = keras_weights.from_keras(name, content)
        else:
            # Files older than PyTorch 0.4.1 have no count of batches; evaluation does not need it.
            counts = {_counter(k): torch.tensor(0) for k in content if k.endswith("running_var")}
            ours = from_timm(name, counts | content)
        classes = len(ours["classifier.dense.bias"])
        model = build(name, classes=classes, borders=borders, **options)
        model.load_state_dict(ours)
    except (ValueError, RuntimeError, IndexError) as error:  # other names, other shapes
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: not the weights of {theirs}: {reason}") from None
    return model.eval()


def _is_keras(path: Path | None) -> bool:
    return path is not None and path.suffix in keras_weights.ENDINGS


def _read(path: Path) -> Any:
    """Return the arrays in a file of Keras' weights, or the state dict in another one."""
    try:
        if _is_keras(path):
            return keras_weights.read(path)
        with warnings.catch_warnings(action="ignore"):  # of unusual files, for PyTorch's developers
            return load_state_dict(str(path), device="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # for a file that is no checkpoint the readers raise nearly anything
        kinds = ".safetensors, .pth or .h5"
        raise UserError(
            f"{path}: no file of only weights, as {kinds} ({type(error).__name__})"
        ) from None


def _counter(key: str) -> str:
    return key.removesuffix("running_var") + "num_batches_tracked"


@torch.inference_mode()
def count_correct(
    model: nn.Module,
    split: ImageFiles,
    transform: Any,
    batch: int,
    size: int,
    device: str = "cpu",
) -> dict[int, int]:
    """Count, for each k of TOP, the images whose label is among the k likeliest classes.

    Args:
        model: the network.
        split: the images.
        transform: turns an image into a tensor (3, size, size).
        batch: images at a time.
        size: pixels.
        device: that computes.
    """
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    correct = torch.zeros(max(TOP), dtype=torch.int64)
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    batches = plain_batches(split, transform, batch, workers, size)
    total = math.ceil(len(split) / batch)
    console = Console(stderr=True)
    for images, labels in track(
        batches, "evaluate", total, console=console, transient=True, disable=not console.is_terminal
    ):
        logits = model(images.to(device, memory_format=torch.channels_last)).cpu()
        correct += _correct_at_rank(logits, labels)
    sums = correct.cumsum(0)
    return {top: int(sums[top - 1]) for top in TOP}


def _correct_at_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the images whose label is the class of that rank: (5,)."""
    ranked = logits.topk(min(max(TOP), logits.shape[1])).indices  # (N, 5)
    counts = (ranked == labels[:, None]).sum(0)
    return torch.nn.functional.pad(counts, (0, max(TOP) - len(counts)))


def _line(top: int, correct: int, count: int, network: Pretrained) -> str:
    interval = binomtest(correct, count).proportion_ci(method="wilson")
    published = network.published[TOP.index(top)]
    paper = "not given" if published is None else f"{published:.3f}"
    return (
        f"top-{top}  {correct / count:.4f}  [{interval.low:.4f}, {interval.high:.4f}]  "
        f"the paper: {paper} ({network.source})"
    )
