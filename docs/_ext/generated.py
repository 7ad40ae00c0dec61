"""Sphinx extension: replace `<!-- generated: NAME -->` in a page by what the code says.

References and the figure are rendered at build time, so they cannot differ from the code.
"""

import re
from collections.abc import Callable

import cluster_map
import config_reference
import http_reference
from sphinx.application import Sphinx

MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.M)
GENERATORS: dict[str, Callable[[], str]] = {
    "service-settings": config_reference.service_settings,
    "run-configuration": config_reference.run_configuration,
    "http-operations": http_reference.operations,
    "http-schemas": http_reference.schemas,
    "cluster-map-figure": cluster_map.figure,
}


def expand(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Replace every marker of a page; an unknown name is an error."""
    source[0] = MARKER.sub(lambda match: GENERATORS[match[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", expand)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
