"""What several commands are told alike: the configuration, and the store of cluster maps."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from index.cluster_store import ClusterStore, open_cluster_store

if TYPE_CHECKING:
    from trainer.config import RunConfig

REDIS_URL = "ESANS_REDIS_URL"
FOLDER = "clusters"  # among the bundles, where there is no Redis


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
        help=f"the store of cluster maps; default: {REDIS_URL}, which no list of processes "
        f"shows; without either, the folder {FOLDER} among the bundles",
    )
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        default="esans",
        help="what the keys in Redis begin with (esans)",
    )


def config_of(parsed: argparse.Namespace) -> "RunConfig":
    """Read the configuration asked for, the seed overridden where one was given."""
    from trainer.config import check_config, read_config

    config = read_config(parsed.config) if parsed.config else check_config({}, "defaults")
    if parsed.seed is None:
        return config
    return check_config(config.model_dump(mode="json") | {"seed": parsed.seed}, "--seed")


def url_of(parsed: argparse.Namespace) -> str | None:
    """Return the address of Redis: the option's, else the environment's, if any."""
    return parsed.redis or os.environ.get(REDIS_URL) or None


def open_store(url: str | None, bundles: Path, parsed: argparse.Namespace) -> ClusterStore:
    """Return the store in Redis where there is an address, else the one among the bundles.

    Nothing is connected yet. Raises ConfigError if the address is none.
    """
    return open_cluster_store(url, bundles / FOLDER, parsed.namespace)
