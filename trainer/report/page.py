"""The frame of a report: sections, tables and drawings become one HTML file.

Nothing is loaded from anywhere: the script that draws is in the file, and the file forbids the
browser to fetch. Whatever comes from data is escaped here. Plotly draws, not matplotlib: a
person hovers over a dot to read an item's title, and zooms; its script costs 5 MB a file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    "showSendToCloud": False,  # else a button that uploads what is drawn
}
STYLE = """
body { margin: 0 auto; max-width: 1120px; padding: 24px 32px 64px; background: #fff;
  color: #1f2933; font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 28px; line-height: 1.25; margin: 8px 0 4px; }
h2 { font-size: 21px; margin: 44px 0 8px; padding-top: 14px; border-top: 1px solid #d9e0e7; }
h3 { font-size: 17px; margin: 26px 0 4px; }
p { margin: 6px 0 10px; max-width: 84ch; }
.lead, .caption { color: #52606d; }
.missing { background: #fff7e6; border-left: 4px solid #e0a030; padding: 8px 12px; }
nav ul { margin: 14px 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: 4px 20px; }
a { color: #1f5fbf; text-decoration: none; } a:hover { text-decoration: underline; }
table { border-collapse: collapse; margin: 10px 0 18px; font-size: 15px; }
th, td { padding: 4px 14px 4px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e8edf2; overflow-wrap: anywhere; }
thead th { color: #52606d; font-weight: 600; border-bottom: 2px solid #d9e0e7; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, as HTML."""

    title: str
    parts: Sequence[str]


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the whole file."""
    anchors = [anchor_of(place, one.title) for place, one in enumerate(sections, 1)]
    contents = "".join(
        f'<li><a href="#{anchor}">{escape(one.title)}</a></li>'
        for anchor, one in zip(anchors, sections, strict=True)
    )
    body = "\n".join(
        f'<section><h2 id="{anchor}">{escape(one.title)}</h2>\n{"".join(one.parts)}</section>'
        for anchor, one in zip(anchors, sections, strict=True)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<nav><ul>{contents}</ul></nav>
{body}
</body>
</html>
"""


def anchor_of(place: int, title: str) -> str:
    """Return the name that the table of contents points to; its place keeps it unique."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f"{place}-{words}"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def missing(text: str) -> str:
    """Return a paragraph that says what is not here, and why."""
    return f'<p class="missing">{escape(text)}</p>'


def drawing(figure: go.Figure, name: str, caption: str) -> str:
    """Return a figure with a sentence on what it shows and where its numbers come from.

    name  unique within the page: letters, digits, dashes
    """
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config=dict(CONFIG), div_id=f"figure-{name}"
    )
    return f'<p class="caption">{escape(caption)}</p>\n{html}'


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers, and texts that are spelled numbers, stand to the right."""
    top = "".join(
        f"<th{_kind([row[place] for row in rows])}>{escape(one)}</th>"
        for place, one in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_kind([one])}>{escape(spelled(one))}</td>" for one in row)
        + "</tr>"
        for row in rows
    )
    first = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f"<table>{first}<tbody>{body}</tbody></table>"


def spelled(value: object) -> str:
    """Spell a value for a person: four digits for a share, commas in a count, - for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _kind(values: Sequence[object]) -> str:
    """Return the class of a cell, or of a column's head."""
    known = [one for one in values if one is not None]
    is_number = known and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in known
    )
    return ' class="number"' if is_number or not known else ""
