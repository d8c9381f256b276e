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
    """A headline number with its unit, its label and the values that are good."""

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
    """Header of a column: name, unit, and the values that are good."""

    name: str
    unit: str = ""
    good: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of a row is its header. `folded` tables are collapsed at first."""

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Share:
    """A bar: its name, length (0 to 1), and value as text."""

    name: str
    share: float
    text: str


@dataclass(frozen=True)
class Bars:
    """A vertical list of bars."""

    kind: ClassVar = "bars"
    caption: str
    bars: Sequence[Share]


@dataclass(frozen=True)
class Picture:
    """An image as data URI, with alternative text for screen readers."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Charts, as many side by side as fit the screen."""

    kind: ClassVar = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Crop(Picture):
    """A picture of a person; `mark` is "right", "wrong", "query" or empty."""

    mark: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of related crops, and others to compare with; `mark` applies to the title, as for crops."""

    title: str
    crops: Sequence[Crop]
    mark: str = ""
    others: Sequence[Crop] = ()


@dataclass(frozen=True)
class Strips:
    """A vertical list of strips."""

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
    """A report; `left_out` has (title, reason) of each section that could not be made."""

    title: str
    made: str
    sections: Sequence[Section]
    left_out: Sequence[tuple[str, str]] = field(default=())


def render(page: Page) -> str:
    """Renders the page as HTML. All text is escaped, since file names and labels come from the user."""
    loader = PackageLoader("cion_jax.reporting", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(page=page)
