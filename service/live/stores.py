"""The stores that the settings mean; nothing is connected or written yet."""

from collections.abc import Callable
from typing import TypeVar

from index.clusters.store import ClusterStore
from index.deny.folder_store import FolderDeny
from index.deny.follower import DenyFollower
from index.deny.store import FILE, DenyStore, open_deny_store
from index.errors import ConfigError
from index.stores.address import FOLDER, open_cluster_store
from service.settings import Secrets, Settings

Store = TypeVar("Store")


def open_clusters(settings: Settings, secrets: Secrets) -> ClusterStore:
    """Return the store of cluster maps; raises ConfigError if the address of Redis is none."""
    url, folder = secrets.redis_url or None, settings.bundles / FOLDER
    return _opened(lambda: open_cluster_store(url, folder, settings.namespace))


def open_deny(settings: Settings, secrets: Secrets) -> DenyStore:
    """Return the store of the deny list; raises ConfigError if the address of Redis is none."""
    url, file = secrets.redis_url or None, settings.bundles / FILE
    return _opened(lambda: open_deny_store(url, file, settings.namespace))


def deny_follower(settings: Settings, secrets: Secrets) -> DenyFollower:
    """Return who follows the deny list; Redis forgets, so its list is kept in copies, too."""
    copies = [settings.bundles / FILE] if secrets.redis_url else []
    copies += [settings.deny_copy] if settings.deny_copy else []
    return DenyFollower(
        open_deny(settings, secrets),
        [FolderDeny(file) for file in copies],
        poll_s=settings.poll_s,
    )


def _opened(store: Callable[[], Store]) -> Store:
    try:
        return store()
    except ConfigError as error:
        raise ConfigError(f"ESANS_REDIS_URL: {error}") from error
