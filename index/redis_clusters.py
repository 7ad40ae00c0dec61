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

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from index.cluster_map import ClusterMap
from index.cluster_store import (
    KEEP_COUNT,
    KEEP_S,
    VERSION_PATTERN,
    Announcements,
    ClusterPointer,
    ListedMap,
)
from index.errors import (
    ClusterStoreError,
    ConfigError,
    FaultyClusterMapError,
    StoreUnreachableError,
)
from index.map_stream import StoredMap, assemble, describe, pieces_of
from index.pointer_moves import (
    after_pin,
    after_publish,
    after_roll_back,
    after_unpin,
    is_needed,
    not_there,
    parse_pointer,
)
from index.redis_door import TIMEOUT_S, Command, RedisDoor, Watched, milliseconds

NAMESPACE_PATTERN = r"[A-Za-z0-9_.-]{1,64}"
STAGED_S = 60.0  # the longest that writing a map may take

Step = Callable[[ClusterPointer | None], ClusterPointer]


@dataclass(frozen=True)
class Arriving:
    """A map whose pieces are staged."""

    about: StoredMap
    staged: list[str]

    @property
    def version(self) -> str:
        """Return which map it is."""
        return self.about.card.version


@dataclass(frozen=True)
class Stored:
    """What is found of a map: all keys that bear its version, and what it says of itself."""

    keys: list[str]
    about: StoredMap | None

    @property
    def stored_at(self) -> float:
        """Return when it was stored; long ago where it does not say so."""
        return self.about.stored_at if self.about else 0.0


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
        if not re.fullmatch(NAMESPACE_PATTERN, namespace):
            raise ConfigError(
                f"cluster maps in Redis: found the namespace {namespace!r}, expected 1 to 64 "
                "letters, digits, dots, dashes or underscores; choose another"
            )
        self._door = RedisDoor(url, timeout_s)
        self.place = f"{self._door.place}, namespace {namespace}"
        self._prefix = f"{namespace}:clusters:"
        self._current = f"{self._prefix}current"
        self._channel = f"{self._prefix}announce"
        self._keep_s = keep_s
        self._keep_count = keep_count
        self._staged_s = staged_s
        self._now = now

    def pointer(self) -> ClusterPointer | None:
        """Read which map is current; None where nothing was published."""
        found = self._door.get(self._current)
        return None if found is None else parse_pointer(found, self.place)

    def read(self, version: str) -> ClusterMap:
        """Return a map, checked."""
        place = f"{self.place}, cluster map {version}"
        about = self._about(version)
        pieces = (self._door.get(key) for key in self._pieces(version, about.piece_count))
        try:
            return assemble(about, pieces, place)
        except FaultyClusterMapError:
            self._about(version)  # where it expired meanwhile, that is what to tell
            raise

    def publish(self, found: ClusterMap) -> ClusterPointer:
        """Store a map and make it current, unless a pin holds another one."""
        with self._arriving(found) as arriving:
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

        with self._arriving(found) as arriving:
            return self._move(put_back, arriving) == pointer

    def listed(self) -> list[ListedMap]:
        """Return what is stored, oldest first."""
        pointer = self._pointer_or_none()
        stored = self._stored()
        return [self._told(version, stored[version], pointer) for version in _by_age(stored)]

    def pin(self, version: str | None = None) -> ClusterPointer:
        """Hold on to a version, or to the current one."""
        return self._move(lambda before: after_pin(before, version, self.place, self._now()))

    def unpin(self) -> ClusterPointer:
        """Let the next map that is published become current again."""
        return self._move(lambda before: after_unpin(before, self.place, self._now()))

    def roll_back(self, version: str | None = None) -> ClusterPointer:
        """Make the version before the current one current, or the one named."""
        return self._move(
            lambda before: after_roll_back(before, version, self.place, self._now())
        )

    def prune(self, keep_count: int) -> list[str]:
        """Remove all but the newest maps; the current one and the one before it stay."""

        def plan(watched: Watched) -> tuple[list[Command], list[str]]:
            pointer = self._watched_pointer(watched)
            stored = self._stored()
            versions = _by_age(stored)
            kept = set(versions[-keep_count:] if keep_count else [])
            kept |= pointer.kept if pointer else set()
            doomed = [version for version in versions if version not in kept]
            for version in doomed:
                watched.get(self._meta(version))  # published again meanwhile: plan anew
            gone = [key for version in doomed for key in stored[version].keys]
            return [("UNLINK", key) for key in gone], doomed

        return self._door.change(plan)

    def announcements(self) -> Announcements:
        """Listen for changes."""
        return self._door.listen(self._channel)

    @contextmanager
    def _arriving(self, found: ClusterMap) -> Iterator[Arriving]:
        """Write a map's pieces to one side; what is not renamed at the end is removed."""
        about = describe(found, self._now())
        token = secrets.token_hex(8)
        staged = [f"{self._prefix}staged:{token}:{n}" for n in range(about.piece_count)]
        try:
            for key, piece in zip(staged, pieces_of(found), strict=True):
                self._door.put(key, piece, self._staged_s)
            yield Arriving(about, staged)
        finally:
            self._door.discard(staged)

    def _move(self, step: Step, arriving: Arriving | None = None) -> ClusterPointer:
        """Take one step from the pointer as it is, and what goes with it, at once."""

        def plan(watched: Watched) -> tuple[list[Command], ClusterPointer]:
            before = self._watched_pointer(watched)
            after = step(before)
            named = (before.kept if before else set()) | after.kept
            keys = {version: self._keys(watched, version) for version in named}
            commands: list[Command] = []
            if arriving:
                keys[arriving.version] = self._keys_of(arriving.about)
                commands += self._unpack(watched, arriving)
            elif before is None or after.version != before.version:
                self._check(watched, after.version, keys[after.version])
            for version in keys:
                commands += self._stay(keys[version], version in after.kept)
            if after != before:
                commands.append(("SET", self._current, after.model_dump_json()))
                commands.append(("PUBLISH", self._channel, after.sequence))
            return commands, after

        return self._door.change(plan)

    def _unpack(self, watched: Watched, arriving: Arriving) -> list[Command]:
        """Rename staged pieces, all of which must still be there."""
        if watched.count(arriving.staged) < len(arriving.staged):
            raise StoreUnreachableError(
                f"{self.place}: writing the map {arriving.version} took longer than the "
                f"{self._staged_s:g} s that pieces stay, expected less; see the network"
            )
        places = self._pieces(arriving.version, arriving.about.piece_count)
        renames = zip(arriving.staged, places, strict=True)
        described = arriving.about.model_dump_json()
        return [
            *(("RENAME", staged, place) for staged, place in renames),
            ("SET", self._meta(arriving.version), described),
        ]

    def _stay(self, keys: list[str], is_kept: bool) -> list[Command]:
        if is_kept:
            return [("PERSIST", key) for key in keys]
        return [("PEXPIRE", key, milliseconds(self._keep_s)) for key in keys]

    def _check(self, watched: Watched, version: str, keys: list[str]) -> None:
        """Raise unless all of a map is there; if it expires after that, the plan is void."""
        if not keys:
            raise not_there(self.place, version, _by_age(self._stored()))
        if missing := len(keys) - watched.count(keys):
            told = f"{missing} of its {len(keys)} keys are missing; publish it anew"
            raise FaultyClusterMapError(f"{self.place}, cluster map {version}", [told])

    def _keys(self, watched: Watched, version: str) -> list[str]:
        """Return the keys of a stored map; none where its description is not there."""
        found = watched.get(self._meta(version))
        about = None if found is None else _parse_about(found)
        return self._keys_of(about) if about else []

    def _keys_of(self, about: StoredMap) -> list[str]:
        version = about.card.version
        return [self._meta(version), *self._pieces(version, about.piece_count)]

    def _meta(self, version: str) -> str:
        return f"{self._prefix}{version}:meta"

    def _pieces(self, version: str, count: int) -> list[str]:
        return [f"{self._prefix}{version}:{number}" for number in range(count)]

    def _about(self, version: str) -> StoredMap:
        """Read what stands beside the pieces of a map.

        Raises NoClusterMapError if it is not there, FaultyClusterMapError if it is unreadable.
        """
        is_version = re.match(VERSION_PATTERN, version)
        found = self._door.get(self._meta(version)) if is_version else None
        if found is None:
            raise not_there(self.place, version, _by_age(self._stored()))
        about = _parse_about(found)
        if about is None or about.card.version != version:
            told = "its description cannot be read, or is of another map; publish it anew"
            raise FaultyClusterMapError(f"{self.place}, cluster map {version}", [told])
        return about

    def _pointer_or_none(self) -> ClusterPointer | None:
        return self._parsed_or_none(self._door.get(self._current))

    def _watched_pointer(self, watched: Watched) -> ClusterPointer | None:
        return self._parsed_or_none(watched.get(self._current))

    def _parsed_or_none(self, found: bytes | None) -> ClusterPointer | None:
        try:
            return None if found is None else parse_pointer(found, self.place)
        except FaultyClusterMapError:
            return None  # being replaced is how a broken pointer is repaired

    def _stored(self) -> dict[str, Stored]:
        """Return what is stored by version; looks at every key of the database."""
        keys: dict[str, list[str]] = {}
        for key in self._door.find(self._prefix):
            version = key.removeprefix(self._prefix).partition(":")[0]
            if re.match(VERSION_PATTERN, version):
                keys.setdefault(version, []).append(key)
        abouts = {version: self._door.get(self._meta(version)) for version in keys}
        return {
            version: Stored(keys[version], _parse_about(found) if found else None)
            for version, found in abouts.items()
        }

    def _told(self, version: str, one: Stored, pointer: ClusterPointer | None) -> ListedMap:
        card = one.about.card if one.about else None
        stored_at = datetime.fromtimestamp(one.stored_at, UTC).isoformat(timespec="seconds")
        return ListedMap(
            version=version,
            items=card.items if card else 0,
            level_1_codes=card.level_1_codes if card else 0,
            made_at=str(card.made.get("at", stored_at)) if card else stored_at,
            is_current=pointer is not None and pointer.version == version,
            is_previous=pointer is not None and pointer.previous == version,
            expires_in_s=self._door.left_s(self._meta(version)),
        )


def _by_age(stored: dict[str, Stored]) -> list[str]:
    return sorted(stored, key=lambda version: (stored[version].stored_at, version))


def _parse_about(found: bytes) -> StoredMap | None:
    try:
        return StoredMap.model_validate_json(found)
    except ValidationError:
        return None
