"""A picture of a street: who is in it, and what the tracker got wrong."""

from pathlib import Path

from cion_jax.street.plan import Shot


def write_contact_sheet(
    path: Path, folder: Path, labelled: list[Shot], crawl: list[Shot], benchmark: list[Shot]
) -> None:
    from PIL import Image, ImageDraw
    import random

    r = random.Random(0)
    rows = []

    def strip(shots, pop):
        return [folder / pop / f for s in shots for f in s.files][:24]

    for p in range(8):
        rows.append(strip([s for s in labelled if s.person == p], "labelled"))
    for i in range(8):
        rows.append(strip([s for s in crawl if s.person == i][:6], "crawl"))
    for p in range(4):
        rows.append(strip([s for s in benchmark if s.person == p], "benchmark"))
    rows.append(strip([s for s in crawl if s.person == -1], "crawl"))
    sheet = Image.new("RGB", (24 * 64, len(rows) * 128))
    for y, row in enumerate(rows):
        for x, f in enumerate(row):
            sheet.paste(Image.open(f), (x * 64, y * 128))
    sheet.save(path)
