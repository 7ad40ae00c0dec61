"""What several commands are told alike: the configuration, and the store of cluster maps."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from index.clusters.store import ClusterStore
from index.stores.address import (
    FILE_VARIABLE,
    FOLDER,
    NAMESPACE_VARIABLE,
    URL_VARIABLE,
    address_from,
    namespace_from,
    open_cluster_store,
)

if TYPE_CHECKING:
    from trainer.config import RunConfig


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


def open_store(url: str | None, bundles: Path, parsed: argparse.Namespace) -> ClusterStore:
    """Return the store in Redis where there is an address, else the one among the bundles.

    Nothing is connected yet. Raises ConfigError if the address is none.
    """
    return open_cluster_store(url, bundles / FOLDER, parsed.namespace)
