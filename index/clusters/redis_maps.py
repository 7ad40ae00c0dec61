"""Cluster maps under their keys in Redis: staged, unpacked, read, listed, removed.

It knows nothing of what is current; `redis_clusters` does.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from index.cluster_map import ClusterMap
from index.clusters.map_stream import StoredMap, assemble, describe, pieces_of
from index.clusters.pointer_moves import not_there
from index.clusters.store import VERSION_PATTERN
from index.errors import FaultyClusterMapError, StoreUnreachableError
from index.stores.redis_door import Command, RedisDoor, Watched


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
    """What is found of a map: all keys that bear its version, and its description."""

    keys: list[str]
    described: bytes | None

    @property
    def about(self) -> StoredMap | None:
        """Return the description, if it is one."""
        return _parse_about(self.described)

    @property
    def stored_at(self) -> float:
        """Return when it was stored; long ago where it does not say so."""
        about = self.about
        return about.stored_at if about else 0.0


class RedisMaps:
    """The maps of a namespace.

    place     for people
    prefix    of all keys
    staged_s  seconds that a piece on its way stays
    """

    def __init__(self, door: RedisDoor, place: str, prefix: str, staged_s: float) -> None:
        self._door = door
        self._place = place
        self._prefix = prefix
        self._staged_s = staged_s

    def read(self, version: str) -> ClusterMap:
        """Return a map, checked.

        Raises NoClusterMapError, FaultyClusterMapError.
        """
        about = self._about(version)
        pieces = (self._door.get(key) for key in self._pieces(version, about.piece_count))
        try:
            return assemble(about, pieces, f"{self._place}, cluster map {version}")
        except FaultyClusterMapError:
            self._about(version)  # where it expired meanwhile, that is what to tell
            raise

    def stored(self) -> dict[str, Stored]:
        """Return what is stored by version; looks at every key of the database."""
        keys: dict[str, list[str]] = {}
        for key in self._door.find(self._prefix):
            version = key.removeprefix(self._prefix).partition(":")[0]
            if re.fullmatch(VERSION_PATTERN, version):
                keys.setdefault(version, []).append(key)
        return {
            version: Stored(found, self._door.get(self.meta(version)))
            for version, found in keys.items()
        }

    def versions(self) -> list[str]:
        """Return the versions that are there, oldest first."""
        stored = self.stored()
        return [version for version in by_age(stored) if stored[version].described]

    @contextmanager
    def arriving(self, found: ClusterMap, now_s: float) -> Iterator[Arriving]:
        """Write a map's pieces to one side; what is not renamed at the end is removed."""
        about = describe(found, now_s)
        token = secrets.token_hex(8)
        staged = [f"{self._prefix}staged:{token}:{n}" for n in range(about.piece_count)]
        try:
            for key, piece in zip(staged, pieces_of(found), strict=True):
                self._door.put(key, piece, self._staged_s)
            yield Arriving(about, staged)
        finally:
            self._door.discard(staged)

    def unpack(self, watched: Watched, arriving: Arriving) -> list[Command]:
        """Rename staged pieces, all of which must still be there."""
        if watched.count(arriving.staged) < len(arriving.staged):
            raise StoreUnreachableError(
                f"{self._place}: writing the map {arriving.version} took longer than the "
                f"{self._staged_s:g} s that pieces stay, expected less; see the network"
            )
        places = self._pieces(arriving.version, arriving.about.piece_count)
        renames = zip(arriving.staged, places, strict=True)
        described = arriving.about.model_dump_json()
        return [
            *(("RENAME", staged, place) for staged, place in renames),
            ("SET", self.meta(arriving.version), described),
        ]

    def check(self, watched: Watched, version: str, keys: list[str]) -> None:
        """Raise unless all of a map is there; if it expires after that, the plan is void."""
        if not keys:
            raise not_there(self._place, version, self.versions())
        if missing := len(keys) - watched.count(keys):
            told = f"{missing} of its {len(keys)} keys are missing; publish it anew"
            raise FaultyClusterMapError(f"{self._place}, cluster map {version}", [told])

    def keys(self, watched: Watched, version: str) -> list[str]:
        """Return the keys of a stored map; none where its description is not there."""
        about = _parse_about(watched.get(self.meta(version)))
        return self.keys_of(about) if about else []

    def keys_of(self, about: StoredMap) -> list[str]:
        """Return the keys of a map by its description."""
        version = about.card.version
        return [self.meta(version), *self._pieces(version, about.piece_count)]

    def meta(self, version: str) -> str:
        """Return the key of a map's description."""
        return f"{self._prefix}{version}:meta"

    def _pieces(self, version: str, count: int) -> list[str]:
        return [f"{self._prefix}{version}:{number}" for number in range(count)]

    def _about(self, version: str) -> StoredMap:
        """Read what stands beside the pieces of a map.

        Raises NoClusterMapError if it is not there, FaultyClusterMapError if it is unreadable.
        """
        is_version = re.fullmatch(VERSION_PATTERN, version)
        found = self._door.get(self.meta(version)) if is_version else None
        if found is None:
            # who follows asks every two seconds, and to tell what is there takes a scan
            raise not_there(self._place, version)
        about = _parse_about(found)
        if about is None or about.card.version != version:
            told = "its description cannot be read, or is of another map; publish it anew"
            raise FaultyClusterMapError(f"{self._place}, cluster map {version}", [told])
        return about


def by_age(stored: dict[str, Stored]) -> list[str]:
    """Return the versions, oldest first."""
    return sorted(stored, key=lambda version: (stored[version].stored_at, version))


def _parse_about(found: bytes | None) -> StoredMap | None:
    try:
        return None if found is None else StoredMap.model_validate_json(found)
    except ValidationError:
        return None
