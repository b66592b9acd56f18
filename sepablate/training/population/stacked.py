"""Several networks of one structure as one network, with the networks in the channels.

Activations are (N, S * C, H, W) for S networks. Depthwise convolutions, batch norm, activations,
pooling and additions act on each channel, so that they are as they were; a 1x1 convolution or a
dense layer is one batched matrix product; another convolution has S times its groups. The idea is
that of HFTA (Wang et al., MLSys 2021).
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sepablate.kernels.fuse import FusedBlock, FusedConv, SeededDropout
from sepablate.kernels.triton import stacked
from sepablate.models.layers import Mixed, Segmented
from sepablate.models.xception import Shortcut


class NotStackable(Exception):  # noqa: N818 (says why)
    """These networks or runs cannot be trained as one; the message says why."""


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """Return one network that computes all `networks` on images (N, S * channels, H, W).

    Its outputs are (N, S * classes). The weights and statistics of `networks` become views of its
    own, so that each of them follows and can be changed, saved and evaluated as before.

    Raises NotStackable for a layer that mixes channels in another way than convolutions do.
    """
    wide = copy.deepcopy(networks[0])
    for name, module in wide.named_modules():
        members = [network.get_submodule(name) for network in networks]
        if isinstance(module, Segmented):
            raise NotStackable("segments of channels")
        for names in (module._parameters, module._buffers):
            for key, tensor in names.items():
                if tensor is not None and tensor.is_floating_point():
                    joined = _join(members, key)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    cast(dict[str, Any], names)[key] = (
                        nn.Parameter(joined) if is_parameter else joined
                    )
        _widen(module, len(networks))
    return wide


@torch.no_grad()
def _join(members: Sequence[nn.Module], key: str) -> Tensor:
    """Return the members' tensors one after another in memory; they become views of it."""
    tensors = [cast(Tensor, getattr(member, key)) for member in members]
    first = tensors[0]
    shape = (len(tensors) * len(first), *first.shape[1:])
    joined = first.new_empty(0).new_empty_strided(shape, first.stride())
    for member, tensor, part in zip(members, tensors, joined.chunk(len(tensors)), strict=True):
        part.copy_(tensor)
        if isinstance(tensor, nn.Parameter):
            tensor.data = part
        else:
            member._buffers[key] = part
    return joined


def _widen(module: nn.Module, count: int) -> None:
    """Make a layer compute `count` networks."""
    if isinstance(module, nn.Conv2d):
        module.in_channels *= count
        module.out_channels *= count
        module.groups *= count
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features *= count
    kind = StackedMixed if isinstance(module, Mixed) else _STACKED.get(type(module))
    if kind is not None:
        module.__class__ = kind
        cast(Any, module).networks = count


class StackedConv(nn.Conv2d):
    """Convolution without groups: for each network a matrix product."""

    networks: int

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            return stacked.pointwise(x, self.weight, self.stride[0], self.networks)
        padding = cast(tuple[int, int], self.padding)
        return stacked.convolution(x, self.weight, self.stride[0], padding, self.networks)


class StackedLinear(nn.Linear):
    """Dense layer: (N, S * inputs) -> (N, S * outputs)."""

    networks: int

    def forward(self, x: Tensor) -> Tensor:
        weights, biases = self.weight.chunk(self.networks), self.bias.chunk(self.networks)
        parts = zip(x.chunk(self.networks, dim=1), weights, biases, strict=True)
        return torch.cat([linear(*part) for part in parts], dim=1)


class StackedDropout(SeededDropout):
    """Dropout in which each network has its own draws: those of its run."""

    networks: int
    seeds: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        from sepablate.kernels import triton  # only here: Triton comes with torch's CUDA builds

        parts = zip(x.chunk(self.networks, dim=1), self.seeds, strict=True)
        return torch.cat([triton.dropout(part, self.p, seed) for part, seed in parts], dim=1)


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
