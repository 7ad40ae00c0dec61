"""A store of the deny list: what every store promises, and which one is meant."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from index.deny.deny_list import DenyHead, DenyList, is_lost, next_list
from index.deny.folder_store import FolderDeny
from index.deny.redis_store import RedisDeny
from index.errors import FaultyDenyListError, NoDenyListError

FILE = "deny"  # among the bundles

Read = Callable[[], DenyList | None]  # raises FaultyDenyListError where it is damaged
Plan = Callable[[Read], DenyList]


class DenyStore(Protocol):
    """One deny list, seen whole or not at all.

    All methods raise StoreUnreachableError where the store does not answer; writers
    StoreFullError and ReadOnlyStoreError, too: then nothing was changed.
    """

    @property
    def place(self) -> str:
        """Name the store for people; holds no password."""

    @property
    def forgets(self) -> bool:
        """Tell whether an empty store may have held a list a moment ago."""

    def head(self) -> DenyHead | None:
        """Read what the list says of itself, None where there is none.

        Raises FaultyDenyListError if what is there is no deny list.
        """

    def read(self) -> DenyList | None:
        """Read the list, None where there is none; raises FaultyDenyListError."""

    def change(self, plan: Plan) -> DenyList:
        """Replace the list by what a plan makes of it, unless somebody else does meanwhile.

        Whether a damaged one may be replaced is the plan's to decide: it reads.
        """

    def seed(self, held: DenyList) -> bool:
        """Put a list back where there is none, an older or a damaged one.

        Returns whether it was.
        """


def open_deny_store(url: str | None, file: Path, namespace: str) -> DenyStore:
    """Return the store in Redis where there is an address, else the file.

    Nothing is connected or written yet. Raises ConfigError if the address is none.
    """
    return RedisDeny(url, namespace) if url else FolderDeny(file)


def replace_all(store: DenyStore, ids: Iterable[str], now_s: float) -> DenyList:
    """Deny these items and no others; so a damaged list is repaired."""
    wanted = set(ids)

    def plan(read: Read) -> DenyList:
        before = None
        with suppress(FaultyDenyListError):
            before = read()
        return next_list(before, wanted, now_s)

    return store.change(plan)


def alter(
    store: DenyStore, added: Iterable[str], removed: Iterable[str], now_s: float
) -> DenyList:
    """Deny some items more, and others no longer.

    Raises NoDenyListError where there is no list, and the store may have lost one, and
    FaultyDenyListError where it is damaged: what it denied would be denied no longer.
    """
    more, fewer = set(added), set(removed)

    def plan(read: Read) -> DenyList:
        before = read()
        if before is None and store.forgets:
            raise NoDenyListError(
                f"{store.place}: holds no deny list (never set, or lost), and none "
                "is begun here, lest one be lost for good; wait for a service that holds one "
                "to put it back, or begin one with `python -m index deny set`"
            )
        ids = set(before.ids) if before else set()
        return next_list(before, (ids | more) - fewer, now_s)

    return store.change(plan)


def put_back(store: DenyStore, held: DenyList) -> bool:
    """Give a store what it has lost; return whether that was needed."""
    return is_lost(store.head(), held) and store.seed(held)
