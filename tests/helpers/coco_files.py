"""A few images in COCO's layout."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

KINDS = [number for number in range(1, 91) if number % 9]  # 80 of 90 ids, as COCO has them


def annotation(image: int, box: list[Any], kind: int = 1, crowd: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd}


def lists(sizes: list[tuple[int, int]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of a list of images with these sizes, whose ids count from 1."""
    images = [
        {"id": index, "file_name": f"{index:012}.jpg", "width": width, "height": height}
        for index, (width, height) in enumerate(sizes, start=1)
    ]
    kinds = [{"id": number, "name": f"kind {number}"} for number in KINDS]
    return {"images": images, "annotations": annotations, "categories": kinds}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Write a list and its images, grey with a brighter rectangle for each box; return the list."""
    path = folder / "coco/annotations" / f"instances_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    (folder / "coco" / name).mkdir(exist_ok=True)
    for image in content["images"]:
        picture = Image.new("RGB", (image["width"], image["height"]), (60, 60, 60))
        for entry in content["annotations"]:
            if entry["image_id"] == image["id"]:
                left, top, width, height = (int(number) for number in entry["bbox"])
                picture.paste((200, 180, 40), (left, top, left + width, top + height))
        picture.save(folder / "coco" / name / image["file_name"])
    return path


def write_both(folder: Path, train: int = 12, test: int = 4) -> None:
    """Write lists of so many images of 80 x 60 pixels with a box each."""
    for name, count in (("train2017", train), ("val2017", test)):
        boxes = [
            annotation(index, [5 * (index % 4), 10, 30, 20], KINDS[index % 3])
            for index in range(1, count + 1)
        ]
        write(folder, name, lists([(80, 60)] * count, boxes))
