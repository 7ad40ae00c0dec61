"""Pointers and blobs in Redis.

    {prefix}current               the pointer
    {prefix}{version}:meta        the header of a blob
    {prefix}{version}:{n}         its chunks
    {prefix}staged:{token}:{n}    staged chunks, which expire after a minute unless renamed
    {prefix}announce              pub/sub channel for pointer moves

A commit stages the chunks, then renames them, moves the pointer and updates expiries in one
transaction that fails if the pointer moved since it was read. A publisher that dies leaves
nothing behind and changes nothing that readers see.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from index.errors import StoreUnreachableError
from index.storage.protocols import (
    MAX_HEADER_BYTES,
    MAX_POINTER_BYTES,
    VERSION_PATTERN,
    Blob,
    BlobInfo,
    Move,
    Plan,
    Result,
    Selector,
    Snapshot,
    StoredBlob,
    bound_value,
    parse_header,
    render_header,
    sort_by_age,
)
from index.storage.redis_client import (
    Command,
    RedisClient,
    RedisNotifications,
    Transaction,
    to_milliseconds,
)

STAGED_S = 60.0  # maximum time to write a blob
DELETE_ROUNDS = 5


class RedisPointer:
    """A pointer under one key.

    Args:
        client: Redis client.
        key: Key of the value.
        location: Store name for messages.
        channel: Pub/sub channel for changes; None sends no notifications.
        max_bytes: Maximum size of a value; a larger one is read as INVALID.
    """

    is_durable = False

    def __init__(
        self,
        client: RedisClient,
        key: str,
        location: str,
        channel: str | None = None,
        max_bytes: int = MAX_POINTER_BYTES,
    ) -> None:
        self._client = client
        self._channel = channel
        self._max_bytes = max_bytes
        self.key = key
        self.location = location

    def read(self, num_bytes: int | None = None) -> bytes | None:
        """Read the value, or its first bytes; None if it is not set."""
        if num_bytes is not None:
            return self._client.get(self.key, num_bytes)
        return bound_value(self._client.get(self.key, self._max_bytes + 1), self._max_bytes)

    def read_in(self, transaction: Transaction) -> bytes | None:
        """Read and watch the value."""
        return bound_value(transaction.get(self.key, self._max_bytes + 1), self._max_bytes)

    def update(self, plan: Callable[[bytes | None], tuple[bytes | None, Result]]) -> Result:
        """Replace the value by the result of `plan`; None leaves it unchanged."""

        def step(transaction: Transaction) -> tuple[list[Command], Result]:
            value, result = plan(self.read_in(transaction))
            return self.commands(value), result

        return self._client.transact(step)

    def commands(self, value: bytes | None) -> list[Command]:
        """Build the commands that set the value and notify subscribers."""
        commands: list[Command] = [] if value is None else [("SET", self.key, value)]
        return commands + [("PUBLISH", self._channel, 1) for _ in commands if self._channel]

    def subscribe(self) -> RedisNotifications | None:
        """Subscribe to changes; None without a channel."""
        return self._client.listen(self._channel) if self._channel else None


@dataclass(frozen=True)
class StagedBlob:
    """A blob whose chunks are written under expiring keys."""

    version: str
    header: bytes
    keys: list[str]


@dataclass(frozen=True)
class StoredKeys:
    """Cache of the keys of each version that a transaction reads."""

    transaction: Transaction
    read: Callable[[Transaction, str], list[str]]
    keys: dict[str, list[str]] = field(default_factory=dict)

    def get(self, version: str) -> list[str]:
        """Get the keys of a stored blob; empty if it has no readable header."""
        if version not in self.keys:
            self.keys[version] = self.read(self.transaction, version)
        return self.keys[version]

    def faults_of(self, version: str) -> list[str] | None:
        """Return the missing parts of a blob; None if it is not stored."""
        keys = self.get(version)
        if not keys:
            return None
        missing = len(keys) - self.transaction.count(keys)
        return [f"{missing} of {len(keys)} keys are missing"] if missing else []


class RedisBlobStore:
    """Blobs under a key prefix.

    Args:
        client: Redis client.
        prefix: Prefix of all keys.
        location: Store name for messages.
        staged_s: Time to live of a staged chunk.
        now: Clock, Unix seconds.
    """

    def __init__(
        self,
        client: RedisClient,
        prefix: str,
        location: str,
        staged_s: float = STAGED_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.pointer = RedisPointer(client, f"{prefix}current", location, f"{prefix}announce")
        self._client = client
        self._prefix = prefix
        self._staged_s = staged_s
        self._now = now

    def get(self, version: str) -> StoredBlob | None:
        """Get a blob whose chunks are read lazily; None if it is not stored."""
        content = self._client.get(self._header_key(version), MAX_HEADER_BYTES + 1)
        if content is None:
            return None
        header = parse_header(content)
        keys = self._chunk_keys(version, header.num_chunks if header else 0)
        return StoredBlob(
            header,
            lambda sizes: (
                self._client.get(key, size + 1) for key, size in zip(keys, sizes, strict=True)
            ),
        )

    def list_blobs(self) -> list[BlobInfo]:
        """List the stored blobs, oldest first; scans all keys of the database."""
        return sort_by_age(info for info, _, _ in self._list_stored().values() if info.has_header)

    def commit(self, plan: Plan[Result], blob: Blob | None = None) -> Result:
        """Move the pointer, store a blob and update expiries in one transaction."""
        with self._stage(blob) if blob else nullcontext() as staged:
            return self._client.transact(
                lambda transaction: self._plan_commands(transaction, plan, staged)
            )

    def delete(self, select: Selector) -> list[str]:
        """Delete the selected versions; select again if the store changed meanwhile."""
        deleted: list[str] = []
        for _ in range(DELETE_ROUNDS):
            value, stored = self.pointer.read(), self._list_stored()
            selected = select(value, sort_by_age(info for info, _, _ in stored.values()))
            for version in selected:
                _, header, keys = stored[version]
                expected = {self.pointer.key: value, self._header_key(version): header}
                if self._client.delete_if_unchanged(keys, expected):
                    deleted.append(version)
            if {*selected} <= {*deleted}:
                break
        return deleted

    def _plan_commands(
        self, transaction: Transaction, plan: Plan[Result], staged: StagedBlob | None
    ) -> tuple[list[Command], Result]:
        value, stored = self.pointer.read_in(transaction), StoredKeys(transaction, self._keys_of)
        commands = self._rename_commands(staged, stored) if staged else []
        move, result = plan(Snapshot(value, stored.faults_of))
        commands += self._expiry_commands(move, stored, staged)
        if move.value != value:
            commands += self.pointer.commands(move.value)
        return commands, result

    def _rename_commands(self, staged: StagedBlob, stored: StoredKeys) -> list[Command]:
        """Build the commands that move staged chunks to their final keys."""
        if stored.transaction.count(staged.keys) < len(staged.keys):
            raise StoreUnreachableError(
                f"{self.pointer.location}: writing {staged.version} took longer than "
                f"{self._staged_s:g} s, the time to live of staged chunks; check the network"
            )
        chunk_keys = self._chunk_keys(staged.version, len(staged.keys))
        header_key = self._header_key(staged.version)
        stored.keys[staged.version] = [header_key, *chunk_keys]
        renames = zip(staged.keys, chunk_keys, strict=True)
        return [
            *(("RENAME", key, chunk_key) for key, chunk_key in renames),
            ("SET", header_key, staged.header),
        ]

    def _expiry_commands(
        self, move: Move, stored: StoredKeys, staged: StagedBlob | None
    ) -> list[Command]:
        """Build the commands that persist or expire versions."""
        commands: list[Command] = []
        for version in move.kept | move.released | ({staged.version} if staged else set()):
            for key in stored.get(version):
                if version in move.kept:
                    commands.append(("PERSIST", key))
                else:
                    commands.append(("PEXPIRE", key, to_milliseconds(move.ttl_s)))
        return commands

    @contextmanager
    def _stage(self, blob: Blob) -> Iterator[StagedBlob]:
        """Write the chunks of a blob under temporary keys; delete those not renamed."""
        token = secrets.token_hex(8)
        keys = [f"{self._prefix}staged:{token}:{n}" for n in range(len(blob.chunks))]
        header = render_header(blob, self._now())
        try:
            for key, chunk in zip(keys, blob.chunks, strict=True):
                self._client.set(key, chunk, self._staged_s)
            yield StagedBlob(blob.version, header, keys)
        finally:
            self._client.try_delete(keys)

    def _list_stored(self) -> dict[str, tuple[BlobInfo, bytes | None, list[str]]]:
        """List each version with its info, header and keys, by scanning all keys."""
        keys: dict[str, list[str]] = {}
        for key in self._client.list_keys(self._prefix):
            version = key.removeprefix(self._prefix).partition(":")[0]
            if re.fullmatch(VERSION_PATTERN, version):
                keys.setdefault(version, []).append(key)
        return {version: self._read_info(version, own) for version, own in keys.items()}

    def _read_info(self, version: str, keys: list[str]) -> tuple[BlobInfo, bytes | None, list[str]]:
        header_key = self._header_key(version)
        header = self._client.get(header_key, MAX_HEADER_BYTES + 1)
        ttl_s = self._client.ttl_s(header_key)
        info = BlobInfo(version, parse_header(header), header is not None, ttl_s)
        return info, header, keys

    def _keys_of(self, transaction: Transaction, version: str) -> list[str]:
        header_key = self._header_key(version)
        header = parse_header(transaction.get(header_key, MAX_HEADER_BYTES + 1))
        return [header_key, *self._chunk_keys(version, header.num_chunks)] if header else []

    def _header_key(self, version: str) -> str:
        return f"{self._prefix}{version}:meta"

    def _chunk_keys(self, version: str, num_chunks: int) -> list[str]:
        return [f"{self._prefix}{version}:{number}" for number in range(num_chunks)]
