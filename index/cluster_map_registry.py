"""Cluster maps in a store: one is current, others wait to be rolled back to, or to expire.

What a pointer says and how it moves is decided here; that it moves together with the maps is
the blob store's.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from index.cluster_map import ClusterMap
from index.cluster_map_io import ClusterMapCard, decode_blob, encode_blob
from index.errors import ClusterStoreError, InvalidClusterMapError, NoClusterMapError
from index.storage.address import NAMESPACE, check_namespace
from index.storage.local import LocalBlobStore, Remedies
from index.storage.protocols import (
    VERSION_PATTERN,
    Blob,
    BlobInfo,
    BlobStore,
    Move,
    Notifications,
    Snapshot,
    VersionPointer,
    moved,
    newest,
)
from index.storage.redis import STAGED_S, RedisBlobStore
from index.storage.redis_client import TIMEOUT_S, RedisClient

FOLDER = "clusters"  # of the maps, among the bundles, where there is no Redis
KEEP_S = 3_600.0  # how long a superseded map stays
KEEP_COUNT = 8  # and how many maps at most
LOCAL_REMEDIES = Remedies(
    unreadable="expected a folder of cluster maps; make it readable, and writable for whoever "
    "publishes",
    full="expected room for a map; free some, or remove old maps with "
    "`python -m index clusters prune`",
    read_only="expected the right to write there; publish, or run `python -m index clusters "
    "pin | unpin | rollback | prune --bundles DIR`, where the folder may be written",
)


class ClusterPointer(VersionPointer):
    """What `current` says.

    The sequence is the time of the change in unix milliseconds, or one more than the one before
    where that is larger: so it grows on even where the store forgot everything.
    """

    version: str = Field(pattern=VERSION_PATTERN)
    previous: str | None = Field(pattern=VERSION_PATTERN)
    pinned: bool = False


@dataclass(frozen=True)
class ListedMap:
    """A line of the list of what a store holds.

    created_at       UTC, ISO 8601: when the map was made, or else when it was stored
    expires_in_s  None where it stays
    """

    version: str
    items: int
    level_1_codes: int
    created_at: str
    is_current: bool
    is_previous: bool
    expires_in_s: float | None


Step = Callable[[ClusterPointer | None], ClusterPointer]


class ClusterMapRegistry:
    """Maps by version, and a pointer to the current one.

    keep_s      seconds that a superseded map stays
    keep_count  how many of the newest maps stay at most, beside those the pointer names
    now         tells the time, in unix seconds

    All methods raise StoreUnreachableError, writers StoreFullError and ReadOnlyStoreError, too;
    then nothing was changed.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        keep_s: float = KEEP_S,
        keep_count: int = KEEP_COUNT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.blobs = blobs
        self.place = blobs.pointer.place
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._now = now

    def pointer(self) -> ClusterPointer | None:
        """Read which map is current; None where nothing was published.

        Raises InvalidClusterMapError if what is there is no pointer.
        """
        return self._parse(self.blobs.pointer.read())

    def read(self, version: str) -> ClusterMap:
        """Return a map, checked.

        Raises NoClusterMapError if it is not there, InvalidClusterMapError if it is damaged.
        """
        is_version = re.fullmatch(VERSION_PATTERN, version)
        stored = self.blobs.get(version) if is_version else None
        if stored is None:  # to list what is there would cost each poll a scan
            raise self._not_there(version, "`python -m index clusters list` tells what it holds")
        try:
            return decode_blob(stored, version, f"{self.place}, cluster map {version}")
        except InvalidClusterMapError:
            if self.blobs.get(version) is None:  # it expired meanwhile
                raise self._not_there(version, "it went while it was read") from None
            raise

    def publish(self, found: ClusterMap) -> ClusterPointer:
        """Store a map and make it current, unless a pin holds another one, which is returned.

        Then it is stored, to be pinned before it expires.
        """

        def step(before: ClusterPointer | None) -> ClusterPointer:
            if before and before.pinned and before.version != found.version:
                return before
            return self._moved(before, found.version)

        pointer = self._commit(step, encode_blob(found))
        with suppress(ClusterStoreError):  # the map is published; the next one may prune
            self.prune(self._keep_count)
        return pointer

    def repopulate(self, found: ClusterMap, pointer: ClusterPointer) -> bool:
        """Put a map and its pointer back, if the store is empty or older; return whether so."""

        def step(before: ClusterPointer | None) -> ClusterPointer:
            return before if before and not pointer.is_newer_than(before) else pointer

        if not pointer.is_newer_than(self._parse_or_none(self.blobs.pointer.read())):
            return False
        return self._commit(step, encode_blob(found)) == pointer

    def listed(self) -> list[ListedMap]:
        """Return what is stored, oldest first."""
        pointer = self._parse_or_none(self.blobs.pointer.read())
        return [_listed(info, pointer) for info in self.blobs.list_blobs()]

    def pin(self, version: str | None = None) -> ClusterPointer:
        """Hold on to a version, or to the current one, until `unpin`; makes it current."""

        return self._tend(version, lambda held: held.version, self.nothing_published(), pinned=True)

    def unpin(self) -> ClusterPointer:
        """Let the next map that is published become current again."""

        def step(before: ClusterPointer | None) -> ClusterPointer:
            if before is None:
                raise self.nothing_published()
            return self._moved(before, before.version, pinned=False) if before.pinned else before

        return self._commit(step, repairs=False)

    def roll_back(self, version: str | None = None) -> ClusterPointer:
        """Make the version before the current one current, or the one named.

        Done twice without a name it returns to where it began. A pin stays a pin.
        Raises NoClusterMapError if there is none before it, or the one named is not there.
        """
        missing = NoClusterMapError(
            f"{self.place}: there is no cluster map before the current one; name the version that "
            "shall become current (`python -m index clusters list` tells them)"
        )
        return self._tend(version, lambda held: held.previous, missing)

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest `keep_count` maps; return what was removed.

        The current map and the one before it always stay.
        """

        def choose(value: bytes | None, infos: list[BlobInfo]) -> list[str]:
            versions, pointer = [info.version for info in infos], self._parse_or_none(value)
            kept = newest(versions, keep_count) | (pointer.kept if pointer else set())
            return [version for version in versions if version not in kept]

        return self.blobs.delete(choose)

    def subscribe(self) -> Notifications | None:
        """Listen for changes; None where a store does not tell of them."""
        return self.blobs.pointer.subscribe()

    def nothing_published(self) -> NoClusterMapError:
        """Say that the store is empty, and what to do."""
        return NoClusterMapError(
            f"{self.place}: no cluster map is published here; publish one with "
            "`python -m trainer clusters --publish`"
        )

    def _tend(
        self,
        version: str | None,
        usual: Callable[[ClusterPointer], str | None],
        missing: NoClusterMapError,
        *,
        pinned: bool | None = None,
    ) -> ClusterPointer:
        """Point at a version by hand, or at the usual one where none is named.

        Naming one repairs a broken pointer. Raises `missing` where there is no usual one.
        """
        if version is not None and not re.fullmatch(VERSION_PATTERN, version):
            raise NoClusterMapError(
                f"{self.place}: found {version!r}, expected the version of a cluster map, 16 "
                "digits of 0-9 and a-f; `python -m index clusters list` tells them"
            )

        def step(before: ClusterPointer | None) -> ClusterPointer:
            wanted = version or (usual(before) if before else None)
            if wanted is None:
                raise missing
            return self._moved(before, wanted, pinned=pinned)

        return self._commit(step, repairs=version is not None)

    def _commit(
        self, step: Step, blob: Blob | None = None, *, repairs: bool = True
    ) -> ClusterPointer:
        """Take one step from the pointer as it is, and store a map, at once."""

        def plan(snapshot: Snapshot) -> tuple[Move, ClusterPointer]:
            parse = self._parse_or_none if repairs else self._parse
            before = parse(snapshot.value)
            after = step(before)
            if blob is None and (before is None or after.version != before.version):
                self._require(snapshot, after.version)
            value = after.model_dump_json().encode()
            if snapshot.value and after == before:
                value = snapshot.value  # byte by byte, so that it is not announced
            released = before.kept if before else set()
            return Move(value, after.kept, released, self._keep_s), after

        return self.blobs.commit(plan, blob)

    def _moved(
        self, before: ClusterPointer | None, version: str, *, pinned: bool | None = None
    ) -> ClusterPointer:
        """Point at a version; a pin stays unless `pinned` is given."""
        was_pinned = before is not None and before.pinned
        values = moved(before, version, int(self._now() * 1_000))
        return ClusterPointer(**values, pinned=was_pinned if pinned is None else pinned)

    def _require(self, snapshot: Snapshot, version: str) -> None:
        """Raise unless all of a map is there."""
        faults = snapshot.faults_of(version)
        if faults is None:
            there = ", ".join(info.version for info in self.blobs.list_blobs())
            raise self._not_there(version, f"it holds {there or 'none'}")
        if faults:
            place = f"{self.place}, cluster map {version}"
            raise InvalidClusterMapError(place, [f"{one}; publish it anew" for one in faults])

    def _not_there(self, version: str, there: str) -> NoClusterMapError:
        return NoClusterMapError(
            f"{self.place}: holds no cluster map {version!r} (never published, or expired); {there}"
        )

    def _parse(self, value: bytes | None) -> ClusterPointer | None:
        try:
            return ClusterPointer.parse(value)
        except ValidationError as error:
            raise InvalidClusterMapError(
                self.place,
                [
                    "`current` cannot be read as a pointer; expected json with sequence, "
                    "version, previous and pinned; repair it by publishing a map, or with "
                    "`python -m index clusters rollback`, naming a version"
                ],
            ) from error

    def _parse_or_none(self, value: bytes | None) -> ClusterPointer | None:
        with suppress(InvalidClusterMapError):  # being replaced repairs it
            return self._parse(value)
        return None


def local_map_blobs(folder: Path) -> LocalBlobStore:
    """Return the blobs of the maps in a folder."""
    return LocalBlobStore(folder, LOCAL_REMEDIES)


def redis_map_blobs(
    url: str,
    namespace: str = NAMESPACE,
    *,
    timeout_s: float = TIMEOUT_S,
    staged_s: float = STAGED_S,
) -> RedisBlobStore:
    """Return the blobs of the maps in Redis.

    Raises ConfigError if the address or the namespace cannot be used.
    """
    check_namespace(namespace, "cluster maps")
    client = RedisClient(url, timeout_s)
    place = f"{client.place}, namespace {namespace}"
    return RedisBlobStore(client, f"{namespace}:clusters:", place, staged_s)


def open_cluster_maps(
    url: str | None, folder: Path, namespace: str = NAMESPACE
) -> ClusterMapRegistry:
    """Return the maps in Redis where there is an address, else those in a folder.

    Nothing is connected or written yet. Raises ConfigError if the address is invalid.
    """
    blobs = redis_map_blobs(url, namespace) if url else local_map_blobs(folder)
    return ClusterMapRegistry(blobs)


def _listed(info: BlobInfo, pointer: ClusterPointer | None) -> ListedMap:
    try:
        card = ClusterMapCard.model_validate(info.header.meta["card"]) if info.header else None
    except (KeyError, ValidationError):
        card = None
    stored_at = datetime.fromtimestamp(info.stored_at, UTC).isoformat(timespec="seconds")
    return ListedMap(
        version=info.version,
        items=card.items if card else 0,
        level_1_codes=card.level_1_codes if card else 0,
        created_at=str(card.made.get("at", stored_at)) if card else stored_at,
        is_current=pointer is not None and pointer.version == info.version,
        is_previous=pointer is not None and pointer.previous == info.version,
        expires_in_s=info.expires_in_s,
    )
