"""The options of every command, and what is opened by them. It imports nothing that is slow."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from index.cluster_map_registry import FOLDER, ClusterMapRegistry, open_cluster_maps
from index.storage.address import (
    FILE_VARIABLE,
    NAMESPACE_VARIABLE,
    URL_VARIABLE,
    address_from,
    namespace_from,
)

if TYPE_CHECKING:
    from trainer.config import RunConfig

ABOUT_RUN = """\
Train on a dataset folder, measure what was trained, publish it and make it current.

DIR holds interactions.parquet or .csv (user_id, item_id, and timestamp or seq_pos where known)
and items.parquet (item_id, any attributes, features as list columns) with features_NAME.npy
beside it, one row per item. See the README for the whole list.

A killed run goes on where it was: give the same command again.

A run whose sampler draws from a cluster map publishes it to the store, too. With --follow it
draws from the map that is current there, and swaps to a new one between two steps; the manifest
tells every map and its first step. Trouble with the store is told, and stops nothing.

examples:
  python -m trainer run --data shop/ --bundles bundles/
  ESANS_REDIS_URL=redis://cache:6379/0 python -m trainer run --data shop/ --bundles bundles/ \\
      --config esans.toml --follow"""
ABOUT_CLUSTERS = """\
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
ABOUT_REPORT = """\
Draw a published run as one HTML file that needs no network.

example: python -m trainer report --bundles bundles/"""


def add_run(parser: argparse.ArgumentParser) -> None:
    """Describe the options of `run`."""
    parser.description = ABOUT_RUN
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the dataset")
    add_config(parser)
    parser.add_argument(
        "--bundles", type=Path, required=True, metavar="DIR", help="where bundles are published"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="make it current even where popularity measures better",
    )
    parser.add_argument(
        "--skip",
        choices=("never", "if-any", "if-same"),
        default="never",
        help="do nothing where a bundle is current (if-any), or one made from the same data "
        "and configuration (if-same); default: never",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="draw negatives from the store's current cluster map, swapped between two steps",
    )
    add_store(parser)


def add_clusters(parser: argparse.ArgumentParser) -> None:
    """Describe the options of `clusters`."""
    parser.description = ABOUT_CLUSTERS
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


def add_report(parser: argparse.ArgumentParser) -> None:
    """Describe the options of `report`."""
    parser.description = ABOUT_REPORT
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


def add_config(parser: argparse.ArgumentParser) -> None:
    """Describe what `config_of` reads."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML; see `python -m trainer config`"
    )
    parser.add_argument("--seed", type=int, metavar="SEED", help="overrides the file's seed")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Describe where the store of cluster maps is."""
    parser.add_argument(
        "--redis",
        metavar="URL",
        help=f"the store of cluster maps; default: {URL_VARIABLE}, which no list of processes "
        f"shows, or the file that {FILE_VARIABLE} names; without any, the folder {FOLDER} "
        "among the bundles",
    )
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        default=namespace_from(os.environ),
        help=f"what the keys in Redis begin with; default: {NAMESPACE_VARIABLE}, else esans",
    )


def config_of(parsed: argparse.Namespace) -> "RunConfig":
    """Read the configuration asked for, the seed overridden where one was given."""
    from trainer.config import check_config, read_config

    config = read_config(parsed.config) if parsed.config else check_config({}, "defaults")
    if parsed.seed is None:
        return config
    return check_config(config.model_dump(mode="json") | {"seed": parsed.seed}, "--seed")


def url_of(parsed: argparse.Namespace) -> str | None:
    """Return the address of Redis: the option's, else the environment's, if any.

    Raises ConfigError if what the environment says cannot be used.
    """
    return parsed.redis or address_from(os.environ)


def open_store(url: str | None, bundles: Path, parsed: argparse.Namespace) -> ClusterMapRegistry:
    """Return the store in Redis where there is an address, else the one among the bundles.

    Nothing is connected yet. Raises ConfigError if the address is none.
    """
    return open_cluster_maps(url, bundles / FOLDER, parsed.namespace)
