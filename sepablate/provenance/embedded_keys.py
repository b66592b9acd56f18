"""The run keys that tables and figures name."""

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image

from sepablate.errors import UserError
from sepablate.store.files import read_text

Keys = dict[str, dict[int, str]]  # variant -> seed -> run key
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"


def read_run_keys(path: Path) -> Keys:
    """Return the runs that a table.csv, a .png or an .svg shows; UserError if it names none."""
    if not path.is_file():
        raise UserError(f"{path}: missing")
    readers = {".csv": _read_table, ".png": _read_png, ".svg": _read_svg}
    keys = {}
    for words in (entry.split() for entry in readers[path.suffix](path).split(";")):
        pairs = [pair.partition(":") for pair in words[1:]]
        if not all(seed.isdecimal() and key for seed, _, key in pairs):
            raise UserError(f"{path}: run keys cannot be read")
        if pairs:
            keys[words[0]] = {int(seed): key for seed, _, key in pairs}
    if not keys:
        raise UserError(f"{path}: names no run keys")
    return keys


def _read_table(path: Path) -> str:
    try:
        lines = csv.DictReader(io.StringIO(read_text(path), newline=""))
        rows = [(row.get("variant"), row.get("run_keys")) for row in lines]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV table: {error}") from None
    return ";".join(f"{variant} {keys}" for variant, keys in rows if variant and keys)


def _read_png(path: Path) -> str:
    """Return the text chunk "Description"."""
    try:
        with Image.open(path) as image:
            return str(image.info.get("Description", ""))
    except (OSError, SyntaxError) as error:  # Pillow's for a broken chunk
        raise UserError(f"{path}: not a PNG image: {error}") from None


def _read_svg(path: Path) -> str:
    """Return the element dc:description of the metadata."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: encodings
        raise UserError(f"{path}: not an SVG image: {error}") from None
    return root.findtext(f".//{DESCRIPTION}") or ""
