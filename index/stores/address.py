"""Which store of cluster maps is meant: by an address, by a folder, by an environment."""

import re
from collections.abc import Mapping
from pathlib import Path

from index.clusters.folder_store import FolderClusters
from index.clusters.redis_store import RedisClusters
from index.clusters.store import ClusterStore
from index.errors import ConfigError
from index.stores.secret_file import secret_in

URL_VARIABLE = "ESANS_REDIS_URL"
FILE_VARIABLE = "ESANS_REDIS_URL_FILE"
NAMESPACE_VARIABLE = "ESANS_NAMESPACE"
VARIABLES = (URL_VARIABLE, FILE_VARIABLE, NAMESPACE_VARIABLE)
LIKE = ("ESANS_REDIS", "ESANS_NAME")  # whatever begins so and is none of these is misspelt
INJECTED = re.compile(r"ESANS_REDIS_(SERVICE_|PORT(_|$))")  # by a cluster, for `esans-redis`
NAMESPACE = "esans"
FOLDER = "clusters"  # of the maps, among the bundles, where there is no Redis


def open_cluster_store(
    url: str | None, folder: Path, namespace: str = NAMESPACE
) -> ClusterStore:
    """Return the store in Redis where there is an address, else the one in a folder.

    Nothing is connected or written yet. Raises ConfigError if the address is none.
    """
    return RedisClusters(url, namespace) if url else FolderClusters(folder)


def address_from(environment: Mapping[str, str]) -> str | None:
    """Return the address of Redis, or what the file named instead of it holds; None: neither.

    Raises ConfigError if both are set, the file cannot be read or is empty, or a variable is
    misspelt: a store beside the one that is meant would be taken in silence.
    """
    misspelt = sorted(
        name
        for name in environment
        if name.startswith(LIKE) and name not in VARIABLES and not INJECTED.match(name)
    )
    if misspelt:
        raise ConfigError(
            f"{', '.join(misspelt)}: not known, expected {', '.join(VARIABLES)}; correct the "
            "name"
        )
    url = environment.get(URL_VARIABLE, "").strip()
    file = environment.get(FILE_VARIABLE, "")
    if url and file:
        raise ConfigError(
            f"{URL_VARIABLE} and {FILE_VARIABLE}: both are set, expected one; remove the other"
        )
    return secret_in(Path(file), FILE_VARIABLE) if file else url or None


def namespace_from(environment: Mapping[str, str]) -> str:
    """Return what the keys in Redis begin with."""
    return environment.get(NAMESPACE_VARIABLE) or NAMESPACE
