"""SSD with our networks as its base: its layers, its costs, and that it learns."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.torch_count import count
from torch import nn
from torch.nn.functional import pad
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssd import SSD300_VGG16_Weights, SSDHead

from sepablate.errors import UserError
from sepablate.models import build, ssd
from sepablate.models.complexity import Cost, breakdown
from sepablate.models.layers import batch_norm
from sepablate.paper.mobilenets import TABLE_13
from sepablate.profiling import detector_counts
from sepablate.profiling.detector_counts import CASES, Case

BASES: list[tuple[str, dict[str, Any]]] = [
    ("inception_v3", {}),
    ("mobilenet_v1", {}),
    ("mobilenet_v1", {"separable": False, "shallow": True}),
    ("xception", {}),
]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Such small layers take longer on two threads, and much longer on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(name: str) -> Case:
    return next(each for each in CASES if each.detector == name)


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.detector)
def test_parts_add_up_to_an_independent_count(each: Case) -> None:
    detector = detector_counts.layers(each)
    parts = detector_counts.part_costs(detector)
    summed = Cost(*(sum(getattr(p, name) for p in parts.values()) for name in vars(Cost(0, 0))))
    assert summed == count(detector, 300)
    assert min(min(part.parameters, part.mult_adds) for part in parts.values()) > 0


@pytest.mark.parametrize(("base", "options"), BASES, ids=str)
def test_the_base_is_the_whole_network_but_for_its_classifier(
    base: str, options: dict[str, Any]
) -> None:
    with torch.device("meta"):
        network = build(base, **options)
        detector = ssd.detector_layers(base, **options)
    costs = detector_counts.part_costs(detector)
    without = count(network, 300)
    dense = breakdown(network, 300).kinds["dense"]
    assert costs["base"] == Cost(
        without.parameters - dense.parameters, without.mult_adds - dense.mult_adds
    )


@pytest.mark.parametrize(("base", "options"), BASES, ids=str)
def test_the_second_map_is_the_network_before_its_classifier(
    base: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = build(base, width=1 / 16, dropout=0, **options).eval()
    images = torch.randn(2, 3, 96, 96)
    first, second = ssd.STAGES[base](network)
    with torch.no_grad():
        maps = [first(images), second(first(images))]
        assert torch.equal(network.classifier(maps[1]), network(images))
    smaller, larger = maps[1].shape[-1], maps[0].shape[-1]
    assert smaller < larger <= 2 * smaller + 2


def test_torchvision_s_ssd_300_is_counted_as_it_publishes() -> None:
    """With the classes of its published weights: 90 and the background."""
    published = SSD300_VGG16_Weights.DEFAULT.meta
    found = count(detector_counts.layers(case("vgg_16_90")), 300)
    assert found.parameters == published["num_params"] == 35_641_826
    assert round(found.mult_adds / 1e9, 3) == published["_ops"]


def test_separable_parts_are_those_of_torchvision_s_ssdlite() -> None:
    with torch.device("meta"):
        theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
        channels = [next(block.parameters()).shape[1] for block in theirs.backbone.extra]
        channels.append(ssd.CHANNELS[-1])
        norm = batch_norm(1e-3, 0.03)
        extra = ssd._further_layers(channels, norm, separable=True)
        ours = ssd.detector_layers("mobilenet_v1", "separable", classes=90)
    assert tuple(channels[1:]) == ssd.CHANNELS
    shapes = [[*each.shape] for each in nn.Sequential(*extra).state_dict().values()]
    assert shapes == [[*each.shape] for each in theirs.backbone.extra.state_dict().values()]
    for name in ("classification_head", "regression_head"):
        for index in range(2, 6):  # of maps with the same channels in both, and the same boxes
            blocks = [each.head.get_submodule(name).module_list[index] for each in (ours, theirs)]
            counts = [sum(weight.numel() for weight in block.parameters()) for block in blocks]
            assert counts[0] == counts[1]


def test_pointwise_heads_are_ssd_s_with_kernels_that_see_one_place() -> None:
    torch.manual_seed(0)
    channels, boxes = [8, 4], [2, 3]
    ours, theirs = ssd._PointwiseHead(channels, boxes, 5), SSDHead(channels, boxes, 5)
    padded = {
        name: pad(value, (1, 1, 1, 1)) if value.ndim == 4 else value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(padded)
    maps = [torch.randn(2, 8, 6, 6), torch.randn(2, 4, 3, 3)]
    found, expected = ours(maps), theirs(maps)
    assert set(found) == set(expected)
    assert found["cls_logits"].shape == (2, 2 * 36 + 3 * 9, 5)
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_published_mobilenet_has_the_costs_of_table_13() -> None:
    """Also in the paper's way of counting parameters: without batch norm and biases."""
    printed = TABLE_13["SSD 300", "MobileNet"]
    detector = detector_counts.layers(case("mobilenet_published"))
    found = breakdown(detector, 300)
    assert round(found.total.mult_adds / 1e9, 1) == printed.mult_adds
    assert round(found.total.parameters / 1e6, 1) == printed.parameters
    weights = sum(each.numel() for each in detector.parameters() if each.ndim == 4)
    assert round(weights / 1e6, 1) == printed.parameters
    vgg = breakdown(detector_counts.layers(case("vgg_16_90")), 300, detector_counts.KINDS).total
    assert round(vgg.mult_adds / 1e9, 1) == TABLE_13["SSD 300", "deeplab-VGG"].mult_adds


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("base", "heads", "classes"),
    [
        ("inception_v3", "pointwise", 3),
        ("mobilenet_v1", "pointwise", 80),
        ("mobilenet_v1", "separable", 3),
        ("xception", "standard", 3),
    ],
)
def test_detections_of_300_pixels_lie_in_the_image(base: str, heads: str, classes: int) -> None:
    torch.manual_seed(0)
    model = ssd.detector(base, heads, classes, width=1 / 16).eval()
    model.score_thresh = 0  # an untrained network is sure of nothing
    images = [torch.rand(3, 300, 300), torch.rand(3, 200, 400)]
    with torch.no_grad():
        found = model(images)
        predicted = ssd.Layers(model.backbone, model.head)(torch.zeros(1, 3, 300, 300))
    assert predicted["cls_logits"].shape[2] == classes + 1
    assert predicted["bbox_regression"].shape[1] == predicted["cls_logits"].shape[1]
    for each, (height, width) in zip(found, [(300, 300), (200, 400)], strict=True):
        assert 100 < len(each["boxes"]) == len(each["scores"]) <= 200
        assert each["boxes"].min() >= 0
        assert each["boxes"][:, [0, 2]].max() <= width
        assert each["boxes"][:, [1, 3]].max() <= height
        assert set(each["labels"].tolist()) <= set(range(1, classes + 1))


