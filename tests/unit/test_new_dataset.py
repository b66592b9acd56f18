"""`sepablate new dataset`: what becomes of images in folders and in a CSV file, what is refused."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers.environments import refused
from helpers.own_images import CLASSES, class_folders, picture, register, save
from helpers.project import ROOT, sepablate
from PIL import Image

from sepablate import data, scales
from sepablate.data.image_files import ImageFiles
from sepablate.data.split import TensorSplit
from sepablate.errors import UserError
from sepablate.planning import image_list, new_dataset, new_scale
from sepablate.store import datasets, layout
from sepablate.store.datasets import SPLITS

Change = Callable[[Path], object]


def in_memory(name: str = "pets") -> dict[str, TensorSplit]:
    splits = data.dataset(name).load(layout.DATA)
    return {key: split for key, split in splits.items() if isinstance(split, TensorSplit)}


def test_class_folders_become_a_data_set_with_drawn_splits(small: Path) -> None:
    made = register(class_folders(Path("pets"), 20))
    registered = made.registered
    assert (registered.folder, registered.channels, registered.image_size) == ("pets", 3, 12)
    assert registered.images == {"train": 48, "validation": 6, "test": 6}
    for split, count in (("train", 16), ("validation", 2), ("test", 2)):
        labels = Counter(row.label for row in made.rows if row.split == split)
        assert labels == dict.fromkeys(CLASSES, count), "each split has a tenth of each class"
    splits = in_memory()
    for name, split in splits.items():
        rows = [row for row in made.rows if row.split == name]
        assert [CLASSES[label] for label in split.labels] == [row.label for row in rows]
        pixels = [np.asarray(Image.open(small / "pets" / row.image)) for row in rows]
        assert torch.equal(split.images, torch.from_numpy(np.stack(pixels)))
    first = {row.label for row in made.rows[:12]}
    assert first == {*CLASSES}, "the order mixes the classes"
    source = data.dataset("pets")
    assert (source.CLASSES, source.CHANNELS, source.IMAGE_SIZE) == (3, 3, 12)
    assert "test" not in source.load(layout.DATA, test=False)


def test_the_same_images_give_the_same_data_set_wherever_they_lie(small: Path) -> None:
    first = register(class_folders(Path("a/pets")))
    second = register(class_folders(small.parent / f"{small.name}-other"), "others")
    assert first.rows == second.rows
    assert first.registered.digest == second.registered.digest
    assert Path(second.registered.folder).is_absolute()
    assert data.digest("pets") == first.registered.digest
    class_folders(Path("c"), 11)
    assert register(Path("c"), "more").registered.digest != first.registered.digest


def test_equal_files_of_a_class_stay_in_one_split(small: Path) -> None:
    class_folders(Path("pets"), 10)
    for index in range(10, 40):
        shutil.copy("pets/cat/00.png", f"pets/cat/{index}.png")
    made = new_dataset.examine("pets", Path("pets"))
    copies = {row.split for row in made.rows if row.digest == made.rows[0].digest}
    of_cat = Counter(row.split for row in made.rows if row.label == "cat")
    assert len(copies) == 1
    assert set(of_cat) == {*SPLITS}
    assert not [note for note in made.notes if "equal training images" in note]


def test_given_splits_are_kept_and_only_the_missing_ones_drawn(small: Path) -> None:
    class_folders(Path("pets/train"), 20)
    class_folders(Path("pets/test"), 3)
    made = register(Path("pets"))
    assert made.registered.images == {"train": 54, "validation": 6, "test": 9}
    assert {row.image.split("/")[0] for row in made.rows if row.split == "test"} == {"test"}
    assert made.registered.splits.startswith("a tenth of each class for validation, drawn")
    class_folders(Path("pets/val"), 2)
    made = register(Path("pets"), "given")
    assert made.registered.images == {"train": 60, "validation": 6, "test": 9}
    assert made.registered.splits == "given"
    assert [note for note in made.notes if "15 images that are not trained on equal" in note]


def test_only_a_folder_train_is_a_split_and_train_among_others_a_class(small: Path) -> None:
    class_folders(Path("pets/train"), 10)
    assert register(Path("pets")).registered.classes == CLASSES
    class_folders(Path("vehicles"), 10, ("bus", "train", "tram"))
    assert register(Path("vehicles"), "vehicles").registered.classes == ("bus", "train", "tram")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("10", "9", "100"), ("9", "10", "100")),
        (("10", "9", "a"), ("10", "9", "a")),
        (("b", "a", "C"), ("C", "a", "b")),
        (("0", "9" * 200, "1"), ("0", "1", "9" * 200)),
    ],
)
def test_the_order_of_classes(
    small: Path, names: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert image_list.collect(class_folders(Path("pets"), 1, names)).classes == expected


def test_a_list_gives_the_order_of_classes(small: Path) -> None:
    class_folders(Path("pets"))
    Path("pets/classes.txt").write_text("owl\ncat\ndog\n")
    made = register(Path("pets"))
    assert made.registered.classes == ("owl", "cat", "dog")
    assert made.notes == ["3 test images: intervals over test images will be wide"]
    assert Counter(in_memory()["train"].labels.tolist()) == {0: 8, 1: 8, 2: 8}
    Path("pets/classes.txt").write_text("owl\ncat\n")
    with pytest.raises(UserError, match=r"classes\.txt: 'dog' has images, but is not listed"):
        new_dataset.examine("more", Path("pets"))


def test_grey_images_have_one_channel_and_a_colour_one_makes_all_colour(small: Path) -> None:
    class_folders(Path("pets"), mode="L")
    sixteen = np.full((12, 12), 257 * 77, np.uint16)
    Image.fromarray(sixteen).save("pets/cat/00.png")
    register(Path("pets"))
    splits = in_memory()
    assert data.dataset("pets").CHANNELS == 1
    assert splits["train"].images.shape == (24, 12, 12)
    everything = torch.cat([split.images for split in splits.values()])
    assert (everything == 77).all(dim=(1, 2)).sum() == 1, "16 bits are scaled to 8"
    save(Path("pets/owl/99.png"), picture(5))
    made = register(Path("pets"), "mixed")
    assert "30 of 31 images are grey: taken as colour" in made.notes
    assert in_memory("mixed")["train"].images.shape == (25, 12, 12, 3)


def test_mixed_sizes_are_scaled_to_the_middle_one_and_cropped(small: Path) -> None:
    class_folders(Path("pets"), 6)
    bands = np.zeros((20, 60, 3), np.uint8)
    bands[:, 20:40] = 200  # only the middle square is bright
    save(Path("pets/owl/99.png"), Image.fromarray(bands))
    made = register(Path("pets"))
    assert made.registered.image_size == 12
    assert "1 of 19 images are not 12 x 12: scaled and cropped to it" in made.notes
    everything = torch.cat([split.images for split in in_memory().values()])
    assert (everything.float().mean(dim=(1, 2, 3)) > 180).sum() == 1


def test_large_images_stay_in_their_files(small: Path) -> None:
    class_folders(Path("pets"), 5)
    save(Path("pets/owl/99.png"), picture(5, (97, 40)))
    made = register(Path("pets"))
    assert (made.registered.channels, made.registered.image_size) == (3, None)
    split = data.dataset("pets").load(layout.DATA)["train"]
    assert isinstance(split, ImageFiles)
    part = split[2:5]
    rows = [row for row in made.rows if row.split == "train"][2:5]
    assert [part.name(index) for index in range(3)] == [f"pets/{row.image}" for row in rows]
    assert part.read(1).size in ((12, 12), (97, 40))
    with Path(part.name(1)).open("ab") as file:
        file.write(b"more")
    again = (
        r"delete datasets/pets\.csv and datasets/pets\.json and run `sepablate new dataset pets`"
    )
    with pytest.raises(
        UserError, match=rf"\.png: changed after it was registered: .* {again} again"
    ):
        data.dataset("pets").load(layout.DATA)["train"][2:5].read(1)  # type: ignore[attr-defined]
    data.check_files("pets", 3, {})  # not noticed: nothing was read


def test_images_too_many_for_memory_stay_in_their_files(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_dataset, "MOST_BYTES", 30 * 12 * 12 * 3 - 1)
    assert register(class_folders(Path("pets"))).registered.image_size is None


def test_images_are_turned_as_their_exif_data_say(small: Path) -> None:
    class_folders(Path("pets"), 6)
    pixels = np.zeros((16, 12, 3), np.uint8)
    pixels[:, :6] = 255  # bright on the left of what is stored
    exif = Image.Exif()
    for name, orientation in (("98.jpg", 3), ("99.jpg", 6)):
        exif[0x0112] = orientation
        save(Path("pets/owl") / name, Image.fromarray(pixels), exif=exif, quality=95)
    made = register(Path("pets"))
    by_name = {}
    for split, images in in_memory().items():
        rows = [row for row in made.rows if row.split == split]
        by_name |= {row.image: image for row, image in zip(rows, images.images, strict=True)}
    half, turned = by_name["owl/98.jpg"].float(), by_name["owl/99.jpg"].float()
    assert half[:, 7:].mean() > 240 > 20 > half[:, :5].mean(), "upside down: now on the right"
    assert turned[:5].mean() > 240 > 20 > turned[7:].mean(), "a quarter: now at the top"
    save(Path("pets/owl/97.jpg"), Image.fromarray(pixels), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    register(Path("pets"), "damaged")
    assert sum(map(len, in_memory("damaged").values())) == 21


def test_a_csv_file_names_images_labels_and_splits(small: Path) -> None:
    class_folders(Path("pets"), 4)
    lines = ["split,label,image"]
    for index, split in enumerate(("train", "train", "validation", "test")):
        lines += [f"{split},{10 - k}, ./{name}/{index:02}.png" for k, name in enumerate(CLASSES)]
    Path("pets/list.CSV").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    made = register(Path("pets/list.CSV"))
    assert made.registered.classes == ("8", "9", "10")
    assert made.registered.images == {"train": 6, "validation": 3, "test": 3}
    assert {row.image for row in made.rows if row.label == "10"} == {
        f"cat/{index:02}.png" for index in range(4)
    }
    Path("pets/plain.csv").write_text(
        "image,label\n"
        + "".join(
            f'"{name}/{index:02}.png","{name}, a ""pet"""\n'
            for name in CLASSES
            for index in range(4)
        )
    )
    assert 'cat, a "pet"' in register(Path("pets/plain.csv"), "plain").registered.classes


