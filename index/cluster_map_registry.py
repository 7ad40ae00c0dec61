"""Registry of published cluster maps: versions, the current pointer, pins, rollback, expiry.

It decides how the pointer moves; the blob store moves it together with the maps atomically.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import Field, ValidationError

from index.cluster_map import ClusterMap
from index.cluster_map_io import ClusterMapMetadata, decode_blob, encode_blob
from index.errors import ClusterStoreError, InvalidClusterMapError, NoClusterMapError
from index.storage.protocols import (
    VERSION_PATTERN,
    Blob,
    BlobInfo,
    BlobStore,
    Move,
    Notifications,
    Snapshot,
    VersionPointer,
    newest_versions,
    next_pointer,
)

KEEP_S = 3_600.0  # lifetime of a superseded map
KEEP_COUNT = 8  # maximum number of maps


class ClusterPointer(VersionPointer):
    """Value of `current`.

    The sequence is the Unix time of the change in milliseconds, or the previous sequence plus
    one if that is larger, so it also grows after the store loses its data.
    """

    version: str = Field(pattern=VERSION_PATTERN)
    previous: str | None = Field(pattern=VERSION_PATTERN)
    pinned: bool = False


@dataclass(frozen=True)
class ClusterMapInfo:
    """Summary of a stored map.

    Attributes:
        created_at: UTC, ISO 8601: build time of the map if known, else when it was stored.
        expires_in_s: None if the map does not expire.
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
    """Cluster maps by version, and a pointer to the current one.

    All methods raise StoreUnreachableError; writers also raise StoreFullError and
    ReadOnlyStoreError, and then change nothing.

    Args:
        blobs: Blob store.
        keep_s: Lifetime of a superseded map.
        keep_count: Maximum number of newest maps, in addition to those the pointer names.
        now: Clock, Unix seconds.
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
        self.location = blobs.pointer.location
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._now = now

    def pointer(self) -> ClusterPointer | None:
        """Read the current pointer; None if nothing is published.

        Raises:
            InvalidClusterMapError: The stored value is not a pointer.
        """
        return self._parse(self.blobs.pointer.read())

    def load(self, version: str) -> ClusterMap:
        """Load and validate a map.

        Raises:
            NoClusterMapError: It is not stored.
            InvalidClusterMapError: It is damaged.
        """
        is_version = re.fullmatch(VERSION_PATTERN, version)
        stored = self.blobs.get(version) if is_version else None
        if stored is None:  # listing the stored versions would cost a scan per poll
            raise self._missing_map_error(version, "`python -m index clusters list` lists them")
        try:
            return decode_blob(stored, version, f"{self.location}, cluster map {version}")
        except InvalidClusterMapError:
            if self.blobs.get(version) is None:  # expired meanwhile
                raise self._missing_map_error(version, "it expired while it was read") from None
            raise

    def publish(self, cluster_map: ClusterMap) -> ClusterPointer:
        """Store a map and make it current; return the pointer.

        If another version is pinned, the pointer stays, and the map expires unless pinned.
        """

        def step(before: ClusterPointer | None) -> ClusterPointer:
            if before and before.pinned and before.version != cluster_map.version:
                return before
            return self._next_pointer(before, cluster_map.version)

        pointer = self._commit(step, encode_blob(cluster_map))
        with suppress(ClusterStoreError):  # the map is published; the next publish prunes
            self.prune(self._keep_count)
        return pointer

    def repopulate(self, cluster_map: ClusterMap, pointer: ClusterPointer) -> bool:
        """Restore a map and its pointer if the store is empty or older; return whether it did."""

        def step(before: ClusterPointer | None) -> ClusterPointer:
            return before if before and not pointer.is_newer_than(before) else pointer

        if not pointer.is_newer_than(self._parse_or_none(self.blobs.pointer.read())):
            return False
        return self._commit(step, encode_blob(cluster_map)) == pointer

    def list_maps(self) -> list[ClusterMapInfo]:
        """List the stored maps, oldest first."""
        pointer = self._parse_or_none(self.blobs.pointer.read())
        return [_map_info(info, pointer) for info in self.blobs.list_blobs()]

    def pin(self, version: str | None = None) -> ClusterPointer:
        """Make a version (default: the current one) current and pin it until `unpin`."""
        return self._point_at(
            version, lambda before: before.version, self.no_map_error(), pinned=True
        )

    def unpin(self) -> ClusterPointer:
        """Remove the pin: the next published map becomes current."""

        def step(before: ClusterPointer | None) -> ClusterPointer:
            if before is None:
                raise self.no_map_error()
            return (
                self._next_pointer(before, before.version, pinned=False)
                if before.pinned
                else before
            )

        return self._commit(step, repairs=False)

    def roll_back(self, version: str | None = None) -> ClusterPointer:
        """Make a version (default: the previous one) current; a pin stays.

        Two rollbacks without a version return to the original map.

        Raises:
            NoClusterMapError: There is no previous map, or `version` is not stored.
        """
        missing = NoClusterMapError(
            f"{self.location}: there is no previous cluster map; name the version to make current "
            "(`python -m index clusters list` lists them)"
        )
        return self._point_at(version, lambda before: before.previous, missing)

    def prune(self, keep_count: int) -> list[str]:
        """Delete all but the newest `keep_count` maps; return the deleted versions.

        The current and the previous map always stay.
        """

        def select(value: bytes | None, infos: list[BlobInfo]) -> list[str]:
            versions, pointer = [info.version for info in infos], self._parse_or_none(value)
            kept = newest_versions(versions, keep_count) | (
                pointer.kept_versions if pointer else set()
            )
            return [version for version in versions if version not in kept]

        return self.blobs.delete(select)

    def subscribe(self) -> Notifications | None:
        """Subscribe to changes; None if the store sends no notifications."""
        return self.blobs.pointer.subscribe()

    def no_map_error(self) -> NoClusterMapError:
        """Build the error for an empty store."""
        return NoClusterMapError(
            f"{self.location}: no cluster map is published; publish one with "
            "`python -m trainer clusters --publish`"
        )

    def _point_at(
        self,
        version: str | None,
        default: Callable[[ClusterPointer], str | None],
        missing: NoClusterMapError,
        *,
        pinned: bool | None = None,
    ) -> ClusterPointer:
        """Move the pointer to a version, or to the default; raise `missing` without a default.

        An explicit version also repairs a damaged pointer.
        """
        if version is not None and not re.fullmatch(VERSION_PATTERN, version):
            raise NoClusterMapError(
                f"{self.location}: found {version!r}, expected a cluster map version of 16 hex "
                "digits; `python -m index clusters list` lists them"
            )

        def step(before: ClusterPointer | None) -> ClusterPointer:
            target = version or (default(before) if before else None)
            if target is None:
                raise missing
            return self._next_pointer(before, target, pinned=pinned)

        return self._commit(step, repairs=version is not None)

    def _commit(
        self, step: Step, blob: Blob | None = None, *, repairs: bool = True
    ) -> ClusterPointer:
        """Move the pointer by one step, and store a map, in one transaction."""

        def plan(snapshot: Snapshot) -> tuple[Move, ClusterPointer]:
            parse = self._parse_or_none if repairs else self._parse
            before = parse(snapshot.value)
            after = step(before)
            if blob is None and (before is None or after.version != before.version):
                self._require_complete(snapshot, after.version)
            value = after.model_dump_json().encode()
            if snapshot.value and after == before:
                value = snapshot.value  # byte for byte, so that subscribers are not notified
            released = before.kept_versions if before else set()
            return Move(value, after.kept_versions, released, self._keep_s), after

        return self.blobs.commit(plan, blob)

    def _next_pointer(
        self, before: ClusterPointer | None, version: str, *, pinned: bool | None = None
    ) -> ClusterPointer:
        """Build the next pointer; `pinned=None` keeps the pin."""
        was_pinned = before is not None and before.pinned
        values = next_pointer(before, version, int(self._now() * 1_000))
        return ClusterPointer(**values, pinned=was_pinned if pinned is None else pinned)

    def _require_complete(self, snapshot: Snapshot, version: str) -> None:
        """Raise unless all parts of a map are stored."""
        faults = snapshot.faults_of(version)
        if faults is None:
            stored = ", ".join(info.version for info in self.blobs.list_blobs())
            raise self._missing_map_error(version, f"stored versions: {stored or 'none'}")
        if faults:
            location = f"{self.location}, cluster map {version}"
            raise InvalidClusterMapError(location, [f"{x}; publish the map again" for x in faults])

    def _missing_map_error(self, version: str, hint: str) -> NoClusterMapError:
        return NoClusterMapError(
            f"{self.location}: no cluster map {version!r} (never published, or expired); {hint}"
        )

    def _parse(self, value: bytes | None) -> ClusterPointer | None:
        try:
            return ClusterPointer.parse(value)
        except ValueError as error:
            raise InvalidClusterMapError(
                self.location,
                [
                    "`current` is not a valid pointer, expected JSON with sequence, version, "
                    "previous and pinned; publish a map, or run "
                    "`python -m index clusters rollback VERSION`"
                ],
            ) from error

    def _parse_or_none(self, value: bytes | None) -> ClusterPointer | None:
        with suppress(InvalidClusterMapError):  # replacing it repairs it
            return self._parse(value)
        return None


def _map_info(info: BlobInfo, pointer: ClusterPointer | None) -> ClusterMapInfo:
    try:
        meta = ClusterMapMetadata.model_validate(info.header.meta["card"]) if info.header else None
    except (KeyError, ValidationError):
        meta = None
    stored_at = datetime.fromtimestamp(info.stored_at, UTC).isoformat(timespec="seconds")
    return ClusterMapInfo(
        version=info.version,
        items=meta.items if meta else 0,
        level_1_codes=meta.level_1_codes if meta else 0,
        created_at=str(meta.made.get("at", stored_at)) if meta else stored_at,
        is_current=pointer is not None and pointer.version == info.version,
        is_previous=pointer is not None and pointer.previous == info.version,
        expires_in_s=info.expires_in_s,
    )
