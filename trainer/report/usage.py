"""What a person may say to `python -m trainer report`. It imports nothing that is slow."""

import argparse
from pathlib import Path

ABOUT = """\
Draw a published run, or the folder of a comparison, as one HTML file that needs no network.

example: python -m trainer report --bundles bundles/
example: python -m trainer report --comparison results/ --out results.html"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundles", type=Path, metavar="DIR", help="where a run was published")
    source.add_argument("--comparison", type=Path, metavar="DIR", help="what `compare` made")
    parser.add_argument("--version", metavar="VERSION", help="of the bundle; default: current")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="what to write, never inside a bundle; default: %(default)s",
    )
