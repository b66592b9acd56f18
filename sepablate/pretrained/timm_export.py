"""Write a run's weights for timm: under timm's names, as its `checkpoint_path` takes them."""

from pathlib import Path

from safetensors.torch import save

from sepablate.errors import UserError
from sepablate.models import defaults
from sepablate.models.timm_weights import to_timm
from sepablate.pretrained.evaluate import NETWORKS
from sepablate.pretrained.run_weights import find, network_options
from sepablate.store import weights
from sepablate.store.files import write_atomically

# Options that timm's constructor has as well, or that matter in training only.
FREE = ("classes", "in_channels", "dropout", "norm_momentum")


def export(source: str, target: Path) -> list[str]:
    """Write weights under timm's names; return lines on the network of timm that they fit.

    Args:
        source: a run key, or a weights file.
        target: the .safetensors file to write.

    Raises UserError if timm does not have the network, or if it has other tensors there.
    """
    path = find(source)
    saved = weights.read(path)
    name, options = saved.config["model"], network_options(saved)
    if name not in NETWORKS:
        raise UserError(f"{path}: timm has no {name}, only {', '.join(NETWORKS)}")
    try:
        state = to_timm(name, saved.tensors)
    except UserError as error:
        raise UserError(f"{path}: timm's {NETWORKS[name].timm} has other layers: {error}") from None
    write_atomically(target, save(state, {"format": "pt"}))
    published = {**defaults(name), **NETWORKS[name].options}
    call = f"num_classes={options['classes']}, in_chans={options['in_channels']}"
    lines = [f"{target}: for timm.create_model({NETWORKS[name].timm!r}, {call})"]
    other = [
        f"{key} {value} (timm: {published[key]})"
        for key, value in options.items()
        if key not in FREE and value != published[key]
    ]
    if other:
        lines.append(f"timm's network is another one in: {', '.join(other)}")
    return lines
