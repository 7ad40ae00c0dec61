"""Sphinx configuration of the documentation site: `make docs` builds it into build/docs."""

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS / "_ext"), str(DOCS / "figures")]

project = "esans"
author = "the esans authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "generated"]
exclude_patterns = ["_ext", "figures", "observability"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 4
suppress_warnings: list[str] = []

html_theme = "furo"
html_title = f"esans {release}"
html_show_sphinx = False
html_show_copyright = False
