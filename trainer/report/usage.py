"""What a person may say to `python -m trainer report`. It imports nothing that is slow."""

import argparse
from pathlib import Path

ABOUT = """\
Draw a published run as one HTML file that needs no network.

example: python -m trainer report --bundles bundles/"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    told = "where a run was published"
    parser.add_argument("--bundles", type=Path, required=True, metavar="DIR", help=told)
    parser.add_argument("--version", metavar="VERSION", help="of the bundle; default: current")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="what to write, never inside a bundle; default: %(default)s",
    )
