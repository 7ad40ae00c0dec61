"""What a person may say to `python -m trainer clusters`. It imports nothing that is slow."""

import argparse
from pathlib import Path

from trainer.options import add_config, add_store

ABOUT = """\
Make the cluster map of a dataset folder, as a run does, and describe it: sizes, perplexity,
agreement with a category column, and the items of three clusters, to judge it by.

With --publish it goes to the store that trainers and services follow, and becomes current
there, unless a pin holds another map. That is the job for a timer: the exit status is 1 where
the store was away or full, and then nothing was changed.

examples:
  python -m trainer clusters --data shop/ --category department
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer clusters --data shop/ --publish
  python -m trainer clusters --data shop/ --publish --bundles bundles/     # without Redis
  python -m trainer clusters --from map/ --publish --redis redis://cache:6379/0"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe the command and its options."""
    parser.description = ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="the dataset")
    source.add_argument(
        "--from",
        dest="saved",
        type=Path,
        metavar="FOLDER",
        help="a map that --out saved, or a bundle: published as it is, none is made",
    )
    add_config(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to save the map")
    parser.add_argument("--category", metavar="COLUMN", help="of the items, to compare with")
    parser.add_argument("--publish", action="store_true", help="into the store; see above")
    add_store(parser)
    parser.add_argument(
        "--bundles",
        type=Path,
        metavar="DIR",
        help="publish into the store among these bundles, whatever the environment says",
    )