def test_the_list_and_what_is_registered_cannot_be_edited_apart_from_the_folder(
    small: Path,
) -> None:
    register(class_folders(Path("pets")))
    file, listed = datasets.path("pets"), datasets.list_path("pets")
    text, rows = file.read_text(), listed.read_text()
    for change in (
        ('"channels": 3', '"channels": 1'),
        ('"train": 24', '"train": 2'),
        ('"splits"', '"x"'),
    ):
        file.write_text(text.replace(*change))
        with pytest.raises(UserError, match=r"pets\.json: changed after .* wrote it: restore it"):
            data.dataset("pets")
    file.write_text(text.replace('"pets"', '"moved"'))
    with pytest.raises(UserError, match=r"folder: 'moved': there is no such folder: bring"):
        data.check_files("pets", 3, {})
    shutil.move("pets", "moved")
    data.check_files("pets", 3, {})
    with pytest.raises(UserError, match="3 classes, but 10 in the network: leave out `classes`"):
        data.check_files("pets", 10, {})
    for content in (rows.replace(",test,", ",train,"), "", None):
        listed.unlink()
        if content is not None:
            listed.write_text(content)
        with pytest.raises(UserError, match=r"pets\.csv: (changed|missing).* restore it"):
            data.dataset("pets").load(layout.DATA)
    for content in ("[]", "{", "", "{}"):
        file.write_text(content)
        with pytest.raises(UserError, match=r"pets\.json: "):
            data.dataset("pets")


