"""Contact sheet of a street: sample crops of its people and of the tracker's errors."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cion_jax.samples import SampleTable
from cion_jax.street.plan import Shot
from cion_jax.street.tracker import NOBODY

_COLUMNS, _CROP_HEIGHT, _TITLE_HEIGHT, _GAP = 20, 96, 22, 4
_PLAIN, _OTHER_PERSON, _NOBODY = "", "#ff2020", "#ffd000"
Cell = tuple[Path, str]  # a crop and the colour of its border
Section = tuple[str, list[list[Cell]]]


def write_contact_sheet(
    path: Path, folder: Path, labelled: SampleTable, crawl: SampleTable, benchmark: list[Shot]
) -> None:
    """Writes a PNG with sample people of every population of the street in `folder`."""
    sections = [
        ("Labelled people, each in several cameras", _labelled_rows(folder / "labelled", labelled)),
        (
            "Tracklets of the crawl: red = switched to another person, yellow = nobody",
            _tracklet_rows(folder, crawl),
        ),
        (
            "The crawl's people, one crop from each of their tracklets",
            _sighting_rows(folder / "crawl", crawl),
        ),
        (
            "Benchmark: the query left, the same person in the gallery's other cameras",
            _benchmark_rows(folder, benchmark),
        ),
    ]
    _draw(sections).save(path)


def _labelled_rows(root: Path, table: SampleTable, rows: int = 5) -> list[list[Cell]]:
    files, identities = table["file_path"], table["identity"]
    return [_plain(root, files[identities == person]) for person in _first(identities, rows)]


def _tracklet_rows(folder: Path, table: SampleTable) -> list[list[Cell]]:
    """Selects a few tracklets of each kind: with an identity switch, with a slipped box, ghosts, clean."""
    people, tracklets = table["person"], table.tracklets
    kinds: dict[str, list[np.ndarray]] = {"switched": [], "slipped": [], "ghost": [], "clean": []}
    for rows in np.split(np.arange(len(table)), np.flatnonzero(np.diff(tracklets)) + 1):
        seen = set(people[rows].tolist())
        somebody = len(seen - {NOBODY})
        kind = ("ghost", "slipped" if NOBODY in seen else "clean", "switched")[min(somebody, 2)]
        kinds[kind].append(rows)
    chosen = kinds["switched"][:3] + kinds["slipped"][:2] + kinds["ghost"][:1] + kinds["clean"][:1]
    return [_marked(folder / "crawl", table["file_path"][rows], people[rows]) for rows in chosen]


def _sighting_rows(root: Path, table: SampleTable, rows: int = 5) -> list[list[Cell]]:
    people = table["person"]
    pairs = np.stack([people, table.tracklets], 1)
    _, first = np.unique(pairs, axis=0, return_index=True)
    files, people = table["file_path"][np.sort(first)], people[np.sort(first)]
    return [_plain(root, files[people == person]) for person in _first(people[people != NOBODY], rows)]


def _benchmark_rows(folder: Path, shots: list[Shot], rows: int = 4) -> list[list[Cell]]:
    root, cells = folder / "benchmark", []
    for person in _first([shot.person for shot in shots], rows):
        first, *others = [shot for shot in shots if shot.person == person]
        matches = [file for shot in others for file in shot.files if not file.startswith("query")]
        cells.append(_plain(root, [first.files[0], *matches]))
    return cells


def _first(values: Iterable, count: int) -> list:
    return list(dict.fromkeys(values))[:count]


def _plain(root: Path, files: Iterable[str]) -> list[Cell]:
    return [(root / file, _PLAIN) for file in files]


def _marked(root: Path, files: np.ndarray, people: np.ndarray) -> list[Cell]:
    somebody = people[people != NOBODY]
    colours = {NOBODY: _NOBODY} | ({int(somebody[0]): _PLAIN} if len(somebody) else {})
    return [(root / file, colours.get(int(person), _OTHER_PERSON)) for file, person in zip(files, people)]


def _draw(sections: list[Section]) -> Image.Image:
    with Image.open(sections[0][1][0][0][0]) as crop:
        width = round(_CROP_HEIGHT * crop.width / crop.height)
    rows = sum(len(section_rows) for _, section_rows in sections)
    size = _COLUMNS * (width + _GAP) + _GAP, rows * (_CROP_HEIGHT + _GAP) + len(sections) * _TITLE_HEIGHT
    sheet = Image.new("RGB", size, "#202020")
    draw, y = ImageDraw.Draw(sheet), 0
    for title, section_rows in sections:
        draw.text((_GAP, y + 4), title, fill="#ffffff", font_size=13)
        y += _TITLE_HEIGHT
        for row in section_rows:
            for column, (file, mark) in enumerate(row[:_COLUMNS]):
                x = _GAP + column * (width + _GAP)
                if mark:
                    draw.rectangle((x - 3, y - 3, x + width + 2, y + _CROP_HEIGHT + 2), fill=mark)
                with Image.open(file) as crop:
                    sheet.paste(crop.resize((width, _CROP_HEIGHT), Image.Resampling.LANCZOS), (x, y))
            y += _CROP_HEIGHT + _GAP
    return sheet
