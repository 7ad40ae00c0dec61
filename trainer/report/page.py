"""Render a report as one self-contained HTML file.

The file embeds the plotly script (5 MB), and its content security policy forbids the browser to
load anything. Templates escape all data. Plotly instead of matplotlib, for hover texts and zoom.
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
    "showSendToCloud": False,  # hides a button that uploads the figure
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
    environment.globals.update(
        render_figure=render_figure, is_number=is_number, format_cell=format_cell
    )
    page: str = environment.get_template(template.name).render(script=get_plotlyjs(), **values)
    return page


def render_figure(figure: go.Figure, name: str) -> Markup:
    """Render a figure as HTML; `name` is unique in the page: letters, digits, dashes."""
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config=dict(CONFIG), div_id=f"figure-{name}"
    )
    return Markup(html)  # made by plotly from texts that `escape_text` escaped


def is_number(value: object) -> bool:
    """Return whether a table cell is right-aligned: a number or None."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def format_cell(value: object) -> str:
    """Format a table cell: four decimals for floats, thousands separators, "-" for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def validate_output_path(out: Path) -> None:
    """Raise ConfigError if the path is inside a bundle or is a folder."""
    path = out.resolve()
    bundle = next((folder for folder in path.parents if (folder / MANIFEST).is_file()), None)
    if bundle is not None:
        raise ConfigError(
            f"--out {out}: is inside the bundle {bundle}, which is immutable; "
            "name a file outside of it"
        )
    if path.is_dir():
        raise ConfigError(f"--out {out}: is a folder, expected a file; name a file to write")


def write_page(text: str, out: Path) -> None:
    """Write the file and create its folders; raises ConfigError if that fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror}); name another file"
        ) from error
