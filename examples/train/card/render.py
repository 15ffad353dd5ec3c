"""Write the files of a card: card.md with its pictures, and card.html with everything inside."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from examples.train.card.content import Card, Spread
from examples.train.card.differences import Paired
from examples.train.files import write_whole

TEMPLATES = Path(__file__).parent / "templates"


def render(card: Card) -> dict[str, bytes]:
    """Return the content of each file by name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, number=number, points=points, data_uri=data_uri, cell=cell
    )
    files = {picture.name: picture.svg for picture in card.pictures}
    for kind in ("md", "html"):
        text = environment.get_template(f"card.{kind}.jinja").render(card=card)
        files[f"card.{kind}"] = text.encode()
    return files


def write_card(folder: Path, card: Card) -> None:
    """Write the files of a card into a folder, each whole or not at all."""
    for name, content in render(card).items():
        write_whole(folder / name, content)


def percent(value: Spread) -> str:
    """Return a figure in per cent, such as ``81.2 ± 0.4``."""
    return number(Spread(100 * value.mean, value.deviation and 100 * value.deviation), 1)


def number(value: Spread, digits: int = 2) -> str:
    """Return a figure such as ``1.25 ± 0.04``."""
    text = f"{value.mean:.{digits}f}"
    return text if value.deviation is None else f"{text} ± {value.deviation:.{digits}f}"


def points(value: Paired) -> str:
    """Return percentage points and their standard error, such as ``+1.2 ± 0.3``."""
    text = f"{100 * value.mean:+.1f}"
    return text if value.error is None else f"{text} ± {100 * value.error:.1f}"


def data_uri(svg: bytes) -> str:
    """Return a picture as a data address for an HTML image."""
    return f"data:image/svg+xml;base64,{b64encode(svg).decode()}"


def cell(text: str) -> Markup:
    """Escape text for a cell of a Markdown table."""
    return Markup(str(Markup.escape(text)).replace("|", "&#124;").replace("\n", " "))
