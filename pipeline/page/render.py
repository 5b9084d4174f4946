"""Facts -> one HTML file that needs nothing else, and a model card in Markdown."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.page.facts import Facts, Picture, png_size
from pipeline.report.tables import write_bytes

TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, facts: Facts) -> None:
    """Write the page; pictures lie in it.

    Raises:
        DataError: It cannot be written.
    """
    environment = _environment(autoescape=True)
    environment.filters["inline"] = _inline
    write_bytes(path, _rendered(environment, "page.html", facts))


def write_card(path: Path, facts: Facts) -> None:
    """Write the model card; its head is YAML that the model hubs read.

    Raises:
        DataError: It cannot be written.
    """
    environment = _environment(autoescape=False)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    write_bytes(path, _rendered(environment, "card.md", facts))


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = number
    return environment


def _rendered(environment: Environment, template: str, facts: Facts) -> bytes:
    return environment.get_template(template).render(facts=facts).encode()


def number(value: Any, digits: int = 6) -> str:  # noqa: ANN401
    """A number for people: 1,234.5."""
    return f"{value:,.{digits}g}"


def _inline(picture: Picture) -> dict[str, str | int]:
    """Attributes of the picture's element: its bytes as a data URI, and its size."""
    width, height = png_size(picture.path)
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    return {"src": f"data:image/png;base64,{data}", "width": width, "height": height}
