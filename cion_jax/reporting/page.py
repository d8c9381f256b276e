"""The blocks of a report page, and their rendering as one self-contained HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar = "text"
    text: str


@dataclass(frozen=True)
class Warnings:
    """Caveats about the results, one per line."""

    kind: ClassVar = "warnings"
    lines: Sequence[str]


@dataclass(frozen=True)
class Number:
    """A headline number with its unit, what it is of and which values are good."""

    value: str
    label: str
    good: str


@dataclass(frozen=True)
class Numbers:
    """Headline numbers side by side."""

    kind: ClassVar = "numbers"
    numbers: Sequence[Number]


@dataclass(frozen=True)
class Column:
    """Head of a column: name, unit of its numbers, and which values are good."""

    name: str
    unit: str = ""
    good: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text, the first of each row its name. `folded` tables open on demand."""

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Share:
    """A bar: what it is of, how long (0 to 1), and the number in words."""

    name: str
    share: float
    text: str


@dataclass(frozen=True)
class Bars:
    """Bars below each other."""

    kind: ClassVar = "bars"
    caption: str
    bars: Sequence[Share]


@dataclass(frozen=True)
class Picture:
    """An image as data URI; `alt` says what it shows to those who do not see it."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Charts, as many side by side as the screen is wide."""

    kind: ClassVar = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Crop(Picture):
    """A picture of a person; `mark` is "right", "wrong", "query" or none."""

    mark: str = ""


@dataclass(frozen=True)
class Strip:
    """Crops that belong together, and others that they are held against; the title may be marked as crops are."""

    title: str
    crops: Sequence[Crop]
    mark: str = ""
    others: Sequence[Crop] = ()


@dataclass(frozen=True)
class Strips:
    """Strips below each other."""

    kind: ClassVar = "strips"
    caption: str
    strips: Sequence[Strip]


Block = Text | Warnings | Numbers | Table | Bars | Pictures | Strips


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The section's id in links."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Page:
    """A report. `left_out`: (title, reason) of the sections that could not be made."""

    title: str
    made: str
    sections: Sequence[Section]
    left_out: Sequence[tuple[str, str]] = field(default=())


def render(page: Page) -> str:
    """The page as HTML. Whatever text holds is shown as text: file names and labels are the user's."""
    loader = PackageLoader("cion_jax.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(page=page)