@pytest.mark.parametrize("base", ["smoke", "laptop", "workstation", "paper"])
@pytest.mark.parametrize(
    ("count", "size"), [(3, 12), (20, 12), (400, 64), (70_000, 28), (8, None), (2_000_000, None)]
)
def test_the_scale_is_valid_and_has_as_many_steps_as_the_other(
    small: Path, base: str, count: int, size: int | None
) -> None:
    images = {"train": count, "validation": count, "test": count}
    registered = datasets.Registered("pets", CLASSES, 3, size, images, "given", "0" * 16)
    datasets.write("pets", registered, [])
    values = new_scale.propose(base, "pets", registered)
    text = layout.PARAMS.read_text()
    changed = new_scale.add("pets", values)
    layout.PARAMS.write_text(changed)
    scale, other = scales.load("pets")[0], scales.load(base)[0]
    if (base, count) not in (("paper", 3), ("paper", 8), ("paper", 20), ("paper", 400)):
        assert scale.steps == other.steps
        for name in other.recipes:
            assert scale.with_recipe(name).steps == other.with_recipe(name).steps
            augmented = {"shift", "flip"} & values["recipes"][name].keys()
            again = other.with_recipe(name).epochs < 2 <= scale.with_recipe(name).epochs
            assert not (augmented and again), "images that are seen again are augmented"
    assert (scale.images, scale.classes, scale.dataset) == (count, 0, "pets")
    assert scale.image_size == (size or (299 if base == "paper" else 64))
    assert scale.test_images == min(count, other.test_images)
    old, lines = text.splitlines(), iter(changed.splitlines())
    assert all(line in lines for line in old), "every other line stays, in its place"
    assert yaml.safe_load(changed)["scales"]["pets"] == values


