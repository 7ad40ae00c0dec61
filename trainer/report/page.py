"""Render a report as one HTML file that loads nothing from anywhere.

The script that draws is in the file, and the file forbids the browser to fetch. Templates
escape whatever comes from data. Plotly draws, not matplotlib: a person hovers over a dot to
read an item's title, and zooms; its script costs 5 MB a file.
"""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from index.bundle.manifest import MANIFEST
from index.errors import ConfigError

CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    "showSendToCloud": False,  # else a button that uploads what is drawn
}


def render_page(template: Path, **values: Any) -> str:  # noqa: ANN401  # of any template
    """Render a template that extends `page.html.j2`."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(html_of=html_of, is_number=is_number, spelled=spelled)
    page: str = environment.get_template(template.name).render(script=get_plotlyjs(), **values)
    return page


def html_of(figure: go.Figure, name: str) -> Markup:
    """Render a figure; its name is unique within the page: letters, digits, dashes."""
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config=dict(CONFIG), div_id=f"figure-{name}"
    )
    return Markup(html)  # plotly's own; its texts are escaped by `plain`


def is_number(value: object) -> bool:
    """Return whether a value stands to the right in a table."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def spelled(value: object) -> str:
    """Spell a value for a person: four digits for a share, commas in a count, - for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def validate_place(out: Path) -> None:
    """Raise ConfigError where the report would be in a bundle, or replace a folder."""
    place = out.resolve()
    bundle = next((one for one in place.parents if (one / MANIFEST).is_file()), None)
    if bundle is not None:
        raise ConfigError(
            f"--out {out}: lies in the bundle {bundle}, which is never written into again; "
            "name a file outside of it"
        )
    if place.is_dir():
        raise ConfigError(f"--out {out}: is a folder, expected a file to write")


def write_page(text: str, out: Path) -> None:
    """Write the file, and the folders above it; raises ConfigError where that fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror}); name another file"
        ) from error
