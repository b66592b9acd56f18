"""Several networks of one structure as one network, with the networks in the channels.

Activations are (N, S * C, H, W) for S networks. Depthwise convolutions, batch norm, activations,
pooling and additions act on each channel, so that they are as they were; a 1x1 convolution is one
batched matrix product; another convolution has S times its groups. The idea is that of HFTA (Wang
et al., MLSys 2021).

In memory a network has a multiple of 8 channels, whose rows are aligned to 16 bytes. What is added
is zero and stays zero: weights, gradients and activations.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from sepablate.kernels.fuse import FusedBlock, FusedConv, SeededDropout
from sepablate.kernels.triton import stacked
from sepablate.models.layers import Classifier, Mixed, Segmented
from sepablate.models.xception import Shortcut

MULTIPLE = 8  # channels of bf16 in 16 bytes


class NotStackable(Exception):  # noqa: N818 (says why)
    """These networks or runs cannot be trained as one; the message says why."""


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """Return one network that computes all `networks` on images (N, S * channels, H, W).

    Its outputs are (N, S * classes). Its weights are zero until `link` is called.

    Raises NotStackable for a layer that mixes channels in another way than convolutions do.
    """
    wide, count = copy.deepcopy(networks[0]), len(networks)
    layers = list(wide.modules())
    if any(isinstance(layer, Segmented) for layer in layers):
        raise NotStackable("segments of channels")
    if any(isinstance(layer, Mixed) for layer in layers):
        raise NotStackable("branches")
    # Padding would lie between the concatenated branches, and between dense layers.
    dense = sum(isinstance(layer, nn.Linear) for layer in layers)
    mixed = any(isinstance(layer, Mixed) for layer in layers)
    multiple = 1 if mixed or dense > 1 else MULTIPLE
    of_images = next(layer for layer in layers if isinstance(layer, nn.Conv2d))
    for layer in layers:
        if isinstance(layer, Classifier) and layer.dropout is not None:
            cast(Any, layer.dropout).channels = layer.dense.in_features
        _widen(layer, count, multiple, layer is of_images)
    return wide


@torch.no_grad()
def link(wide: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Copy the weights of `networks` to their places in the stack, and make them views of it.

    From then on each network follows the stack and can be changed, saved and evaluated as before.
    """
    for index, network in enumerate(networks):
        for (owner, key, place), (_, _, tensor) in zip(
            _float_tensors(wide), _float_tensors(network), strict=True
        ):
            view = part(place, index, len(networks), tensor.shape)
            view.copy_(tensor)
            if isinstance(tensor, nn.Parameter):
                tensor.data = view
            else:
                network.get_submodule(owner)._buffers[key] = view


def part(joined: Tensor, index: int, count: int, shape: torch.Size) -> Tensor:
    """Return the view of one network's tensor of this shape in the stack's."""
    own: Tensor = joined.unflatten(0, (count, -1))[index]
    for dimension, size in enumerate(shape):
        own = own.narrow(dimension, 0, size)
    return own


def _float_tensors(network: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield weights and statistics: the name of the layer, of the tensor, and the tensor."""
    for owner, module in network.named_modules():
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and tensor.is_floating_point():
                yield owner, key, tensor


def _widen(layer: nn.Module, count: int, multiple: int, of_images: bool) -> None:
    """Give a layer the place of `count` networks' weights, all zero, and make it compute them."""
    inputs = outputs = 1
    if isinstance(layer, nn.Conv2d):
        inputs = 1 if of_images or layer.groups > 1 else multiple
        outputs = multiple
        each = _rounded(layer.out_channels, multiple) if layer.groups > 1 else 1
        layer.groups = count * each
    elif isinstance(layer, nn.BatchNorm2d):
        outputs = multiple
        layer.num_features = count * _rounded(layer.num_features, multiple)
    elif isinstance(layer, nn.Linear):
        inputs = multiple
    for names in (layer._parameters, layer._buffers):
        for key, tensor in names.items():
            if tensor is None or not tensor.is_floating_point():
                continue
            first, *rest = tensor.shape
            if rest:
                rest[0] = _rounded(rest[0], inputs)
            joined = tensor.new_zeros(count * _rounded(first, outputs), *rest)
            if tensor.is_contiguous(memory_format=torch.channels_last):
                joined = joined.contiguous(memory_format=torch.channels_last)
            is_parameter = isinstance(tensor, nn.Parameter)
            cast(dict[str, Any], names)[key] = nn.Parameter(joined) if is_parameter else joined
    kind = StackedMixed if isinstance(layer, Mixed) else _STACKED.get(type(layer))
    if kind is not None:
        layer.__class__ = kind
        cast(Any, layer).networks = count


def _rounded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class StackedConv(nn.Conv2d):
    """Convolution without groups: of 1x1, for each network a matrix product."""

    networks: int

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size != (1, 1):
            return super().forward(x)
        return stacked.pointwise(x, self.weight, self.stride[0], self.networks)


class StackedLinear(nn.Linear):
    """Dense layer: (N, S * inputs) -> (N, S * outputs)."""

    networks: int

    def forward(self, x: Tensor) -> Tensor:
        weights, biases = self.weight.chunk(self.networks), self.bias.chunk(self.networks)
        parts = zip(x.chunk(self.networks, dim=1), weights, biases, strict=True)
        return torch.cat([linear(*each) for each in parts], dim=1)


class StackedDropout(SeededDropout):
    """Dropout in which each network has its own draws: those of its run.

    Args:
        channels: of one network.
        seeds: (1,) int64 of each network, on the device.
    """

    networks: int
    channels: int
    seeds: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        from sepablate.kernels import triton

        parts = x.chunk(self.networks, dim=1)
        zeros = parts[0].shape[1] - self.channels
        dropped = [
            triton.dropout(each[:, : self.channels], self.p, seed)
            for each, seed in zip(parts, self.seeds, strict=True)
        ]
        return torch.cat([pad(each, (0, zeros)) if zeros else each for each in dropped], dim=1)


class StackedMixed(Mixed):
    """Branches on the same input, concatenated for each network."""

    networks: int

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x).permute(0, 2, 3, 1) for branch in self.children()]
        parts = [y.unflatten(3, (self.networks, -1)) for y in branches]
        return torch.cat(parts, dim=4).flatten(3).permute(0, 3, 1, 2)


class StackedBlock(FusedBlock):
    """Block whose shortcut is computed for each network."""

    networks: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.residual or not isinstance(self.shortcut, Shortcut):
            return super().forward(x)
        strided = stacked.pointwise(x, self.shortcut.conv.weight, 2, self.networks)
        y: Tensor = self.shortcut.norm(strided, self.body(x))
        return y


_STACKED: dict[type[nn.Module], type[nn.Module]] = {
    FusedConv: StackedConv,
    FusedBlock: StackedBlock,
    nn.Linear: StackedLinear,
    nn.Dropout: StackedDropout,
    SeededDropout: StackedDropout,
}