def test_a_scale_follows_its_data_set(small: Path) -> None:
    made = register(class_folders(Path("pets")))
    values = new_scale.propose("smoke", "pets", made.registered)
    for changes, hint in (
        ({"image_size": 28}, "image_size: 28: choose 12 for pets"),
        ({"images": 25}, "images: 25: choose at most 24"),
        ({"test_images": 4}, "test_images: 4: choose at most 3"),
        ({"dataset": "pet"}, "choose cifar10, fashion_mnist, imagenet, pets; did you mean pets"),
        ({"dataset": ["pets"]}, "choose cifar10, fashion_mnist, imagenet, pets"),
    ):
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["scales"]["pets"] = {**values, **changes}
        layout.PARAMS.write_text(yaml.safe_dump(params))
        with pytest.raises(UserError, match=r"scales\.pets") as error:
            scales.load("pets")
        assert hint in str(error.value)


def test_a_data_set_is_registered_anew_or_removed_as_the_messages_say(small: Path) -> None:
    """Its scale stays while it is registered anew, and goes when it is removed."""
    command = ("new", "dataset", "pets", str(class_folders(Path("pets"))))
    first = sepablate(small, *command, "--add-scale")
    assert first.returncode == 0, first.stderr
    for path in (datasets.path("pets"), datasets.list_path("pets")):
        path.unlink()
    hint = "or register it with `sepablate new dataset`, or remove the scale"
    with pytest.raises(UserError, match=rf"params\.yaml: scales\.pets\.dataset: 'pets': .*{hint}"):
        scales.load("pets")
    assert refused(sepablate(small, *command, "--add-scale"), "leave out --add-scale to keep it")
    again = sepablate(small, *command)
    assert again.returncode == 0, again.stderr
    assert "Its scale is in params.yaml already" in again.stdout
    assert "Add this to the scales" not in again.stdout
    assert scales.load("pets")[0].dataset == "pets"


def test_params_that_are_written_otherwise_are_refused_with_the_block(small: Path) -> None:
    made = register(class_folders(Path("pets")))
    values = new_scale.propose("smoke", "pets", made.registered)
    params = yaml.safe_load(layout.PARAMS.read_text())
    layout.PARAMS.write_text(yaml.safe_dump(params, default_flow_style=True))
    with pytest.raises(UserError, match=r"not written like the project's: add by hand: .*pets:"):
        new_scale.add("pets", values)
    layout.PARAMS.write_text(yaml.safe_dump(params, indent=4))
    layout.PARAMS.write_text(new_scale.add("pets", values))
    assert scales.load("pets")[0].dataset == "pets"


def test_run_keys_follow_the_images_and_no_other_data_set(small: Path) -> None:
    for module in data.DATASETS.values():
        assert "data/registered_images.py" not in module.SOURCES
    made = register(class_folders(Path("pets")))
    content = json.loads(datasets.path("pets").read_text())
    assert content["digest"] == made.registered.digest == data.digest("pets")