def test_maps_of_mobilenet_have_the_published_sizes() -> None:
    with torch.device("meta"):
        detector = ssd.detector_layers("mobilenet_v1").eval()
    maps = detector.backbone(torch.empty(1, 3, 300, 300, device="meta")).values()
    assert [each.shape[2] for each in maps] == [19, 10, 5, 3, 2, 1]
    assert [each.shape[1] for each in maps] == [512, 1024, 512, 256, 256, 128]
    assert ssd.BOXES == (4, 6, 6, 6, 6, 6)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("heads", ssd.HEADS)
def test_the_loss_of_two_images_falls_to_near_zero(heads: str) -> None:
    torch.manual_seed(0)
    model = ssd.detector("mobilenet_v1", heads, classes=2, image_size=64, width=1 / 8)
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[5.0, 5, 27, 32]]), "labels": torch.tensor([1])},
        {
            "boxes": torch.tensor([[20.0, 13, 60, 53], [3, 40, 20, 61]]),
            "labels": torch.tensor([2, 1]),
        },
    ]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(80):
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert losses[-1] < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "vgg"}, r"base must be one of .*xception.*, not 'vgg'"),
        ({"base": "separable_example"}, r"base must be one of .*mobilenet_v1"),
        ({"heads": "dense"}, r"heads must be one of .*pointwise.*, not 'dense'"),
        ({"classes": 0}, r"classes must be at least 1, not 0"),
        ({"image_size": 40}, r"image_size 40: too few pixels for this base; choose 300"),
        ({"image_size": -1}, r"image_size -1"),
        ({"width": 0}, r"width must be positive"),
        ({"separable": False}, r"unknown options \['separable'\] for inception_v3"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ssd.detector(**{"base": "inception_v3", "width": 1 / 16, **arguments})
    assert "\n" not in str(caught.value)
