"""The options of a command that works on a store: which one is meant."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

from index.errors import ConfigError
from index.stores.address import (
    FILE_VARIABLE,
    NAMESPACE,
    NAMESPACE_VARIABLE,
    URL_VARIABLE,
    address_from,
    namespace_from,
)


class Meant(NamedTuple):
    """The store that is meant.

    url   of Redis; None: the store is a file or folder among the bundles
    """

    url: str | None
    bundles: Path
    namespace: str


def add_store_options(parser: argparse.ArgumentParser, what: str, where: str) -> None:
    """Describe `--redis`, `--bundles` and `--namespace`.

    what   the store holds, as in "the maps"
    where  that is among the bundles, as in "the maps lie in clusters/"
    """
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--redis",
        metavar="URL",
        help=f"the Redis that holds {what}; without --redis and --bundles {URL_VARIABLE} is "
        f"taken, which no list of processes shows, or the file that {FILE_VARIABLE} names",
    )
    place.add_argument(
        "--bundles",
        type=Path,
        metavar="BUNDLES",
        help=f"the folder of bundles, where no Redis is used; {where}",
    )
    parser.add_argument(
        "--namespace",
        metavar="NAME",
        help=f"what the keys in Redis begin with (default: {NAMESPACE_VARIABLE}, or else "
        f"{NAMESPACE})",
    )


def store_meant(parsed: argparse.Namespace, what: str) -> Meant:
    """Read these options, and the environment where they leave it open.

    Raises ConfigError if neither says where the store is.
    """
    url = parsed.redis or (None if parsed.bundles else address_from(os.environ))
    if not url and not parsed.bundles:
        raise ConfigError(
            f"{what}: found no address of a store, expected --redis URL, --bundles DIR or "
            f"{URL_VARIABLE} (or {FILE_VARIABLE}); give one of them"
        )
    namespace = parsed.namespace or namespace_from(os.environ)
    return Meant(url, parsed.bundles or Path(), namespace)
