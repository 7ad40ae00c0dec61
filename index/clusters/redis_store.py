"""Cluster maps in Redis.

    {ns}:clusters:current               json {sequence, version, previous, pinned}: the truth
    {ns}:clusters:{version}:meta        `map_stream.StoredMap` as json
    {ns}:clusters:{version}:{n}         the pieces of a map
    {ns}:clusters:staged:{token}:{n}    pieces on their way: gone after a minute unless renamed
    {ns}:clusters:announce              a channel: the sequence of each change, a hint

One transaction, which fails where the pointer moved since it was read, renames staged pieces,
points at them, keeps what the pointer names and gives the rest its time. So a publisher that
dies leaves nothing behind, and touches nothing that is read.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from index.cluster_map import ClusterMap
from index.clusters.pointer_moves import (
    after_pin,
    after_publish,
    after_roll_back,
    after_unpin,
    is_needed,
    parse_pointer,
)
from index.clusters.redis_maps import Arriving, RedisMaps, Stored, by_age
from index.clusters.store import KEEP_COUNT, KEEP_S, Announcements, ClusterPointer, ListedMap
from index.errors import ClusterStoreError, FaultyClusterMapError
from index.stores.redis_address import check_namespace
from index.stores.redis_door import TIMEOUT_S, Command, RedisDoor, Watched, milliseconds

PRUNE_ROUNDS = 5
STAGED_S = 60.0  # the longest that writing a map may take

Step = Callable[[ClusterPointer | None], ClusterPointer]


class RedisClusters:
    """A ClusterStore in Redis.

    keep_s      seconds that a superseded map stays
    keep_count  how many of the newest maps stay at most, beside those the pointer names
    staged_s    seconds that a piece on its way stays
    now         tells the time, in unix seconds

    Raises ConfigError if the address or the namespace cannot be used.
    """

    def __init__(
        self,
        url: str,
        namespace: str = "esans",
        *,
        keep_s: float = KEEP_S,
        keep_count: int = KEEP_COUNT,
        staged_s: float = STAGED_S,
        timeout_s: float = TIMEOUT_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_namespace(namespace, "cluster maps")
        self._door = RedisDoor(url, timeout_s)
        self.place = f"{self._door.place}, namespace {namespace}"
        prefix = f"{namespace}:clusters:"
        self._current = f"{prefix}current"
        self._channel = f"{prefix}announce"
        self._maps = RedisMaps(self._door, self.place, prefix, staged_s)
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._now = now

    def pointer(self) -> ClusterPointer | None:
        """Read which map is current; None where nothing was published."""
        found = self._door.get(self._current)
        return None if found is None else parse_pointer(found, self.place)

    def read(self, version: str) -> ClusterMap:
        """Return a map, checked."""
        return self._maps.read(version)

    def publish(self, found: ClusterMap) -> ClusterPointer:
        """Store a map and make it current, unless a pin holds another one."""
        with self._maps.arriving(found, self._now()) as arriving:
            pointer = self._move(
                lambda before: after_publish(before, found.version, self._now()), arriving
            )
        with suppress(ClusterStoreError):  # the map is published; the next one may thin out
            self.prune(self._keep_count)
        return pointer

    def seed(self, found: ClusterMap, pointer: ClusterPointer) -> bool:
        """Put a map and its pointer back where Redis has lost them."""
        if not is_needed(self._pointer_or_none(), pointer):
            return False

        def put_back(before: ClusterPointer | None) -> ClusterPointer:
            return before if before and not is_needed(before, pointer) else pointer

        with self._maps.arriving(found, self._now()) as arriving:
            return self._move(put_back, arriving) == pointer

    def listed(self) -> list[ListedMap]:
        """Return what is stored, oldest first."""
        pointer = self._pointer_or_none()
        stored = self._maps.stored()
        return [
            self._told(version, stored[version], pointer)
            for version in by_age(stored)
            if stored[version].described is not None  # else it goes just now
        ]

    def pin(self, version: str | None = None) -> ClusterPointer:
        """Hold on to a version, or to the current one."""
        return self._move(
            lambda before: after_pin(
                before or self._unless_named(version), version, self.place, self._now()
            )
        )

    def unpin(self) -> ClusterPointer:
        """Let the next map that is published become current again."""
        return self._move(
            lambda before: after_unpin(before or self.pointer(), self.place, self._now())
        )

    def roll_back(self, version: str | None = None) -> ClusterPointer:
        """Make the version before the current one current, or the one named."""
        return self._move(
            lambda before: after_roll_back(
                before or self._unless_named(version), version, self.place, self._now()
            )
        )

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest maps; the current one and the one before it stay."""
        removed: list[str] = []
        for _ in range(PRUNE_ROUNDS):
            current = self._door.get(self._current)
            stored = self._maps.stored()
            doomed = _doomed(stored, self._parsed_or_none(current), keep_count)
            for version in doomed:
                grounds = {
                    self._current: current,
                    self._maps.meta(version): stored[version].described,
                }
                if self._door.remove(stored[version].keys, grounds):
                    removed.append(version)
            if {*doomed} <= {*removed}:  # else something moved meanwhile: look again
                break
        return removed

    def announcements(self) -> Announcements:
        """Listen for changes."""
        return self._door.listen(self._channel)

    def _move(self, step: Step, arriving: Arriving | None = None) -> ClusterPointer:
        """Take one step from the pointer as it is, and what goes with it, at once."""

        def plan(watched: Watched) -> tuple[list[Command], ClusterPointer]:
            before = self._watched_pointer(watched)
            after = step(before)
            named = (before.kept if before else set()) | after.kept
            keys = {version: self._maps.keys(watched, version) for version in named}
            commands: list[Command] = []
            if arriving:
                keys[arriving.version] = self._maps.keys_of(arriving.about)
                commands += self._maps.unpack(watched, arriving)
            elif before is None or after.version != before.version:
                self._maps.check(watched, after.version, keys[after.version])
            for version in keys:
                commands += self._stay(keys[version], version in after.kept)
            if after != before:
                commands.append(("SET", self._current, after.model_dump_json()))
                commands.append(("PUBLISH", self._channel, after.sequence))
            return commands, after

        return self._door.change(plan)

    def _stay(self, keys: list[str], is_kept: bool) -> list[Command]:
        if is_kept:
            return [("PERSIST", key) for key in keys]
        return [("PEXPIRE", key, milliseconds(self._keep_s)) for key in keys]

    def _pointer_or_none(self) -> ClusterPointer | None:
        return self._parsed_or_none(self._door.get(self._current))

    def _unless_named(self, version: str | None) -> ClusterPointer | None:
        """Tell of a broken pointer, unless a version is named, which repairs it."""
        return self.pointer() if version is None else None

    def _watched_pointer(self, watched: Watched) -> ClusterPointer | None:
        return self._parsed_or_none(watched.get(self._current))

    def _parsed_or_none(self, found: bytes | None) -> ClusterPointer | None:
        try:
            return None if found is None else parse_pointer(found, self.place)
        except FaultyClusterMapError:
            return None  # being replaced is how a broken pointer is repaired

    def _told(self, version: str, one: Stored, pointer: ClusterPointer | None) -> ListedMap:
        about = one.about
        card = about.card if about else None
        stored_at = datetime.fromtimestamp(one.stored_at, UTC).isoformat(timespec="seconds")
        return ListedMap(
            version=version,
            items=card.items if card else 0,
            level_1_codes=card.level_1_codes if card else 0,
            made_at=str(card.made.get("at", stored_at)) if card else stored_at,
            is_current=pointer is not None and pointer.version == version,
            is_previous=pointer is not None and pointer.previous == version,
            expires_in_s=self._door.left_s(self._maps.meta(version)),
        )


def _doomed(
    stored: dict[str, Stored], pointer: ClusterPointer | None, keep_count: int
) -> list[str]:
    """Return what is neither among the newest nor named by the pointer, oldest first."""
    versions = by_age(stored)
    kept = set(versions[-keep_count:] if keep_count else [])
    kept |= pointer.kept if pointer else set()
    return [version for version in versions if version not in kept]
