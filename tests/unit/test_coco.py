"""COCO's layout: what is read of it, what is refused in one line, and that a detector learns it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import coco_files
from helpers.coco_files import KINDS, annotation, lists, write, write_both
from helpers.project import ROOT

from sepablate import scales, study
from sepablate.data import coco
from sepablate.errors import UserError
from sepablate.runs.run import Run, resolve
from sepablate.training import engine
from sepablate.training.detection import batches, fit
from sepablate.training.detection.batches import BoxBatches

Change = Callable[[dict[str, Any]], object]


def one_list(folder: Path, annotations: list[dict[str, Any]]) -> torch.Tensor:
    """The labels of one image of 200 x 100 pixels."""
    write(folder, "val2017", lists([(200, 100)], []))
    path = folder / "coco/annotations/instances_val2017.json"
    path.write_text(json.dumps(lists([(200, 100)], annotations)))
    return coco._split(folder / "coco", "val2017").labels[0]


def test_boxes_are_scaled_with_their_image(tmp_path: Path) -> None:
    (found,) = one_list(tmp_path, [annotation(1, [20, 10, 100, 50], KINDS[7])])
    assert found.tolist() == pytest.approx([7, 30, 30, 180, 180, 0])


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-20, 80, 60, 40], [0, 240, 60, 300]),  # cut at the left and the lower border
        ([190, 0, 1000, 1000], [285, 0, 300, 300]),
        ([300, 10, 20, 20], None),  # outside
        ([20, 10, 0, 50], None),  # without an area
        ([20, 10, 5, 0], None),
    ],
)
def test_boxes_end_at_the_border(
    tmp_path: Path, box: list[int], expected: list[float] | None
) -> None:
    (found,) = one_list(tmp_path, [annotation(1, box)])
    if expected is None:
        assert found[0] == -1
    else:
        assert found.tolist() == pytest.approx([0, *expected, 0])


def test_crowds_and_images_without_boxes_are_kept(tmp_path: Path) -> None:
    crowd, kind = annotation(2, [0, 0, 10, 10], crowd=1), annotation(2, [5, 5, 9, 9], KINDS[3])
    write(tmp_path, "val2017", lists([(20, 20), (20, 20)], [crowd, kind]))
    split = coco._split(tmp_path / "coco", "val2017")
    labels = split.labels[[split.name(index).endswith("1.jpg") for index in (0, 1)].index(False)]
    other = split.labels[[split.name(index).endswith("1.jpg") for index in (0, 1)].index(True)]
    assert other[:, 0].eq(-1).all()
    assert labels[:, 0].tolist() == [0, 3]
    assert labels[:, 5].tolist() == [1, 0]


def test_splits_share_no_image_and_have_the_names_of_the_80_categories(tmp_path: Path) -> None:
    write_both(tmp_path, train=30)
    splits = coco.load(tmp_path)
    names = {name: {each.name(i) for i in range(len(each))} for name, each in splits.items()}
    assert [len(names[name]) for name in ("train", "validation", "test")] == [27, 3, 4]
    assert len(set.union(*names.values())) == 34
    assert splits["train"].classes[3] == f"kind {KINDS[3]}"
    assert set(coco.load(tmp_path, test=False)) == {"train", "validation"}
    before = coco.digest(tmp_path)
    path = tmp_path / "coco/annotations/instances_val2017.json"
    path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    assert coco.digest(tmp_path) != before


def change(**entries: object) -> Change:
    """Change the first annotation."""
    return lambda content: content["annotations"][0].update(entries)


def change_image(**entries: object) -> Change:
    return lambda content: content["images"][0].update(entries)


REFUSED: list[tuple[Change, str]] = [
    (lambda content: content.pop("images"), "images: choose a list"),
    (lambda content: content.update(images=[]), "lists no images"),
    (lambda content: content.update(annotations={}), "annotations: choose a list"),
    (lambda content: content["annotations"].insert(0, 7), r"annotations\[0\]: 7: choose an object"),
    (lambda content: content["categories"].pop(), "79 categories: COCO has 80"),
    (lambda content: content["images"].append(content["images"][0]), "duplicate id 1"),
    (change_image(width=0), r"images\[0\]: choose a width and a height of at least 1"),
    (change_image(height="60"), r"images\[0\]: height '60': choose a number"),
    (change_image(id=None), r"images\[0\]: id None: choose a number"),
    (change_image(file_name="../x.jpg"), r"file_name '../x.jpg': choose the name of a file in"),
    (change_image(file_name=3), r"file_name 3: choose the name of a file"),
    (change_image(file_name="other.jpg"), r"other.jpg: missing, but .* lists it"),
    (change(category_id=91), r"annotations\[0\]: category_id 91: not among the categories"),
    (change(category_id=True), r"category_id True: choose a number"),
    (change(image_id=99), r"annotations\[0\]: there is no image with the id 99"),
    (change(bbox=[1, 2, 3]), r"bbox \[1, 2, 3\]: choose \[left, top, width, height\]"),
    (change(bbox=None), r"bbox None: choose"),
    (change(bbox=[1, 2, -3, 4]), r"choose a width and height of at least 0"),
    (change(bbox=[1, 2, float("nan"), 4]), r"bbox\[2\] nan: choose a finite number"),
    (change(bbox=[1, 2, 1e400, 4]), r"bbox\[2\] inf: choose a number"),
    (change(bbox=[1, 10**400, 3, 4]), r"bbox\[1\] 1000.*: choose a number"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_bad_list_is_one_line(tmp_path: Path, edit: Change, message: str) -> None:
    write_both(tmp_path, train=2, test=1)
    path = tmp_path / "coco/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        coco.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert "coco" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": 1}', "\0"])
def test_a_list_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    write_both(tmp_path, train=2, test=1)
    path = tmp_path / "coco/annotations/instances_train2017.json"
    path.write_text(text)
    with pytest.raises(UserError, match="instances_train2017") as caught:
        coco.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_lists_and_bad_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"instances_train2017.json: missing; get COCO 2017"):
        coco.load(tmp_path)
    write_both(tmp_path)
    coco.fetch(tmp_path)
    next((tmp_path / "coco/train2017").glob("*3.jpg")).write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=r"1 of 16 images are bad: .*3.jpg"):
        coco.fetch(tmp_path)


def paper_run(variant: str = "ssd_mobilenet_v1", **changes: object) -> Run:
    """A run of scale paper on a few images, with a narrow network."""
    scale, recipes = scales.load("paper", ROOT / "params.yaml")
    assert scale.detection is not None
    few = {"images": 10, "validation_images": 1, "test_images": 4, "batch_size": 2}
    detection = dataclasses.replace(scale.detection, **few, evaluations=1)  # type: ignore[arg-type]
    fields = {"detection": detection, "width": 1 / 16, "workers": 0, "micro_batch": 0, **changes}
    few_steps = {"detection": dataclasses.replace(scale.recipes["detection"], epochs=0.6)}
    scale = dataclasses.replace(scale, recipes=few_steps, **fields)  # type: ignore[arg-type]
    declared = study.variant(variant, ROOT / "experiments")
    return resolve(declared, "paper", scale, recipes, 0, "fp32").with_backend("fp32", "torch")


def test_a_detector_of_scale_paper_trains_on_images_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    run = paper_run()
    assert (run.options["maps"], run.options["classes"], run.image_size) == (6, 80, 300)
    assert run.recipe.flip
    result, examples = fit.fit(run, coco.load(Path("data")), tmp_path / "run", engine.Monitor())
    assert result.rows[-1][0] == run.scale.steps == 3
    assert len(json.loads(examples)) == 4


def test_mirrored_images_have_mirrored_boxes(tmp_path: Path) -> None:
    """The rectangle of each image lies where its box says, whether it is mirrored or not."""
    coco_files.write_both(tmp_path)
    run = paper_run(workers=0)
    split = coco.load(tmp_path)["train"]
    source = batches.make_batches(split, run)
    assert isinstance(source, BoxBatches)
    plain = {tuple(each[0, 1:5].tolist()) for each in split.labels}
    mirrored = 0
    for step in range(3):
        images, labels = source.batch(step)
        for image, ((kind, *box, crowd),) in zip(images, labels.tolist(), strict=True):
            left, top, right, bottom = (round(edge) for edge in box)
            bright = (image[0] - image[2] > 0.3).nonzero()
            found = [*bright.amin(0).tolist()[::-1], *(bright.amax(0) + 1).tolist()[::-1]]
            assert found == pytest.approx([left, top, right, bottom], abs=8)  # JPEG, resized
            assert (kind >= 0, crowd) == (True, 0)
            mirrored += tuple(box) not in plain
    assert 0 < mirrored < 6
    again = batches.make_batches(split, run)
    assert torch.equal(again.batch(2)[0], source.batch(2)[0])
