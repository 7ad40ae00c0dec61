"""The stores that the settings mean; nothing is connected or written yet."""

from collections.abc import Iterator
from contextlib import contextmanager

from index.cluster_map_registry import FOLDER, ClusterMapRegistry, open_cluster_maps
from index.denylist import (
    FILE,
    DenylistStore,
    DenylistWatcher,
    local_denylist,
    open_denylist,
)
from index.errors import ConfigError
from service.settings import Secrets, Settings


def open_clusters(settings: Settings, secrets: Secrets) -> ClusterMapRegistry:
    """Return the cluster maps; raises ConfigError if the address of Redis is invalid."""
    with _naming_the_setting():
        return open_cluster_maps(secrets.redis_url, settings.bundles / FOLDER, settings.namespace)


def open_deny(settings: Settings, secrets: Secrets) -> DenylistStore:
    """Return the denylist; raises ConfigError if the address of Redis is invalid."""
    with _naming_the_setting():
        return open_denylist(secrets.redis_url, settings.bundles / FILE, settings.namespace)


def deny_watcher(settings: Settings, secrets: Secrets) -> DenylistWatcher:
    """Return the denylist's watcher; Redis forgets, so its list is kept in copies, too."""
    copies = [settings.bundles / FILE] if secrets.redis_url else []
    copies += [settings.deny_copy] if settings.deny_copy else []
    return DenylistWatcher(
        open_deny(settings, secrets),
        [local_denylist(file) for file in copies],
        poll_s=settings.poll_s,
    )


@contextmanager
def _naming_the_setting() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"ESANS_REDIS_URL: {error}") from error
