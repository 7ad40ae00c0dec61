"""Pointers and blobs in Redis.

    {prefix}current               the pointer
    {prefix}{version}:meta        the header of a blob
    {prefix}{version}:{n}         its chunks
    {prefix}staged:{token}:{n}    chunks on their way: gone after a minute unless renamed
    {prefix}announce              a channel: a hint that the pointer moved

One transaction, which fails where the pointer moved since it was read, renames staged chunks,
points at them, keeps what the move keeps and lets the rest expire. So a publisher that dies
leaves nothing behind, and changes nothing that is read.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from index.errors import StoreUnreachableError
from index.storage.protocols import (
    VERSION_PATTERN,
    Blob,
    BlobInfo,
    Choose,
    Move,
    Plan,
    Result,
    Snapshot,
    StoredBlob,
    by_age,
    header_of,
    parse_header,
)
from index.storage.redis_client import (
    Command,
    RedisClient,
    RedisNotifications,
    Transaction,
    milliseconds,
)

STAGED_S = 60.0  # the longest that writing a blob may take
DELETE_ROUNDS = 5


class RedisPointer:
    """A pointer under one key."""

    is_durable = False

    def __init__(
        self, client: RedisClient, key: str, place: str, channel: str | None = None
    ) -> None:
        self._client = client
        self._channel = channel
        self.key = key
        self.place = place

    def read(self, num_bytes: int | None = None) -> bytes | None:
        """Read the value, or its first bytes; None where there is none."""
        return self._client.get(self.key, num_bytes)

    def update(self, plan: Callable[[bytes | None], tuple[bytes | None, Result]]) -> Result:
        """Replace the value by what a plan makes of it; None leaves it as it is."""

        def step(transaction: Transaction) -> tuple[list[Command], Result]:
            value, result = plan(transaction.get(self.key))
            return self.commands(value), result

        return self._client.change(step)

    def commands(self, value: bytes | None) -> list[Command]:
        """Return the commands that set the value, and announce it."""
        commands: list[Command] = [] if value is None else [("SET", self.key, value)]
        return commands + [("PUBLISH", self._channel, 1) for _ in commands if self._channel]

    def subscribe(self) -> RedisNotifications | None:
        """Listen for changes; None where they are not announced."""
        return self._client.listen(self._channel) if self._channel else None


@dataclass(frozen=True)
class Staged:
    """A blob whose chunks are written, under keys that expire."""

    version: str
    header: bytes
    keys: list[str]


@dataclass(frozen=True)
class StoredKeys:
    """Keys of each version that a transaction looked at."""

    transaction: Transaction
    read: Callable[[Transaction, str], list[str]]
    keys: dict[str, list[str]] = field(default_factory=dict)

    def of(self, version: str) -> list[str]:
        """Return the keys of a stored blob; none where its header is not there."""
        if version not in self.keys:
            self.keys[version] = self.read(self.transaction, version)
        return self.keys[version]

    def faults_of(self, version: str) -> list[str] | None:
        """Return what is missing of a stored blob; None where it is not there at all."""
        keys = self.of(version)
        if not keys:
            return None
        missing = len(keys) - self.transaction.count(keys)
        return [f"{missing} of its {len(keys)} keys are missing"] if missing else []


class RedisBlobStore:
    """Blobs under a prefix.

    place     for people
    staged_s  seconds that a chunk on its way stays
    now       tells the time, in unix seconds
    """

    def __init__(
        self,
        client: RedisClient,
        prefix: str,
        place: str,
        staged_s: float = STAGED_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.pointer = RedisPointer(client, f"{prefix}current", place, f"{prefix}announce")
        self._client = client
        self._prefix = prefix
        self._staged_s = staged_s
        self._now = now

    def get(self, version: str) -> StoredBlob | None:
        """Return a blob, its chunks not read yet; None where it is not there."""
        found = self._client.get(self._header_key(version))
        if found is None:
            return None
        header = parse_header(found)
        keys = self._chunk_keys(version, header.num_chunks if header else 0)
        return StoredBlob(header, lambda _: map(self._client.get, keys))

    def list_blobs(self) -> list[BlobInfo]:
        """Return what is stored, oldest first; looks at every key of the database."""
        return by_age(info for info, _, _ in self._stored().values() if info.is_described)

    def commit(self, plan: Plan[Result], blob: Blob | None = None) -> Result:
        """Move the pointer, put a blob, and set what expires, in one transaction."""
        with self._staged(blob) if blob else nullcontext() as staged:
            return self._client.change(lambda transaction: self._step(transaction, plan, staged))

    def delete(self, choose: Choose) -> list[str]:
        """Delete what is chosen; again where something moved meanwhile."""
        deleted: list[str] = []
        for _ in range(DELETE_ROUNDS):
            value, stored = self.pointer.read(), self._stored()
            chosen = choose(value, by_age(info for info, _, _ in stored.values()))
            for version in chosen:
                _, header, keys = stored[version]
                unless_changed = {self.pointer.key: value, self._header_key(version): header}
                if self._client.delete(keys, unless_changed):
                    deleted.append(version)
            if {*chosen} <= {*deleted}:
                break
        return deleted

    def _step(
        self, transaction: Transaction, plan: Plan[Result], staged: Staged | None
    ) -> tuple[list[Command], Result]:
        value, stored = transaction.get(self.pointer.key), StoredKeys(transaction, self._keys_of)
        commands = self._unstage(staged, stored) if staged else []
        move, result = plan(Snapshot(value, stored.faults_of))
        commands += self._expire(move, stored, staged)
        if move.value != value:
            commands += self.pointer.commands(move.value)
        return commands, result

    def _unstage(self, staged: Staged, stored: StoredKeys) -> list[Command]:
        """Return the commands that put a staged blob in its place, if all of it is there."""
        if stored.transaction.count(staged.keys) < len(staged.keys):
            raise StoreUnreachableError(
                f"{self.pointer.place}: writing the map {staged.version} took longer than the "
                f"{self._staged_s:g} s that chunks stay, expected less; see the network"
            )
        chunk_keys = self._chunk_keys(staged.version, len(staged.keys))
        header_key = self._header_key(staged.version)
        stored.keys[staged.version] = [header_key, *chunk_keys]
        renames = zip(staged.keys, chunk_keys, strict=True)
        return [
            *(("RENAME", key, chunk_key) for key, chunk_key in renames),
            ("SET", header_key, staged.header),
        ]

    def _expire(self, move: Move, stored: StoredKeys, staged: Staged | None) -> list[Command]:
        """Return the commands that let versions stay or expire."""
        commands: list[Command] = []
        for version in move.kept | move.released | ({staged.version} if staged else set()):
            for key in stored.of(version):
                if version in move.kept:
                    commands.append(("PERSIST", key))
                else:
                    commands.append(("PEXPIRE", key, milliseconds(move.ttl_s)))
        return commands

    @contextmanager
    def _staged(self, blob: Blob) -> Iterator[Staged]:
        """Write a blob's chunks to one side; what is not renamed at the end is deleted."""
        token = secrets.token_hex(8)
        keys = [f"{self._prefix}staged:{token}:{n}" for n in range(len(blob.chunks))]
        header = header_of(blob, self._now())
        try:
            for key, chunk in zip(keys, blob.chunks, strict=True):
                self._client.put(key, chunk, self._staged_s)
            yield Staged(blob.version, header, keys)
        finally:
            self._client.discard(keys)

    def _stored(self) -> dict[str, tuple[BlobInfo, bytes | None, list[str]]]:
        """Return what is found of each version: its header, and all keys that bear it."""
        keys: dict[str, list[str]] = {}
        for key in self._client.find(self._prefix):
            version = key.removeprefix(self._prefix).partition(":")[0]
            if re.fullmatch(VERSION_PATTERN, version):
                keys.setdefault(version, []).append(key)
        return {version: self._found(version, found) for version, found in keys.items()}

    def _found(self, version: str, keys: list[str]) -> tuple[BlobInfo, bytes | None, list[str]]:
        header_key = self._header_key(version)
        header, ttl_s = self._client.get(header_key), self._client.ttl_s(header_key)
        info = BlobInfo(version, parse_header(header), header is not None, ttl_s)
        return info, header, keys

    def _keys_of(self, transaction: Transaction, version: str) -> list[str]:
        header_key = self._header_key(version)
        header = parse_header(transaction.get(header_key))
        return [header_key, *self._chunk_keys(version, header.num_chunks)] if header else []

    def _header_key(self, version: str) -> str:
        return f"{self._prefix}{version}:meta"

    def _chunk_keys(self, version: str, num_chunks: int) -> list[str]:
        return [f"{self._prefix}{version}:{number}" for number in range(num_chunks)]
