"""`sepablate evaluate`: what timm's own network and loop count, and refusals in one line."""

import pickle
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from helpers.bomb import Bomb
from helpers.images import class_folders
from helpers.project import ROOT, sepablate
from safetensors.torch import save_file
from scipy.stats import binomtest
from timm.data import create_dataset, create_loader, resolve_model_data_config
from torch import nn

from sepablate.pretrained import evaluate

CLASSES = tuple(f"n{number:02}" for number in range(7))
IMAGES = 7
PAPER = {
    "xception": ("0.790", "0.945"),
    "inception_v3": ("0.782", "0.941"),
    "mobilenet_v1": ("0.706", "not given"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    """Without training images, which an evaluation does not need."""
    root = tmp_path_factory.mktemp("evaluate")
    return class_folders(root, data_folder, train=0, validation=IMAGES, classes=CLASSES)


def timms(name: str, data: Path) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """timm's network with random weights, and its logits and labels by timm's own loader.

    The mean logit of each class is taken off its bias, so that the predictions vary.
    """
    torch.manual_seed(1)
    network = timm.create_model(evaluate.NETWORKS[name].timm, num_classes=len(CLASSES)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.7)  # or the images' differences die out on the way
    config = resolve_model_data_config(network)
    loader = create_loader(
        create_dataset("", root=str(data / "validation")),
        batch_size=IMAGES // 2,
        use_prefetcher=False,
        num_workers=0,
        **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    with torch.inference_mode():
        pairs = [(network(images), labels) for images, labels in loader]
    logits, labels = (torch.cat(each) for each in zip(*pairs, strict=True))
    assert (logits - logits.mean(0)).std() > 1e-3 * logits.std(), "rounding would decide"
    with torch.no_grad():
        network.get_classifier().bias -= logits.mean(0)
    return network, logits - logits.mean(0), labels


def save_old(network: nn.Module, path: Path) -> None:
    """As years ago: no count of batches, wrapped, of several GPUs, with an auxiliary tower.

    Xception's as in Cadene's files: another name for the last layer, pointwise weights as matrices.
    """
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    if isinstance(network, timm.models.Xception):
        state = {key.replace(".fc.", ".last_linear."): value for key, value in state.items()}
        state = {k: v.flatten(1) if "pointwise" in k else v for k, v in state.items()}
    state = {key: value for key, value in state.items() if not key.endswith("batches_tracked")}
    if isinstance(network, timm.models.InceptionV3):
        state["module.AuxLogits.conv0.bn.running_var"] = torch.ones(128)
    torch.save({"state_dict": state, "epoch": 3}, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", evaluate.NETWORKS)
def test_our_network_counts_what_timms_own_loop_counts(
    name: str, data: Path, tmp_path: Path
) -> None:
    network, logits, labels = timms(name, data)
    order = logits.argsort(1, descending=True)
    ranks = (order == labels[:, None]).int().argmax(1)
    expected = {top: int((ranks < top).sum()) for top in (1, 5)}
    assert len(set(order[:, 0].tolist())) > 1, "the network tells no images apart"
    save_file(network.state_dict(), tmp_path / "new.safetensors")
    save_old(network, tmp_path / "old.pth")
    new, old = (evaluate.load(name, tmp_path / file) for file in ("new.safetensors", "old.pth"))
    for key, value in new.state_dict().items():
        assert key.endswith("batches_tracked") or torch.equal(value, old.state_dict()[key])

    lines = evaluate.evaluate(name, tmp_path / "old.pth", data, batch=3, mean_std="timm")
    assert f"{IMAGES} images of {data}/validation" in lines[0]
    for line, (top, count), printed in zip(lines[2:], expected.items(), PAPER[name], strict=False):
        interval = binomtest(count, IMAGES).proportion_ci(method="wilson")
        found = f"{count / IMAGES:.4f}  [{interval.low:.4f}, {interval.high:.4f}]"
        assert line.startswith(f"top-{top}  {found}  the paper: {printed} (arXiv:"), expected


def test_weights_are_taken_however_they_are_wrapped(tmp_path: Path) -> None:
    state = timm.create_model("mobilenetv1_100", num_classes=3).state_dict()
    torch.save(state, tmp_path / "plain.pth")
    expected = evaluate.load("mobilenet_v1", tmp_path / "plain.pth").state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    for wrapped in ({"model": state}, {"model": parallel}, {"state_dict_ema": state}, parallel):
        torch.save(wrapped, tmp_path / "wrapped.pth")
        found = evaluate.load("mobilenet_v1", tmp_path / "wrapped.pth").state_dict()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_the_mean_can_be_imagenets(data: Path, tmp_path: Path) -> None:
    network = timm.create_model("mobilenetv1_100", num_classes=len(CLASSES))
    save_file(network.state_dict(), tmp_path / "m.safetensors")
    for choice, mean in {"timm": "0.5", "half": "0.5", "imagenet": "0.485"}.items():
        lines = evaluate.evaluate("mobilenet_v1", tmp_path / "m.safetensors", data, 8, choice)
        assert f"mean ({mean}, " in lines[1]
    with pytest.raises(ValueError, match="mean-std 'none': choose timm, half, imagenet"):
        evaluate.evaluate("mobilenet_v1", tmp_path / "m.safetensors", data, 8, "none")


def test_what_is_no_checkpoint_is_refused_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"fc.weight": Bomb(tmp_path / "bomb")}))
    torch.save({"fc.weight": Bomb(tmp_path / "bomb")}, tmp_path / "zipped.pth")
    torch.save(timm.create_model("mobilenetv1_100").state_dict(), tmp_path / "other.pth")
    torch.save([torch.ones(3)], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("<html>")
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    (tmp_path / "text.safetensors").write_text("<html>")
    (tmp_path / "empty.pth").touch()
    narrow = timm.create_model("legacy_xception").state_dict()
    torch.save({**narrow, "bn4.weight": torch.ones(7)}, tmp_path / "shapes.pth")
    fits = "not the weights of legacy_xception: "
    reasons = {
        "lfs.safetensors": "a pointer of Git LFS, not the weights; run `git lfs pull`",
        "other.pth": fits + "unknown or missing names",
        "shapes.pth": fits + ".*size mismatch",
    }
    for file in sorted(tmp_path.iterdir()):
        reason = reasons.get(file.name, "no file of only weights, as .safetensors, .pth or .h5")
        with (
            warnings.catch_warnings(action="error"),
            pytest.raises(ValueError, match=f"^{re.escape(str(file))}: {reason}") as raised,
        ):
            evaluate.load("xception", file)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "bomb").exists()


def test_what_is_missing_is_said(data: Path, tmp_path: Path) -> None:
    network = timm.create_model("mobilenetv1_100")
    save_file(network.state_dict(), tmp_path / "m.safetensors")
    for name, file, folder, complaint in (
        ("xception", None, data, "--weights: missing; download timm's .* from https://"),
        ("mobilenet_v1", None, data, "https://huggingface.co/timm/mobilenetv1_100"),
        ("xception", "none.pth", data, "none.pth: there is no such file; download"),
        ("resnet", None, data, "model 'resnet': choose xception, inception_v3, mobilenet_v1"),
        ("mobilenet_v1", "m.safetensors", tmp_path, "registration at image-net.org"),
        ("mobilenet_v1", "m.safetensors", data, "7 classes .* but 1000 in the network"),
    ):
        with pytest.raises(ValueError, match=complaint):
            evaluate.evaluate(name, file and tmp_path / file, folder, 8, "timm")


def test_the_command_ends_in_one_line_and_status_2() -> None:
    done = sepablate(ROOT, "evaluate", "xception")
    assert done.returncode == 2
    assert re.fullmatch("sepablate: --weights: missing; download .*\n", done.stderr), done.stderr
    assert done.stdout == ""
