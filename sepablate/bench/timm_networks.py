"""timm's networks, at the size of a case."""

from typing import Any

import timm
from torch import nn

from sepablate.models.layers import scaled
from sepablate.runs.run import Run

NAMES = {
    "xception": "legacy_xception",
    "inception_v3": "inception_v3",
    "mobilenet_v1": "mobilenetv1_100",
}
EXTRA: dict[str, dict[str, Any]] = {
    "inception_v3": {"aux_logits": False},
    "mobilenet_v1": {"act_layer": nn.ReLU},
}


def build(run: Run) -> nn.Module:
    """Build timm's network with the run's width, stem, classes, dropout and BN constants."""
    options = run.options
    built: Any = timm.create_model(
        NAMES[run.model],
        num_classes=options["classes"],
        in_chans=options["in_channels"],
        drop_rate=options["dropout"],
        **EXTRA.get(run.model, {}),
    )
    if options["width"] != 1:
        _narrow(built, options["width"], options["in_channels"])
    if options["stem_stride"] == 1:
        built.conv1.stride = (1, 1)
    if options.get("padding") == "same" and run.model == "xception":
        built.conv1.padding = built.conv2.padding = (1, 1)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = options["norm_epsilon"], options["norm_momentum"]
    return built


def _narrow(built: nn.Module, width: float, in_channels: int) -> None:
    """Replace every layer by one of `width` times its channels; the input and classes stay."""
    for path, module in list(built.named_modules()):
        parent, _, child = path.rpartition(".")
        inputs = getattr(module, "in_channels", getattr(module, "in_features", in_channels))
        inputs = inputs if inputs == in_channels else scaled(inputs, width)
        new: nn.Module | None = None
        if isinstance(module, nn.Conv2d):
            new = nn.Conv2d(
                inputs,
                scaled(module.out_channels, width),
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                groups=inputs if module.groups > 1 else 1,
                bias=False,
            )
        elif isinstance(module, nn.BatchNorm2d):
            new = nn.BatchNorm2d(scaled(module.num_features, width))
        elif isinstance(module, nn.Linear):
            new = nn.Linear(inputs, module.out_features)
        if new is not None:
            setattr(built.get_submodule(parent), child, new)
